"""Lines of praise: what they are worth, who writes them, and the rewards and strategies that judge them."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from ludus.envs.small.forks import Forks
from ludus.envs.small.praise import THINGS, WORDS, Praise, State
from ludus.evals.distinct import distinct
from ludus.models.praise_base import PraiseBase
from ludus.rewards.gold import Gold
from ludus.rollouts.judged import Judged
from ludus.rollouts.two_roles import OBSERVER, PIONEER
from ludus.types import End, Group, Key, Message, Node, Request, Rollout, Turn

WORLD = Praise()


def test_worth() -> None:
    state = State(1, 4)
    worth = WORLD.worth(state)
    best, second, *_, worst = WORLD.ranked(state)
    assert worth[best] == pytest.approx(1.0) and 1 >= worth[second] > 0 > worth[worst]
    assert WORLD.worth(State(4, 1)) == worth  # whichever is named first
    line = f"{best} {best} {second}"
    assert WORLD.gold(state, line) == pytest.approx((2 + worth[second]) / 6)
    assert WORLD.gold(state, "") == 0.0
    assert WORLD.gold(state, " ".join([best] * 6)) == pytest.approx(1.0)
    assert WORLD.gold(state, " ".join([best] * 9)) == pytest.approx(0.7)  # three too many
    assert WORLD.gold(state, "nonsense") == pytest.approx(-1 / 6)
    # a line of random words is worth about nothing
    rng = np.random.default_rng(0)
    worths = [WORLD.gold(state, WORLD.line(state, rng, 0.0, 6)) for _ in range(2000)]
    mean = sum(worth.values()) / len(WORDS)
    assert np.mean(worths) == pytest.approx(mean, abs=0.03) and abs(mean) < 0.05


def test_no_query_is_in_both_splits() -> None:
    train, test = ({frozenset(p) for p in WORLD.pairs(s)} for s in ("train", "test"))
    assert not train & test and len(train | test) == len(THINGS) * (len(THINGS) + 1) // 2
    task = WORLD.tasks("test")[3]
    state = WORLD.state(task)
    assert task.prompt == (Message("user", f"{THINGS[state.a]} and {THINGS[state.b]}"),)


def test_the_expert_is_good_everywhere() -> None:
    for split in ("train", "test"):
        for pair in WORLD.pairs(split):
            state = State(*pair)
            step = asyncio.run(WORLD.step(state, WORLD.expert(state)))
            assert step.end is End.SOLVED and step.reward == 1.0
    with pytest.raises(ValueError, match="give at least 1"):
        Praise(enough=0)


def test_distinct() -> None:
    assert distinct(["a b c", "a b"]) == pytest.approx(2 / 3)  # ab bc ab
    assert distinct(["a a a a"]) == pytest.approx(1 / 3)
    assert distinct(["a b", "a"], n=1) == pytest.approx(2 / 3)
    assert distinct(["a", ""]) == 0.0
    with pytest.raises(ValueError, match="n is 0"):
        distinct([], n=0)


def said(text: str, role: str, end: End = End.FAILED) -> Rollout:
    node = Node(None, np.array([1]))
    return Rollout(WORLD.tasks()[0], (node,), (Turn(node, text),), 0.0, end, agent=role)


def test_the_observer_is_told_apart() -> None:
    state = WORLD.state(WORLD.tasks()[0])
    best, second = WORLD.ranked(state)[:2]
    good = " ".join([best] * 6)
    rollouts = (said(good, PIONEER), said(second, OBSERVER), said(good, PIONEER, End.CANCELLED))
    (group,) = asyncio.run(Gold(WORLD)([Group("q", rollouts)]))
    pioneer, observer, lost = group.rollouts
    assert pioneer.end is End.SOLVED and pioneer.reward == pytest.approx(1.0)
    assert pioneer.terms == {"gold": pytest.approx(1.0), "distinct": pytest.approx(0.1)}
    assert observer.end is End.FAILED and set(observer.terms) == {"gold/observer"}
    assert lost is rollouts[2]


def test_an_attempt_is_judged_as_it_is_made() -> None:
    async def strategy(request: Request, sampler: Any, env: Any, key: Key) -> Rollout:
        return said(WORLD.expert(WORLD.state(request.task)), "policy")

    request = Request(WORLD.tasks()[0], 1, 1)
    (made,) = asyncio.run(Judged(strategy, Gold(WORLD))(request, None, None, Key(0)))
    assert made.end is End.SOLVED and made.reward == made.terms["gold"] > 0.5


def test_texts_of_the_base() -> None:
    base = PraiseBase(WORLD, steps=2, games=200, lengths=(2, 5))
    texts = [text for step in base.texts() for text in step]
    looked = [prompt.count("<|user|>") == 2 for prompt, _ in texts]
    assert 0.4 < sum(looked) / len(looked) < 0.6
    assert {len(line.removesuffix("<|end|>").split()) for _, line in texts} == {2, 3, 4, 5}
    with pytest.raises(ValueError, match="take a WorldBase"):
        PraiseBase(Forks())
