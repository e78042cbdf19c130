"""The loop: draw, collect, score, assign credit, learn, publish, report. It knows no algorithm and no machine."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ludus.data.batch import make_batch
from ludus.train.collect import Collector
from ludus.train.recipe import Policy, Recipe, as_credit
from ludus.train.summary import costs, summary
from ludus.types import Engine, Group, Key, Learner, Report, Rollout, Task


@dataclass(frozen=True)
class State:
    """What the loop itself remembers between steps (the learner keeps its own); plain JSON."""

    step: int
    curriculum: Any
    credit: Any
    spent: Mapping[str, float]  # rollouts, turns and tokens sampled so far


def start(recipe: Recipe, tasks: Sequence[Task]) -> State:
    remembered = {name: as_credit(p.credit).init() for name, p in recipe.policies.items()}
    return State(0, recipe.curriculum.init(tasks), remembered, {})


def train(
    recipe: Recipe,
    engine: Engine,
    learners: Mapping[str, Learner],
    tasks: Sequence[Task],
    state: State,
    *,
    seed: int,
    done: Callable[[Rollout], None] = lambda rollout: None,
) -> Iterator[tuple[State, Report]]:
    """Steps `state.step + 1` to `recipe.steps`; after each, what to save and what to show."""
    for step in range(state.step + 1, recipe.steps + 1):
        if recipe.budget and state.spent.get(recipe.budget.of, 0) >= recipe.budget.amount:
            return
        key, clock = Key(seed) / "step" / step, time.perf_counter()

        turns = recipe.horizon(step)
        drawing, drawn = recipe.curriculum.draw(state.curriculum, tasks, recipe.tasks, key / "draw")
        collector = Collector(recipe, engine, step, turns, done)
        drawing, sampled, groups = collector.collect(drawing, drawn, key)
        collected = time.perf_counter()

        remembered, learnt = dict(state.credit), {}
        for name, own in lessons(recipe, groups, step).items():
            learner = learners[name]
            if recipe.cast and recipe.cast.restarts(step):
                learner.restart()
            remembered[name], told = learn(recipe.policies[name], learner, state.credit[name], own)
            learnt |= told if len(learners) == 1 else {f"{name}/{n}": x for n, x in told.items()}
        engine.publish(step)
        learned = time.perf_counter()

        cost = costs(sampled)
        spent = {name: state.spent.get(name, 0) + n for name, n in cost.items()}
        state = State(step, recipe.curriculum.update(drawing, sampled), remembered, spent)
        metrics = summary(sampled) | {f"spent/{name}": n for name, n in spent.items()}
        timings = {
            "collect": collected - clock,
            "learn": learned - collected,
            "tokens_per_second": cost["tokens"] / (learned - clock),
        }
        yield state, Report(step, {**metrics, "limit/turns": turns, **learnt}, timings, sampled)


def learn(
    policy: Policy, learner: Learner, remembered: Any, groups: Sequence[Group]
) -> tuple[Any, dict[str, float]]:
    """Credit and one update: what the credit remembers, and what both report."""
    credit = as_credit(policy.credit)
    batch = learner.annotate(make_batch(groups), credit.needs)
    remembered, credited = credit.assign(remembered, batch)
    batch = replace(batch, advantage=credited.advantage, returns=credited.returns)
    if policy.select is not None:
        batch = replace(batch, mask=batch.mask & policy.select(batch))
    return remembered, {**credited.metrics, **learner.update(batch)}


def lessons(recipe: Recipe, groups: Sequence[Group], step: int) -> dict[str, list[Group]]:
    """Whoever learns in this step, and the groups that it learns from: of one role and one cohort each."""
    if recipe.cast is None:
        return {"policy": list(groups)}
    found: dict[str, list[Group]] = {name: [] for name in recipe.cast.learns(step)}
    plays = recipe.cast.plays(step)
    for group in groups:
        parts: dict[tuple[str, str], list[Rollout]] = {}
        for rollout in group.rollouts:
            parts.setdefault((rollout.agent, rollout.cohort), []).append(rollout)
        for (role, cohort), rollouts in parts.items():
            if (name := plays.get(role, "")) in found:
                key = "/".join([group.key, role, cohort])
                found[name].append(replace(group, key=key, rollouts=tuple(rollouts)))
    return {name: own for name, own in found.items() if own}
