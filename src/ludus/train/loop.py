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
from ludus.train.recipe import Policy, Recipe, as_credit
from ludus.types import (
    EXTERNAL,
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
        requests = [asked(recipe, each, turns, key) for each in drawn]
        drawing, sampled, groups = collect(
            recipe, engine, drawing, requests, turns, key, done, step
        )
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


def asked(recipe: Recipe, drawn: Task | Request, turns: int, key: Key) -> Request:
    """What a curriculum drew, as a request with its world and its turn limit."""
    request = drawn if isinstance(drawn, Request) else Request(drawn, recipe.answers, turns)
    return replace(
        request, max_turns=request.max_turns or turns, seed=request.seed or world(key, request.task)
    )


AGAIN = 2  # times that a step is collected anew because all of it was lost


def collect(
    recipe: Recipe,
    engine: Engine,
    drawing: Any,
    requests: Sequence[Request],
    turns: int,
    key: Key,
    done: Callable[[Rollout], None],
    step: int,
) -> tuple[Any, list[Group], list[Group]]:
    """What `gather` gives; once more where every rollout was lost, to a server that went away and is back, say."""
    lost: list[Group] = []
    for attempt in range(1 + AGAIN):
        name = key / "lost" / attempt if attempt else key
        drew, sampled, groups = gather(recipe, engine, drawing, requests, turns, name, done, step)
        if any(r.contexts and r.end.scorable for group in groups for r in group.rollouts):
            return drew, [*lost, *sampled], groups
        lost += sampled
    raise AllLost(what_was_lost(lost, step))


def gather(
    recipe: Recipe,
    engine: Engine,
    drawing: Any,
    requests: Sequence[Request],
    turns: int,
    key: Key,
    done: Callable[[Rollout], None],
    step: int,
) -> tuple[Any, list[Group], list[Group]]:
    """All groups of a step, in as many rounds as the curriculum asks for, and those to learn from."""
    groups: list[Group] = []
    cast = recipe.cast.plays(step) if recipe.cast else None
    more, select = (getattr(recipe.curriculum, name, None) for name in ("more", "select"))
    rounds = 0
    while requests:
        name = key / "again" / rounds if rounds else key
        found = engine.collect(recipe.strategy, requests, recipe.env, name, cast=cast, done=done)
        groups += found if recipe.reward is None else judged(recipe.reward, found)
        drawing, again = more(drawing, groups) if more else (drawing, ())
        requests = [asked(recipe, each, turns, key) for each in again]
        rounds += 1
    kept = list(select(drawing, groups)) if select else groups
    if any("baseline" in as_credit(p.credit).needs for p in recipe.policies.values()):
        kept = with_greedy_twins(recipe, engine, kept, turns, key, cast)
    return drawing, groups, kept


def costs(groups: Sequence[Group]) -> dict[str, float]:
    """What was sampled, in the units of a budget."""
    rollouts = own(groups)
    turns = [turn for rollout in rollouts for turn in rollout.turns]
    tokens = sum(len(turn.node.tokens) for turn in turns)
    return {"rollouts": float(len(rollouts)), "turns": float(len(turns)), "tokens": float(tokens)}


def own(groups: Sequence[Group]) -> list[Rollout]:
    """The rollouts that were sampled here; examples by somebody else are not counted."""
    return [r for group in groups for r in group.rollouts if r.agent != EXTERNAL]


def world(key: Key, task: Task) -> int:
    """The seed of a task's world in this step, the same for all who attempt it."""
    return (key / "world" / task.id).integer() % 2**31


def with_greedy_twins(
    recipe: Recipe,
    engine: Engine,
    groups: Sequence[Group],
    turns: int,
    key: Key,
    cast: Mapping[str, str] | None,
) -> list[Group]:
    """Each group with the reward of one greedy attempt at its task by the same weights; it is not trained on."""
    if all(group.baseline is not None for group in groups):
        return list(groups)
    strategy: Any = recipe.strategy
    greedy = replace(strategy, sampling=replace(strategy.sampling, temperature=0.0))
    tasks = [group.rollouts[0].task for group in groups]
    single = [asked(recipe, Request(task, 1, turns), turns, key) for task in tasks]
    twins = engine.collect(greedy, single, recipe.env, key / "greedy", cast=cast)
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


LEVELS = 10  # of difficulty, above which success is not told for each


def summary(groups: Sequence[Group]) -> dict[str, float]:
    """What one looks at: success and reward of scored rollouts, their length, and every end counted."""
    rollouts = own(groups)
    scored = [rollout for rollout in rollouts if rollout.end.scorable]
    levels = sorted({rollout.task.difficulty for rollout in scored})
    ends = Counter(rollout.end for rollout in rollouts)
    lengths = [sum(len(turn.node.tokens) for turn in r.turns) for r in scored]
    terms = sorted({name for r in scored for name in r.terms})
    roles = sorted({r.agent for r in scored})
    return {
        "success": mean(float(r.solved) for r in scored),
        **{
            f"{role}/{name}": mean(
                x for r, x in zip(scored, values, strict=True) if r.agent == role
            )
            for name, values in (
                ("success", [float(r.solved) for r in scored]),
                ("reward", [r.reward for r in scored]),
            )
            for role in (roles if len(roles) > 1 else ())
        },
        **{f"terms/{n}": mean(r.terms[n] for r in scored if n in r.terms) for n in terms},
        **{
            f"success/{level:g}": mean(
                float(r.solved) for r in scored if r.task.difficulty == level
            )
            for level in (levels if 1 < len(levels) <= LEVELS else ())
        },
        "reward": mean(r.reward for r in scored),
        "turns": mean(float(len(r.turns)) for r in scored),
        "turns/longest": float(max((len(r.turns) for r in scored), default=0)),
        "tokens/answer": mean(float(n) for n in lengths),
        "groups/mixed": mean(float(len({r.reward for r in g.rollouts}) > 1) for g in groups),
        "lost": float(len(rollouts) - len(scored)),
        **{f"end/{end}": float(ends[end]) for end in End},
    }
