"""Card rest-rl: which problems are kept, prefix states, UCT, and the two kinds of search round."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

import pytest

from ludus.search.mcts import (
    Node,
    Sample,
    Score,
    Settings,
    add_children,
    back_up,
    best,
    decoding_round,
    from_records,
    hide_all_but_best,
    select,
    to_records,
    training_round,
    uct,
    values,
)
from ludus.search.prefixes import completion_reward, prefix_weights, start_states, varied
from ludus.types import Key

KEY = Key(0)


# ---------------------------------------------------------------------------------------------- prefix states


@pytest.mark.parametrize(
    ("rewards", "kept"),
    [([0, 0, 1, 0.5, 1], True), ([0, 0, 0, 0, 0.1], False), ([0.9, 1, 1, 1, 1], False)],
)
def test_problems_whose_samples_differ(rewards: list[float], kept: bool):
    assert varied(rewards) == kept  # std 0.4472, 0.04, 0.04


def test_prefix_weights():
    expected = [0.1887, 0.1793, 0.1703, 0.1618, 0.1537, 0.146]
    assert prefix_weights(6) == pytest.approx(expected, abs=5e-5)
    assert prefix_weights(4, alpha=1) == [0.25] * 4
    assert prefix_weights(1) == [1]
    with pytest.raises(ValueError, match="give at least one line"):
        prefix_weights(0)


SAMPLES = ["x\n", "a\nb\nc\nd\ne\nf\n", "a\n", "z", "g\nh"]


def test_start_states_are_beginnings_of_the_first_best_sample():
    states = start_states("P:", SAMPLES, [0, 1, 0.2, 0, 1], KEY)
    beginnings = ["P:" + "\n".join("abcdef"[: i + 1]) + ("\n" if i < 5 else "") for i in range(6)]
    assert states[0] == "P:" and len(states) == 1 + 3  # ceil(0.5 * 6)
    assert set(states[1:]) <= set(beginnings)
    assert start_states("P:", SAMPLES, [0, 1, 0.2, 0, 1], KEY) == states
    many = Counter(
        state
        for seed in range(2000)
        for state in start_states("P:", SAMPLES, [0, 1, 0.2, 0, 1], Key(seed))[1:]
    )
    shares = [many[state] / 6000 for state in beginnings]
    assert shares == pytest.approx(prefix_weights(6), abs=0.02)


def test_fewer_start_states():
    assert start_states("P:", SAMPLES, [1, 1, 1, 1, 1], KEY) == []
    assert start_states("P:", SAMPLES, [0, 0.8, 0, 0, 0], KEY) == ["P:"]  # the best is not good
    assert start_states("P:", SAMPLES, [1, 1, 1, 1, 1], KEY, least_std=0, beta=0) == [
        "P:"
    ]  # plain GRPO
    with pytest.raises(ValueError, match="one for each"):
        start_states("P:", SAMPLES, [1], KEY)


@pytest.mark.parametrize(
    ("lines", "bare", "prefixed"), [(4, 0.536, 0.689), (6, 0.201, 0.596), (8, 0.065, 0.469)]
)
def test_share_of_groups_with_both_outcomes(lines: int, bare: float, prefixed: float):
    """Card (c): a program of binary lines, each right with .55, is right if all are; groups of eight."""

    def mixed(still: int) -> float:
        success = 0.55**still
        return 1 - success**8 - (1 - success) ** 8

    assert mixed(lines) == pytest.approx(bare, abs=5e-4)
    weights = prefix_weights(lines)
    shares = sum(weight * mixed(lines - 1 - i) for i, weight in enumerate(weights))
    assert shares == pytest.approx(prefixed, abs=5e-4)


def test_reward_of_a_completion():
    assert completion_reward(0.6, True, 40) == pytest.approx(0.60096)
    assert completion_reward(1, False, 0) == 1


# ---------------------------------------------------------------------------------------------- search


@pytest.mark.parametrize(("c", "first", "second"), [(0.1, 0.6997, 0.6673), (0.2, 0.7993, 0.8346)])
def test_uct_and_the_order_that_flips(c: float, first: float, second: float):
    assert uct(0.6, 3, 8, exploration=c, eps=0.1) == pytest.approx(first, abs=5e-5)
    assert uct(0.5, 1, 8, exploration=c, eps=0.1) == pytest.approx(second, abs=5e-5)


def sampler(told: dict[str, list[str]]) -> Sample:
    async def sample(state: str, count: int, key: Key) -> Sequence[str]:
        assert len(told[state]) == count
        return told[state]

    return sample


def score(told: dict[str, float]) -> Score:
    async def value(texts: Sequence[str]) -> Sequence[float]:
        return [told[text] for text in texts]

    return value


def test_two_training_rounds_of_the_card():
    root = Node("")
    first = ["a\n1", "b\n1", "c\n1", "d\n1", "e\n1"]
    then = ["1\nx", "2\nx", "3\nx", "4\nx", "5\nx"]
    rewards = dict(zip([f"{text}\n" for text in first], [0, 0.5, 1, 0.5, 0], strict=True))
    settings = Settings()
    asyncio.run(training_round(root, sampler({"": first}), score(rewards), settings, KEY))
    assert (root.visits, root.value) == (5, 0.4)
    assert [child.visible for child in root.children.values()] == [True] * 3 + [False] * 2
    child = select(root, settings, KEY / "select")
    assert child.visible and child.visits == 0

    rewards = {f"{child.state}{text}\n": r for text, r in zip(then, [1, 1, 0.5, 1, 0], strict=True)}
    sample = sampler({child.state: then})
    reached = asyncio.run(training_round(root, sample, score(rewards), settings, KEY))
    assert reached is child and (child.visits, child.value) == (5, 0.7)
    assert (root.visits, root.value) == (10, 0.55)
    told = [
        uct(node.value, node.visits, root.visits, exploration=0.2, eps=0.1)
        for node in (child, next(n for n in root.children.values() if n is not child))
    ]
    assert told == pytest.approx([0.8609, 1.1494], abs=5e-5)
    targets = values(root)
    assert ("", 0.55) in targets and (child.state, 0.7) in targets and len(targets) == 2 + 10


def test_a_decoding_round_of_the_card():
    root = Node("")
    samples = ["A\nx", "A\ny", "B\nx", "C\nx", "D\nx"]
    worth = {"A\n": 0.7, "B\n": 0.5, "C\n": 0.2, "D\n": 0.4}
    worth |= {"A\nx\n": 0.3, "A\ny\n": 0.6, "B\nx\n": 0.9, "C\nx\n": 0.1, "D\nx\n": 0.1}
    asyncio.run(decoding_round(root, sampler({"": samples}), score(worth), Settings(), KEY))
    assert (root.visits, root.total, root.value) == (5, 2.5, 0.5)
    assert [name.strip() for name, child in root.children.items() if child.visible] == [
        "A",
        "B",
        "D",
    ]
    assert [child.visits for child in root.children.values()] == [2, 1, 1, 1]
    assert best(root) == ("B\nx\n", 0.9)  # not in the node with the most visits


def bits(state: str, count: int, key: Key) -> list[str]:
    """Completions of a program of four binary lines."""
    left = 4 - state.count("\n")
    drawn = key.generator().integers(2, size=(count, left))
    return ["\n".join(str(bit) for bit in row) for row in drawn]


async def sample_bits(state: str, count: int, key: Key) -> Sequence[str]:
    return bits(state, count, key)


async def ones(texts: Sequence[str]) -> Sequence[float]:
    """Share of right lines: a verifier of whole programs and, as it happens, a fair value model."""
    return [text.count("1") / 4 for text in texts]


@pytest.mark.parametrize("turn", [training_round, decoding_round])
def test_visits_of_the_root_are_exact(turn: Callable[..., Coroutine[Any, Any, Node]]):
    root, expected = Node(""), 0
    for number in range(60):
        ended = select(root, Settings(), KEY / number / "select").terminal
        reached = asyncio.run(turn(root, sample_bits, ones, Settings(), KEY / number))
        expected += 1 if ended else 5
        assert reached.terminal == ended and root.visits == expected
    for node in root.walk():
        assert node.terminal == (node.state.count("\n") == 4)
        assert 0 <= node.value <= 1 and len(node.children) <= 2
    assert best(root)[1] == 1


def test_one_round_with_a_perfect_value_model_is_best_of_five():
    for seed in range(20):
        root = Node("")
        asyncio.run(decoding_round(root, sample_bits, ones, Settings(), Key(seed)))
        five = [f"{text}\n" for text in bits("", 5, Key(seed) / "sample")]
        highest = max(text.count("1") for text in five)
        assert best(root) == (next(t for t in five if t.count("1") == highest), highest / 4)


def test_a_terminal_node_is_verified_once_and_then_counts_with_its_value():
    calls: list[str] = []

    async def verify(texts: Sequence[str]) -> Sequence[float]:
        calls.extend(texts)
        return [0.5] * len(texts)

    root = Node("")
    asyncio.run(training_round(root, sampler({"": ["a"] * 5}), verify, Settings(), KEY))
    (leaf,) = root.children.values()
    assert leaf.terminal and leaf.state == "a\n" and leaf.visits == 0
    for _ in range(3):
        asyncio.run(training_round(root, sampler({}), verify, Settings(), KEY))
    assert len(calls) == 5 + 1 and (leaf.visits, leaf.total) == (3, 1.5)
    assert (root.visits, root.total) == (8, 4.0)


def test_equal_lines_share_a_child_and_ties_are_drawn():
    root = Node("")
    found = add_children(root, ["a\nb", "a\nc  \n\n", "a", "", "b\n"])
    assert [node.state for node in found] == ["a\n", "a\n", "a\n", "\n", "b\n"]
    assert [node.terminal for node in found] == [False, False, False, True, True]
    back_up(root, 5, 1)
    drawn = Counter(select(root, Settings(), Key(seed)).state for seed in range(300))
    assert min(drawn.values()) > 60 and len(drawn) == 3
    hide_all_but_best(root, 2)
    assert {select(root, Settings(), Key(seed)).state for seed in range(50)} == {"a\n", "\n"}


def test_a_tree_comes_back_from_disk_as_it_was():
    root = Node("def f():\n")
    for number in range(8):
        asyncio.run(training_round(root, sampler_of(root.state), ones, Settings(), KEY / number))
    records = json.loads(json.dumps(to_records(root)))
    again = from_records(records)
    assert to_records(again) == to_records(root) and len(records) > 10
    assert again.value == root.value and best(again) == best(root) and values(again) == values(root)
    assert select(again, Settings(), KEY).state == select(root, Settings(), KEY).state
    with pytest.raises(ValueError, match="give those of to_records"):
        from_records([])
    with pytest.raises(ValueError, match="run a round first"):
        best(Node(""))


def sampler_of(start: str) -> Sample:
    async def sample(state: str, count: int, key: Key) -> Sequence[str]:
        return bits(state.removeprefix(start), count, key)

    return sample
