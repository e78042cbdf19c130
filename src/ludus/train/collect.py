"""Collecting a step: requests to the engine, their rewards, and further rounds where the curriculum asks for them.

A step of which everything was lost is collected again, a few times.
"""

from __future__ import annotations

import asyncio
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.train.recipe import Recipe, as_credit
from ludus.types import End, Engine, Explained, Group, Key, Request, Reward, Rollout, Task

Done = Callable[[Rollout], None]

AGAIN = 2  # times that a step is collected anew because all of it was lost


class AllLost(Explained, RuntimeError):
    """Every rollout of a step was lost to something outside the policy."""


@dataclass(frozen=True)
class Collector:
    """What is the same in all rounds of a step.

    turns  most in an episode
    done   told of each rollout that ends
    """

    recipe: Recipe
    engine: Engine
    step: int
    turns: int
    done: Done = lambda rollout: None

    def collect(
        self, drawing: Any, drawn: Sequence[Task | Request], key: Key
    ) -> tuple[Any, list[Group], list[Group]]:
        """What `gather` gives; once more where every rollout was lost, to a server that went away and is back, say."""
        requests = [asked(self.recipe, each, self.turns, key) for each in drawn]
        lost: list[Group] = []
        unfit: list[Group] = []  # the same, and why it cannot be learnt from
        for attempt in range(1 + AGAIN):
            name = key / "lost" / attempt if attempt else key
            drew, sampled, groups = self.gather(drawing, requests, name)
            if any(r.contexts and r.end.scorable for group in groups for r in group.rollouts):
                return drew, [*lost, *sampled], groups
            lost += sampled
            unfit += groups or sampled
        raise AllLost(what_was_lost(unfit, self.step))

    def gather(
        self, drawing: Any, requests: Sequence[Request], key: Key
    ) -> tuple[Any, list[Group], list[Group]]:
        """All groups of a step, in as many rounds as the curriculum asks for, and those to learn from."""
        groups: list[Group] = []
        curriculum = self.recipe.curriculum
        more, select = (getattr(curriculum, name, None) for name in ("more", "select"))
        rounds = 0
        asked_for: dict[str, Request] = {}
        while requests:
            asked_for = {each.task.id: each for each in requests} | asked_for
            name = key / "again" / rounds if rounds else key
            groups += self.attempted(self.recipe.strategy, requests, name, self.done)
            drawing, again = more(drawing, groups) if more else (drawing, ())
            requests = [asked(self.recipe, each, self.turns, key) for each in again]
            rounds += 1
        kept = list(select(drawing, groups)) if select else groups
        if any("baseline" in as_credit(p.credit).needs for p in self.recipe.policies.values()):
            kept = self.with_greedy_twins(kept, asked_for, key)
        return drawing, groups, kept

    def attempted(
        self,
        strategy: Any,
        requests: Sequence[Request],
        key: Key,
        done: Done = lambda rollout: None,
    ) -> list[Group]:
        """A group for each request, rewarded."""
        recipe = self.recipe
        cast = recipe.cast.plays(self.step) if recipe.cast else None
        found = self.engine.collect(strategy, requests, recipe.env, key, cast=cast, done=done)
        return found if recipe.reward is None else judged(recipe.reward, found)

    def with_greedy_twins(
        self, groups: Sequence[Group], requests: Mapping[str, Request], key: Key
    ) -> list[Group]:
        """Each group with the reward of one greedy attempt at its task by the same weights; it is not trained on.

        The attempt meets the world and the limits that the group met. Where it is lost there is nothing to compare
        with, and what the group wrote is lost to training with it.
        """
        if all(group.baseline is not None for group in groups):
            return list(groups)
        strategy: Any = self.recipe.strategy
        greedy = replace(strategy, sampling=replace(strategy.sampling, temperature=0.0))
        tasks = [group.rollouts[0].task for group in groups]
        met = [requests.get(task.id) or asked(self.recipe, task, self.turns, key) for task in tasks]
        single = [replace(each, answers=1) for each in met]
        twins = self.attempted(greedy, single, key / "greedy")
        return [
            compared(group, twin.rollouts[0]) for group, twin in zip(groups, twins, strict=True)
        ]


def compared(group: Group, twin: Rollout) -> Group:
    """The group with its greedy twin's reward as baseline; its rollouts end as the twin did where that was lost."""
    if twin.end.scorable:
        return replace(group, baseline=twin.reward)
    told = f"the greedy attempt that it is compared with was lost: {twin.error}"
    lost = [
        replace(r, reward=0.0, end=twin.end, error=told) if r.end.scorable else r
        for r in group.rollouts
    ]
    return Group(group.key, tuple(lost), baseline=0.0)


def asked(recipe: Recipe, drawn: Task | Request, turns: int, key: Key) -> Request:
    """What a curriculum drew, as a request with its world and its turn limit."""
    request = drawn if isinstance(drawn, Request) else Request(drawn, recipe.answers, turns)
    return replace(
        request, max_turns=request.max_turns or turns, seed=request.seed or world(key, request.task)
    )


def world(key: Key, task: Task) -> int:
    """The seed of a task's world in this step, the same for all who attempt it."""
    return (key / "world" / task.id).integer() % 2**31


def judged(reward: Reward, groups: Sequence[Group]) -> list[Group]:
    """The groups with their rewards filled; a rollout whose reward is no finite number is lost to the judge."""

    def checked(rollout: Rollout) -> Rollout:
        if not rollout.end.scorable or math.isfinite(rollout.reward):
            return rollout
        told = f"the recipe's reward gave {rollout.reward} for task {rollout.task.id!r}"
        return replace(rollout, reward=0.0, end=End.JUDGE_ERROR, error=told)

    scored: list[Group] = []

    # Nothing is returned: asyncio.run would make a string of the result.
    async def score() -> None:
        scored.extend(await reward(groups))

    asyncio.run(score())
    return [replace(g, rollouts=tuple(checked(r) for r in g.rollouts)) for g in scored]


def what_was_lost(groups: Sequence[Group], step: int) -> str:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    causes = Counter(str(rollout.end) for rollout in rollouts)
    counted = ", ".join(f"{count} x {cause}" for cause, count in causes.most_common())
    first = next((rollout.error for rollout in rollouts if rollout.error), "no message")
    return (
        f"step {step}: none of {len(rollouts)} rollouts can be learnt from ({counted}). The first says: {first}. "
        "What was learnt before is in the last checkpoint; mend the cause and go on with --resume"
    )
