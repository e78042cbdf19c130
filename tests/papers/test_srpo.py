"""SRPO, arXiv:2506.01713: what is paid for five parts, and what such a payment teaches."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch

from ludus.advantages.relative import grpo
from ludus.curricula.within import Within
from ludus.envs.small.shapes import FINE, Shapes, misread, written
from ludus.rewards.reflection import (
    FIRST_ATTEMPT,
    Counts,
    Effects,
    Reflection,
    attempts,
    blocks,
    exactly,
    length_term,
    names_the_letter,
    outcome,
    well_formed,
)
from ludus.rollouts.first_attempt import tokens_until
from ludus.types import End, Group, Node, Rollout, Task, Turn

PAIRS = [(True, True), (False, True), (True, False), (False, False)]


def response(first: str = "7", second: str = "7", reflection: str = "sound") -> str:
    return (
        f"<think>a</think><answer>{first}</answer><reflection>{reflection}</reflection>"
        f"<think>b</think><answer>{second}</answer>"
    )


def rollout(said: str, *, length: int = 225, first: int = 100, solved: bool = True) -> Rollout:
    node = Node(None, np.zeros(length, np.int64), True, np.zeros(length, np.float32))
    end = End.SOLVED if solved else End.FAILED
    task = Task("t", answer="7")
    return Rollout(task, (node,), (Turn(node, said),), 0.0, end, signals={FIRST_ATTEMPT: first})


def scored(reward: Reflection, *rollouts: Rollout) -> list[Rollout]:
    return list(asyncio.run(reward([Group("t", rollouts)]))[0].rollouts)


# ------------------------------------------------------------------------------------------- the parts


def test_the_five_parts_and_nothing_else() -> None:
    good = response()
    assert well_formed(good) and well_formed(f"\n{good} \n".replace("><", ">\n<"))
    assert [block.name for block in blocks(good)] == [
        *("think", "answer", "reflection", "think", "answer")
    ]
    for bad in (
        good + " so 7",
        "I say " + good,
        good + "<think>c</think>",  # a third think
        "<think>c</think>" + good,
        good.replace("</reflection>", "</reflection><think>"),
        good.replace("sound", " "),
        good.replace("<reflection>sound</reflection>", ""),
        good.replace("<think>b</think><answer>7</answer>", "<answer>7</answer><think>b</think>"),
        "",
        "<answer>" * 3,
    ):
        assert not well_formed(bad), bad


def test_attempts_are_full_pairs_of_a_think_and_its_answer() -> None:
    assert attempts(response("7", " 8 ")) == ["7", "8"]
    assert attempts("<answer>7</answer>" + response("5", "6")) == ["5", "6"]
    assert attempts("<think>a</think> so <answer>7</answer>") == []
    assert attempts("<think>a</think><answer>7</answer><reflection>r</reflection><think>b") == ["7"]


def test_the_same_text_however_answer_and_key_are_spaced() -> None:
    assert exactly(" 12  cm\n", "12 cm") and exactly("12 cm", " 12\ncm ") and exactly("7", 7)
    assert not exactly("12cm", "12 cm")


def test_many_tags_cost_no_more_than_their_length() -> None:
    assert blocks("<think>" * 100_000) == [] and attempts("<answer></think>" * 100_000) == []


# ------------------------------------------------------------------------------------------- the numbers


@pytest.mark.parametrize(
    ("counts", "table"),
    [
        ("either", (0.75, 1.0, 0.25, 0.0)),
        ("first", (0.75, 0.5, 0.25, 0.0)),
        ("last", (0.75, 1.0, -0.25, 0.0)),
    ],
)
def test_the_table_of_outcomes(counts: Counts, table: tuple[float, ...]) -> None:
    assert tuple(outcome(*pair, counts=counts) for pair in PAIRS) == table


def test_swapping_the_answers_swaps_what_is_paid() -> None:
    reward = Reflection(alpha=0.0, form=0.0)
    one, other = scored(reward, rollout(response("5", "7")), rollout(response("7", "5")))
    assert (one.reward, other.reward) == (1.0, 0.25)


@pytest.mark.parametrize(
    ("length", "worth"),
    [
        *((200, 1.0), (225, 0.778801), (150, 0.367879)),
        *((250, 0.367879), (100, 0.018316), (300, 0.018316)),
    ],
)
def test_the_length_term(length: int, worth: float) -> None:
    assert length_term(length, 100) == pytest.approx(worth, abs=5e-7)
    told = scored(Reflection(), rollout(response(), length=length))[0].terms["length"]
    assert told == pytest.approx(0.1 * worth, abs=5e-8)


def test_a_first_attempt_without_length() -> None:
    with pytest.raises(ValueError, match="no length to compare"):
        length_term(10, 0)


def test_the_rewards_of_a_group_and_their_advantages() -> None:
    answers = [("7", "7"), ("5", "7"), ("7", "5"), ("5", "5")]
    paid = [r.reward for r in scored(Reflection(), *(rollout(response(*a)) for a in answers))]
    assert paid == pytest.approx([1.327880, 1.577880, 0.827880, 0.577880], abs=5e-7)
    advantage = grpo(torch.tensor(paid, dtype=torch.float64), torch.zeros(4, dtype=torch.int64))
    wanted = [0.547721, 1.095443, -0.547721, -1.095443]  # eps 1e-6 moves the sixth digit
    assert advantage.tolist() == pytest.approx(wanted, abs=4e-6)


def test_the_terms_add_up_and_tell_what_became_of_the_first_answer() -> None:
    kept, mended, spoiled, wrong = scored(
        Reflection(), *(rollout(response(*a)) for a in ("77", "57", "75", "55"))
    )
    for each in (kept, mended, spoiled, wrong):
        paid = each.terms["outcome"] + each.terms["format"] + each.terms["length"]
        assert each.reward == pytest.approx(paid)
    watched = ("first", "last", "repaired", "spoiled", "gained")
    told = [tuple(r.terms[n] for n in watched) for r in (kept, mended, spoiled, wrong)]
    assert told == [(1, 1, 0, 0, 0), (0, 1, 1, 0, 1), (1, 0, 0, 1, -1), (0, 0, 0, 0, 0)]


def test_without_length_and_effects_it_is_accuracy_and_format() -> None:
    plain = Reflection(counts="last", effects=Effects(0, 0, 0), alpha=0.0)
    texts = [response("5", "7"), response("7", "5"), response("7", "7") + "!", response("5", "5")]
    texts.append(response("7", "7") + "<think>c</think>")
    paid = [r.reward for r in scored(plain, *map(rollout, texts))]
    by_hand = [
        0.5 * (attempts(text)[-1] == "7") + 0.5 * (not text.endswith(("!", "</think>")))
        for text in texts
    ]
    assert paid == by_hand == [1.0, 0.5, 0.5, 0.5, 0.5]
    group = torch.zeros(len(texts), dtype=torch.int64)
    assert torch.equal(grpo(torch.tensor(paid), group), grpo(torch.tensor(by_hand), group))


def test_a_third_think_costs_the_format_alone() -> None:
    (got,) = scored(Reflection(), rollout(response() + "<think>c</think>"))
    assert got.terms["format"] == 0.0 and got.terms["outcome"] == 0.75


def test_without_two_attempts_the_release_pays_nothing() -> None:
    half = "<think>a</think><answer>7</answer><reflection>sound</reflection>"
    (got,) = scored(Reflection(), rollout(half))
    assert got.reward == 0.0 and got.terms["first"] == 1.0
    (got,) = scored(Reflection(release=False), rollout(half))
    assert got.reward == 0.25  # a missing second answer is a wrong one


def test_letters() -> None:
    assert names_the_letter("B", "B") and names_the_letter("(B) 12 cm", "B")
    assert names_the_letter("the answer is B.", "B")
    for answer in ("A or B", "A", "Both", "12 cm", "", "b"):
        assert not names_the_letter(answer, "B"), answer


# ------------------------------------------------------------------------------------------- sandbagging


def earned(table: Callable[[bool, bool], float]) -> tuple[float, float]:
    """What honesty earns (first right 0.8; kept 0.95; a wrong one repaired 0.3), and a feigned mistake."""
    honest = 0.8 * (0.95 * table(True, True) + 0.05 * table(True, False))
    honest += 0.2 * (0.3 * table(False, True) + 0.7 * table(False, False))
    feigned = 0.95 * 0.8 * table(False, True)  # mended where it could have been right at once
    return honest, feigned


@pytest.mark.parametrize(
    ("counts", "honest", "feigned", "end"),
    [("either", 0.64, 0.76, 0.98), ("first", 0.61, 0.38, 0.007)],
)
def test_sandbagging_pays_unless_the_first_answer_counts(
    counts: Counts, honest: float, feigned: float, end: float
) -> None:
    """An exact policy gradient on the logit of feigning a mistake, 600 steps of rate 1 from a share of 0.1."""
    earns = earned(lambda first, second: outcome(first, second, counts=counts))
    assert earns == pytest.approx((honest, feigned))
    logit = math.log(0.1 / 0.9)
    for _ in range(600):
        share = 1 / (1 + math.exp(-logit))
        logit += share * (1 - share) * (earns[1] - earns[0])
    assert 1 / (1 + math.exp(-logit)) == pytest.approx(end, abs=1e-3)


# ------------------------------------------------------------------------------------------- an empty reflection


def test_looks_fine_does_not_keep_the_reward_of_a_repair() -> None:
    """In the world of shapes the second attempt follows from the first and from what the reflection names."""
    world, reward = Shapes(train=60), Reflection(alpha=0.0)
    rng = np.random.default_rng(0)
    trap: list[float] = []
    for index in range(60):
        state = world.start("train", index)
        for cell in range(9):
            seen = misread(state, [cell], rng)
            if state.concluded(seen) == state.concluded(state.seen):
                continue
            task = Task("t", answer=state.concluded(state.seen))
            named, empty = written(state, seen, [cell], rng), written(state, seen, [], rng)
            assert f"<reflection>{FINE}</reflection>" in empty
            mended, same = scored(
                reward, *(replace(rollout(said), task=task) for said in (named, empty))
            )
            assert mended.reward == 1.5 and same.reward == 0.5 and same.terms["outcome"] == 0.0
            # paid for its presence, the empty one would keep a quarter of the effect
            trap.append(same.terms["outcome"] + 0.25 * ("<reflection>" in empty))
    assert len(trap) > 100 and set(trap) == {0.25}


# ------------------------------------------------------------------------------------------- what it is made of


class Letters:
    """A renderer of one letter a token."""

    def text(self, tokens: np.ndarray) -> str:
        return "".join(map(chr, tokens))


def test_the_first_attempt_is_counted_in_tokens() -> None:
    tokens = np.array([ord(letter) for letter in "ab</answer>cd</answer>"])
    assert tokens_until("</answer>", tokens, Letters()) == len("ab</answer>")
    assert tokens_until("</answer>", tokens[:5], Letters()) == 0


def test_only_tasks_between_are_learnt_from() -> None:
    def group(solved: int) -> Group:
        return Group(str(solved), tuple(rollout("", solved=i < solved) for i in range(8)))

    groups = [group(n) for n in (0, 1, 7, 8)]
    chosen = Within(0.1, 0.9).select(None, groups)
    assert [each.key for each in chosen] == ["1", "7"]
    assert Within(0.1, 0.9).select(None, [groups[0], groups[3]]) == [groups[0], groups[3]]
