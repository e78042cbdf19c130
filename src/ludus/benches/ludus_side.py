"""Our side of a comparison: the training loop of `ludus run`, without its files and its screen."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from ludus.advantages.credit import GRPO
from ludus.benches.job import Job, longest, scripted, sums, unstopped, variety
from ludus.benches.side import Channel
from ludus.curricula.horizon import fixed
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.losses.clipped import clipped_ratio
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.single_turn import SingleTurn
from ludus.train.loop import start, train
from ludus.train.recipe import Recipe
from ludus.types import Env, Group, Optim, Rollout, Sampling, Task


@dataclass(frozen=True)
class Questions:
    """An environment of tasks alone, for strategies that ask nothing of it."""

    of: Sequence[Task]
    name: str = "questions"

    def tasks(self, split: str = "train") -> Sequence[Task]:
        return self.of


async def by_variety(groups: Sequence[Group]) -> Sequence[Group]:
    def rewarded(rollout: Rollout) -> Rollout:
        return replace(rollout, reward=variety(rollout.turns[0].action))

    return [replace(g, rollouts=tuple(rewarded(r) for r in g.rollouts)) for g in groups]


def recipe(job: Job, rows: int) -> Recipe:
    """The job as a recipe; `rows` are the tokens of the contexts of one pass."""
    sampling = Sampling(temperature=1.0, max_tokens=job.new)
    env: Env = scripted(job.tasks) if job.turns else Questions(sums(job.tasks, job.examples))  # type: ignore[assignment]
    return Recipe(
        env=env,
        strategy=AgentLoop(sampling) if job.turns else SingleTurn(sampling),
        reward=None if job.turns else by_variety,
        credit=GRPO(),
        loss=partial(clipped_ratio, low=0.2, high=0.2),
        over="tokens",
        horizon=fixed(max(1, job.turns)),
        tasks=job.tasks,
        answers=job.answers,
        steps=1 + job.steps,
        optim=Optim(lr=job.lr, pass_tokens=rows),
    )


class Marked:
    """An engine that tells when it has collected."""

    def __init__(self, engine: LocalEngine, channel: Channel) -> None:
        self.engine, self.channel = engine, channel
        self.publish, self.close = engine.publish, engine.close

    def collect(self, *asked: Any, **settings: Any) -> list[Group]:
        groups = self.engine.collect(*asked, **settings)
        self.channel.sampled()
        return groups


def run(job: Job, channel: Channel) -> None:
    module, tokenizer = job.model()
    model, renderer = CausalModel(module), unstopped(tokenizer)
    made = recipe(job, job.rows * asyncio.run(longest(job, renderer)))
    sampler = LocalSampler(model, renderer)
    engine, learner = LocalEngine(sampler), LocalLearner(model, made.objective, made.optim)
    tasks = made.env.tasks("train")
    steps = train(
        made, Marked(engine, channel), {"policy": learner}, tasks, start(made, tasks), seed=job.seed
    )
    channel.ready(module.num_parameters())
    for _ in range(made.steps):
        channel.begin()
        _, report = next(steps)
        rollouts = [rollout for group in report.groups for rollout in group.rollouts]
        leaves = [leaf for rollout in rollouts for leaf in rollout.contexts]
        channel.end(
            rollouts=len(rollouts),
            sampled=sum(len(turn.node.tokens) for r in rollouts for turn in r.turns),
            read=sum(leaf.length for leaf in leaves),
        )
