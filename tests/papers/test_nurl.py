"""Pinned numbers and rules of NuRL, arXiv:2509.25666: who gets a hint, who stays without, and what a hint may say."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import engine, tiny_model, tokenizer

from ludus.advantages.relative import grpo
from ludus.curricula.hints import Hints, hint_message, hinted
from ludus.data.batch import make_batch
from ludus.data.hints import leaks, shortened, write_hint
from ludus.data.render import Renderer
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import (
    Completion,
    ContextTooLong,
    End,
    Group,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampling,
    Task,
)

TASKS = [
    Task(name, (Message("user", f"Goal: craft {name} log."),), answer=name)
    for name in ("oak", "birch")
]
HINT = "craft planks"


def group(task: Task, rewards: Sequence[float], end: End = End.FAILED) -> Group:
    return Group(task.id, tuple(Rollout(task, (), (), r, end) for r in rewards))


def drawn(hints: Hints, count: int = 2) -> tuple[Any, list[Request]]:
    return hints.draw(hints.init(TASKS), TASKS, count, Key(0))


def test_advantages_of_a_mixed_second_try() -> None:
    def credit(*rewards: float) -> list[float]:
        return grpo(torch.tensor(rewards, dtype=torch.float64), torch.zeros(8).long()).tolist()

    # five of the seven hinted answers right, the plain one wrong: mean .625, deviation .517549
    got = credit(1, 1, 1, 1, 1, 0, 0, 0)
    assert got == pytest.approx([0.724567] * 5 + [-1.207612] * 3, abs=1e-5)
    # all seven right: the plain one pays for it alone
    got = credit(1, 1, 1, 1, 1, 1, 1, 0)
    assert got == pytest.approx([0.353552] * 7 + [-2.474867], abs=1e-5)


def test_only_where_all_failed_and_only_once() -> None:
    hints = Hints({"oak": HINT, "birch": HINT}, answers=8)
    state, asked = drawn(hints)
    assert [r.answers for r in asked] == [8, 8] and not any(r.guidance for r in asked)
    by_name = {r.task.id: r.task for r in asked}
    first = [group(r.task, [0.0] * 8 if r.task.id == "oak" else [0.0] * 7 + [1.0]) for r in asked]
    state, again = hints.more(state, first)
    assert [(r.task.id, r.answers, r.guidance) for r in again] == [
        ("oak", 7, (hint_message(HINT),)),
        ("oak", 1, ()),
    ]
    second = [group(by_name["oak"], [1.0] * 5 + [0.0] * 2), group(by_name["oak"], [0.0])]
    state = json.loads(json.dumps(state))
    assert hints.more(state, first + second) == (state, [])  # never a third try
    chosen = hints.select(state, first + second)
    assert [g.key for g in chosen] == [g.key for g in first]
    at = [g.key for g in first].index("oak")
    assert chosen[1 - at] is first[1 - at]  # a group with a success is the very same
    assert [r.reward for r in chosen[at].rollouts] == [1.0] * 5 + [0.0] * 3
    assert not set(map(id, chosen[at].rollouts)) & set(map(id, first[at].rollouts))  # discarded


def test_without_failures_hints_or_scores_nothing_is_asked_again() -> None:
    for mapping, rewards, end in [
        ({"oak": HINT}, [0.0, 1.0], End.FAILED),
        ({}, [0.0, 0.0], End.FAILED),
        ({"oak": HINT}, [0.0, 0.0], End.ENV_CRASHED),  # lost is not failed
    ]:
        hints = Hints(mapping, answers=2)
        state, _ = hints.draw(hints.init(TASKS[:1]), TASKS[:1], 1, Key(0))
        groups = [group(TASKS[0], rewards, end)]
        state, asked = hints.more(state, groups)
        assert asked == [] and hints.select(state, groups) == groups
    nested = Hints({}, answers=2, inner=Hints({}, answers=2))
    with pytest.raises(ValueError, match="draws requests"):
        nested.draw(nested.init(TASKS), TASKS, 1, Key(0))
    with pytest.raises(ValueError, match="one of them is plain"):
        Hints({}, answers=1)


def test_a_task_that_was_drawn_twice() -> None:
    """Each draw is a group of its own; only the one that failed is tried again."""
    hints = Hints({"oak": HINT}, answers=2)
    state, asked = hints.draw(hints.init(TASKS[:1]), TASKS[:1], 2, Key(0))
    assert len(asked) == 2
    good, bad = group(TASKS[0], [1.0, 0.0]), group(TASKS[0], [0.0, 0.0])
    for first in ([good, bad], [bad, good]):
        after, again = hints.more(state, first)
        assert [r.answers for r in again] == [1, 1]
        second = [group(TASKS[0], [1.0]), group(TASKS[0], [0.0])]
        chosen = hints.select(after, first + second)
        assert sorted(tuple(r.reward for r in g.rollouts) for g in chosen) == [(1.0, 0.0)] * 2
        assert any(g is good for g in chosen) and not any(g is bad for g in chosen)


def test_everybody_is_learnt_from_under_the_own_prompt() -> None:
    """The plain row's tokens, and so its log-probabilities, do not change with the hint."""
    plain_rows = []
    for hint in (HINT, "get birch"):
        hints = Hints({"oak": hint}, answers=3)
        state, asked = hints.draw(hints.init(TASKS[:1]), TASKS[:1], 1, Key(0))
        policy = engine(tiny_model())
        strategy = SingleTurn(Sampling(max_tokens=3))
        first = policy.collect(strategy, asked, None, Key(1))
        state, again = hints.more(state, first)
        second = policy.collect(strategy, again, None, Key(1) / "again")
        (chosen,) = hints.select(state, first + second)
        assert [hinted(r, hint) for r in chosen.rollouts] == [True, True, False]
        batch = make_batch([chosen])
        texts = [tokenizer().decode(row[row >= 0]) for row in batch.tokens]
        assert [hint in text for text in texts] == [True, True, False]
        plain_rows.append((batch.tokens[2][batch.tokens[2] >= 0], batch.logp[2][batch.mask[2]]))
    (one, p), (other, q) = plain_rows
    assert torch.equal(one, other) and torch.equal(p, q)


