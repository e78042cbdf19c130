"""Pairs and rejection sampling: the cards' rankings, ties, and what is left out."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from ludus.data.pairs import Pair, agentgym, all_pairs, best_worst, split_by_gap
from ludus.data.selection import keep_best
from ludus.evals.best_of_n import best_of_n_kl, expected_maximum
from ludus.types import End, Group, Image, Node, Rollout, Task, Turn


def rollout(reward: float, action: str = "", *, task: str = "t", end: End = End.FAILED) -> Rollout:
    node = Node(None, np.zeros(1, np.int64))
    return Rollout(Task(task), (node,), (Turn(node, action),), reward, end)


def group(rewards: Sequence[float], key: str = "t") -> Group:
    """Answers that all differ."""
    return Group(key, tuple(rollout(r, str(i), task=key) for i, r in enumerate(rewards)))


def places(pairs: Sequence[Pair], within: Group) -> list[tuple[int, int]]:
    """Chosen and rejected as indices into the group."""
    index = {id(r): i for i, r in enumerate(within.rollouts)}
    return [(index[id(pair.chosen)], index[id(pair.rejected)]) for pair in pairs]


# ------------------------------------------------------------------------------------------------ pairs


def test_best_worst() -> None:
    # RLHF Workflow's example; 2.5 occurs twice and the first wins.
    answers = group([1.2, -0.3, 2.5, 2.5, 0.4, -1.1, 0, 1.9])
    pairs = best_worst(answers)
    assert places(pairs, answers) == [(2, 5)]
    assert pairs[0].gap == pytest.approx(3.6)


@pytest.mark.parametrize("rule", [best_worst, all_pairs])
@pytest.mark.parametrize("rewards", [[], [1.0], [0.5, 0.5, 0.5]])
def test_nothing_to_compare_is_no_pair(
    rule: Callable[[Group], list[Pair]], rewards: list[float]
) -> None:
    assert rule(group(rewards)) == []


def test_all_pairs_of_different_rank() -> None:
    ranks = group([-1, -2, -2, -3])  # MM-RLHF's ranking 1, 2, 2, 3
    assert places(all_pairs(ranks), ranks) == [(0, 1), (0, 2), (0, 3), (1, 3), (2, 3)]
    survey = group([1, 0, 0, 1])
    assert len(all_pairs(survey)) == 4  # two right x two wrong


@pytest.mark.parametrize(
    ("rewards", "expected"),
    [
        ([0.2, 0.9], [(1, 0)]),
        ([0.7, 0.0], [(0, 1)]),  # 0.7 is enough
        ([0.69, 0.0], []),  # the better one is not good
        ([0.905, 0.9], []),  # nearly equal
        ([1.0, 1.0], []),
    ],
)
def test_agentgyms_rule(rewards: list[float], expected: list[tuple[int, int]]) -> None:
    two = group(rewards)
    assert places(agentgym(two), two) == expected


def test_agentgyms_rule_on_webshop_and_on_other_sizes() -> None:
    two = group([0.85, 0.0])
    assert agentgym(two) and not agentgym(two, least_gap=0.1, least_chosen=0.9)
    near = group([0.95, 0.9])
    assert agentgym(near) and not agentgym(near, least_gap=0.1, least_chosen=0.9)
    with pytest.raises(ValueError, match=r"has 3 rollouts, .*use best_worst"):
        agentgym(group([1, 0, 0]))


def test_split_by_gap() -> None:
    # MPO's example, gamma 1: gaps 3, 0.2, -0.1, 2.5, 0.1.
    labelled = zip((2, 1, 0.5, 3, 0.2), (-1, 0.8, 0.6, 0.5, 0.1), strict=True)
    pairs = [Pair(rollout(won), rollout(lost)) for won, lost in labelled]
    assert [pair.gap for pair in pairs] == pytest.approx([3, 0.2, -0.1, 2.5, 0.1])
    clear, close = split_by_gap(pairs, 1.0)
    assert clear == [pairs[0], pairs[3]] and close == [pairs[1], pairs[2], pairs[4]]
    assert split_by_gap(pairs, -math.inf) == (pairs, [])
    assert split_by_gap(pairs, math.inf) == ([], pairs)
    exactly = [Pair(rollout(1.0), rollout(0.0))]
    assert split_by_gap(exactly, 1.0) == ([], exactly)  # strictly above


def test_a_crash_is_not_a_worse_answer() -> None:
    crashed = rollout(-5.0, "crashed", end=End.ENV_CRASHED)
    answers = Group("t", (rollout(1.0, "a"), crashed, rollout(0.5, "b")))
    assert places(best_worst(answers), answers) == [(0, 2)]
    assert places(all_pairs(answers), answers) == [(0, 2)]
    assert agentgym(Group("t", (rollout(1.0), crashed))) == []


def test_a_reward_of_nan_is_an_error() -> None:
    broken = group([1.0, math.nan])
    for rule in (best_worst, all_pairs, agentgym):
        with pytest.raises(ValueError, match=r"number 1 of those scored.*End\.JUDGE_ERROR"):
            rule(broken)
    judged = Group("t", (rollout(1.0), rollout(math.nan, end=End.JUDGE_ERROR)))
    assert best_worst(judged) == []


# ------------------------------------------------------------------------------------------------ selection


def test_best_of_n_picks_the_first_of_equals() -> None:
    groups = [group([0.1, 0.9, 0.4, 0.2], "x"), group([0.3, 0.3, 0.1, 0.2], "y")]
    selection = keep_best(groups)
    assert selection.kept == (groups[0].rollouts[1], groups[1].rollouts[0])
    assert selection.dropped == {"not among the best": 6}
    assert selection.without == ()


def test_all_right_answers_once_each() -> None:
    answers = Group(
        "t",
        (
            rollout(1.0, "a"),
            rollout(0.0, "b"),
            rollout(1.0, "c"),
            rollout(1.0, "a"),
            rollout(1.0, "d"),
            rollout(1.0, "c"),
        ),
    )
    selection = keep_best([answers], above=0, per_task=None)
    assert [r.turns[0].action for r in selection.kept] == ["a", "c", "d"]
    assert selection.kept[0] is answers.rollouts[0]
    assert selection.dropped == {"reward too low": 1, "duplicate": 2}


def test_agentevol_keeps_one_success_of_each_task() -> None:
    groups = [
        group([0.5, 1.0, 1.0], "won"),
        group([0.0, 0.99], "lost"),  # 0.99 is not above 0.99
        group([1.0], "won"),  # attempted again
        Group("broken", (rollout(1.0, task="broken", end=End.ENV_TIMED_OUT),)),
    ]
    selection = keep_best(groups, above=0.99)
    assert selection.kept == (groups[0].rollouts[1],)
    assert selection.without == ("lost", "broken")
    assert selection.dropped == {
        "not the policy's doing": 1,
        "reward too low": 3,
        "not among the best": 2,
    }
    assert sum(selection.dropped.values()) + len(selection.kept) == 7


def test_duplicates_do_not_change_the_order() -> None:
    answers = Group("t", (rollout(1, "a"), rollout(1, "b"), rollout(1, "a"), rollout(2, "c")))
    kept = keep_best([answers], above=0, per_task=2).kept
    assert [r.turns[0].action for r in kept] == ["c", "a"]


def test_the_same_actions_in_another_world_are_no_duplicate() -> None:
    node = Node(None, np.zeros(1, np.int64))

    def saw(observation: str) -> Rollout:
        return Rollout(Task("t"), (node,), (Turn(node, "look", observation),), 1.0, End.SOLVED)

    kept = keep_best([Group("t", (saw("red"), saw("blue"), saw("red")))], per_task=None).kept
    assert [r.turns[0].observation for r in kept] == ["red", "blue"]

    def shown(screen: bytes) -> Rollout:
        turn = Turn(node, "look", pictures=(Image(screen),))
        return Rollout(Task("t"), (node,), (turn,), 1.0, End.SOLVED)

    kept = keep_best([Group("t", (shown(b"a"), shown(b"b"), shown(b"a")))], per_task=None).kept
    assert [r.turns[0].pictures for r in kept] == [(Image(b"a"),), (Image(b"b"),)]


def test_nothing_at_all() -> None:
    selection = keep_best([])
    assert (selection.kept, selection.dropped, selection.without) == ((), {}, ())
    with pytest.raises(ValueError, match="per_task is 0"):
        keep_best([], per_task=0)


# ------------------------------------------------------------------------------------------------ best of n


@pytest.mark.parametrize(("n", "kl"), [(1, 0.0), (4, 0.636294), (8, 1.204442), (16, 1.835089)])
def test_best_of_n_kl(n: int, kl: float) -> None:
    assert best_of_n_kl(n) == pytest.approx(kl, abs=1e-6)


def test_best_of_n_kl_is_reached_without_ties() -> None:
    # Best of n of a uniform on many values has density n u^(n-1) against 1; KL = integral of it times its log.
    n = 4
    u = (torch.arange(1_000_000, dtype=torch.float64) + 0.5) / 1_000_000
    density = n * u ** (n - 1)
    assert float((density * density.log()).mean()) == pytest.approx(best_of_n_kl(n), abs=1e-6)


@pytest.mark.parametrize(("n", "maximum", "spread"), [(4, 1.03, 2.06), (8, 1.42, 2.85)])
def test_expected_maximum(n: int, maximum: float, spread: float) -> None:
    assert expected_maximum(n) == pytest.approx(maximum, abs=5e-3)
    assert 2 * expected_maximum(n) == pytest.approx(spread, abs=5e-3)


def test_expected_maximum_in_closed_form() -> None:
    assert expected_maximum(1) == pytest.approx(0.0, abs=1e-12)
    assert expected_maximum(2) == pytest.approx(1 / math.sqrt(math.pi), abs=1e-10)
    assert expected_maximum(3) == pytest.approx(1.5 / math.sqrt(math.pi), abs=1e-10)
    with pytest.raises(ValueError, match="1 or more"):
        expected_maximum(0)
