"""The loop: draw, collect, score, assign credit, learn, publish, report. It knows no algorithm and no machine."""

from __future__ import annotations

import asyncio
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.data.batch import make_batch
from ludus.evals.metrics import mean
from ludus.train.recipe import Recipe, as_credit
from ludus.types import (
    End,
    Engine,
    Explained,
    Group,
    Key,
    Learner,
    Report,
    Request,
    Reward,
    Rollout,
    Task,
)


@dataclass(frozen=True)
class State:
    """What the loop itself remembers between steps (the learner keeps its own); plain JSON."""

    step: int
    curriculum: Any
    credit: Any
    spent: Mapping[str, float]  # rollouts, turns and tokens sampled so far


class AllLost(Explained, RuntimeError):
    """Every rollout of a step was lost to something outside the policy."""


def start(recipe: Recipe, tasks: Sequence[Task]) -> State:
    return State(0, recipe.curriculum.init(tasks), as_credit(recipe.credit).init(), {})


def train(
    recipe: Recipe,
    engine: Engine,
    learner: Learner,
    tasks: Sequence[Task],
    state: State,
    *,
    seed: int,
    done: Callable[[Rollout], None] = lambda rollout: None,
) -> Iterator[tuple[State, Report]]:
    """Steps `state.step + 1` to `recipe.steps`; after each, what to save and what to show."""
    credit = as_credit(recipe.credit)
    for step in range(state.step + 1, recipe.steps + 1):
        if recipe.budget and state.spent.get(recipe.budget.of, 0) >= recipe.budget.amount:
            return
        key, clock = Key(seed) / "step" / step, time.perf_counter()

        drawing, drawn = recipe.curriculum.draw(state.curriculum, tasks, recipe.tasks, key / "draw")
        turns = recipe.horizon(step)
        requests = [Request(task, recipe.answers, turns, seed=world(key, task)) for task in drawn]
        groups = engine.collect(recipe.strategy, requests, recipe.env, key, done=done)
        if "baseline" in credit.needs:
            groups = with_greedy_twins(recipe, engine, requests, groups, key)
        if recipe.reward is not None:
            groups = judged(recipe.reward, groups)
        refuse_if_all_lost(groups, step)
        collected = time.perf_counter()

        batch = learner.annotate(make_batch(groups), credit.needs)
        remembered, credited = credit.assign(state.credit, batch)
        batch = replace(batch, advantage=credited.advantage, returns=credited.returns)
        learnt = learner.update(batch)
        engine.publish(step)
        learned = time.perf_counter()

        cost = sampled(groups)
        spent = {name: state.spent.get(name, 0) + n for name, n in cost.items()}
        state = State(step, recipe.curriculum.update(drawing, groups), remembered, spent)
        metrics = summary(groups) | {f"spent/{name}": n for name, n in spent.items()}
        timings = {
            "collect": collected - clock,
            "learn": learned - collected,
            "tokens_per_second": cost["tokens"] / (learned - clock),
        }
        yield state, Report(step, {**metrics, "limit/turns": turns, **learnt}, timings, groups)


def sampled(groups: Sequence[Group]) -> dict[str, float]:
    """What was sampled, in the units of a budget."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    tokens = sum(len(turn.node.tokens) for turn in turns)
    return {"rollouts": float(len(rollouts)), "turns": float(len(turns)), "tokens": float(tokens)}


def world(key: Key, task: Task) -> int:
    """The seed of a task's world in this step, the same for all who attempt it."""
    return (key / "world" / task.id).integer() % 2**31


def with_greedy_twins(
    recipe: Recipe, engine: Engine, requests: Sequence[Request], groups: Sequence[Group], key: Key
) -> list[Group]:
    """Each group with the reward of one greedy attempt at its task by the same weights; it is not trained on."""
    strategy: Any = recipe.strategy
    greedy = replace(strategy, sampling=replace(strategy.sampling, temperature=0.0))
    single = [replace(request, answers=1) for request in requests]
    twins = engine.collect(greedy, single, recipe.env, key / "greedy")
    if recipe.reward is not None:
        twins = judged(recipe.reward, twins)
    return [
        replace(group, baseline=twin.rollouts[0].reward)
        for group, twin in zip(groups, twins, strict=True)
    ]


def judged(reward: Reward, groups: Sequence[Group]) -> list[Group]:
    """The groups with their rewards filled; a rollout whose reward is no finite number is lost to the judge."""

    def checked(rollout: Rollout) -> Rollout:
        if not rollout.end.scorable or math.isfinite(rollout.reward):
            return rollout
        told = f"the recipe's reward gave {rollout.reward} for task {rollout.task.id!r}"
        return replace(rollout, reward=0.0, end=End.JUDGE_ERROR, error=told)

    async def score() -> Sequence[Group]:
        return await reward(groups)

    scored = asyncio.run(score())
    return [replace(g, rollouts=tuple(checked(r) for r in g.rollouts)) for g in scored]


def refuse_if_all_lost(groups: Sequence[Group], step: int) -> None:
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    if any(rollout.contexts and rollout.end.scorable for rollout in rollouts):
        return
    causes = Counter(str(rollout.end) for rollout in rollouts)
    counted = ", ".join(f"{count} x {cause}" for cause, count in causes.most_common())
    first = next((rollout.error for rollout in rollouts if rollout.error), "no message")
    raise AllLost(
        f"step {step}: none of {len(rollouts)} rollouts can be learnt from ({counted}). The first says: {first}. "
        "What was learnt before is in the last checkpoint; mend the cause and go on with --resume"
    )


def summary(groups: Sequence[Group]) -> dict[str, float]:
    """What one looks at: success and reward of scored rollouts, their length, and every end counted."""
    rollouts = [rollout for group in groups for rollout in group.rollouts]
    scored = [rollout for rollout in rollouts if rollout.end.scorable]
    ends = Counter(rollout.end for rollout in rollouts)
    lengths = [sum(len(turn.node.tokens) for turn in r.turns) for r in scored]
    return {
        "success": mean(float(r.solved) for r in scored),
        "reward": mean(r.reward for r in scored),
        "turns": mean(float(len(r.turns)) for r in scored),
        "turns/longest": float(max((len(r.turns) for r in scored), default=0)),
        "tokens/answer": mean(float(n) for n in lengths),
        "groups/mixed": mean(float(len({r.reward for r in g.rollouts}) > 1) for g in groups),
        "lost": float(len(rollouts) - len(scored)),
        **{f"end/{end}": float(ends[end]) for end in End},
    }