# ------------------------------------------------------------------ the hints themselves


def test_what_leaks() -> None:
    assert leaks("The answer is 42.", ["42"])
    assert leaks("so it is  New-York!", ["new york"])
    assert not leaks("add 142 and 420", ["42"])  # whole words
    assert leaks("first 7, then more", ["9", "7"])
    assert not leaks("use the law of cosines", ["", "cosine"])


def test_a_hint_ends_at_a_sentence() -> None:
    hint = "Use symmetry. Then count pairs! No more."
    assert shortened(hint, 400) == hint
    assert shortened(hint, 20) == "Use symmetry."
    assert shortened(hint, 31) == "Use symmetry. Then count pairs!"
    assert shortened("v3.5 is one word of many", 10) == ""


class Writer:
    """Explains first, then gives the next of its hints."""

    def __init__(self, *hints: str) -> None:
        self.renderer, self.hints, self.read = Renderer(tokenizer()), list(hints), list[str]()

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        text = tokenizer().decode(context.context())
        self.read.append(text)
        if "State in one" not in text:
            said = "because it is"
        elif self.hints:
            said = self.hints.pop(0)
        else:
            raise ContextTooLong("full")
        ids = np.array([*tokenizer()(said)["input_ids"], tokenizer().eos_token_id])
        return Completion(ids, np.zeros(len(ids), np.float32), "stop", 0, sampling)

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def test_a_hint_that_leaks_is_written_again() -> None:
    def write(*hints: str, tries: int = 4) -> tuple[str | None, Writer]:
        writer = Writer(*hints)
        return asyncio.run(write_hint(TASKS[0], ["oak"], writer, Key(0), tries=tries)), writer

    hint, writer = write("take oak", "", "look at the recipe")
    assert hint == "look at the recipe"
    assert (
        "The correct answer is oak." in writer.read[0] and TASKS[0].prompt[0].text in writer.read[0]
    )
    assert "because it is" in writer.read[1]
    assert write("oak", "oak", tries=2)[0] is None
    assert write()[0] is None  # no room
    task = replace(TASKS[1], prompt=())
    assert asyncio.run(write_hint(task, ["birch"], Writer("fine"), Key(0))) == "fine"
