"""One run from beginning to end: evaluate, train, checkpoint, evaluate, report. Killed at any point, it resumes."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Protocol

from ludus.data import store
from ludus.evals import metrics
from ludus.evals.metrics import Interval
from ludus.train import report
from ludus.train.collect import world
from ludus.train.folder import RunFolder
from ludus.train.loop import State, start, train
from ludus.train.progress import Progress, Silent
from ludus.train.recipe import Evaluation, Recipe, RecipeError, check, describe
from ludus.train.trackers import Tracker
from ludus.types import Engine, Env, Group, Key, Learner, Request, Rollout, Strategy, Task

MAY_CHANGE = ("steps",)  # a resumed run may go on for longer


class Machinery(Protocol):
    """What runs a recipe: engines.local.build makes one for this machine."""

    @property
    def engine(self) -> Engine: ...
    @property
    def learners(self) -> Mapping[str, Learner]: ...
    def save(self, folder: Path) -> None: ...


@dataclass(frozen=True)
class Result:
    """Held-out measures before and after, and where everything lies."""

    folder: Path
    before: dict[str, Interval]
    after: dict[str, Interval]


def run(
    recipe: Recipe,
    build: Callable[[], Machinery],
    out: Path,
    *,
    name: str = "",
    seed: int = 0,
    resume: bool = False,
    checkpoint_every: int = 10,
    trackers: Callable[[Path, int], Sequence[Tracker]] = lambda folder, after: (),
    progress: Callable[[int, int], Progress] = lambda total, done: Silent(),
) -> Result:
    """Run `recipe` into the folder `out`.

    Args:
        build:     makes engine and learner, once the folder is known to be usable.
        trackers:  (folder, step resumed from) -> where curves are drawn besides metrics.jsonl.
        progress:  (steps in all, steps done) -> what is shown meanwhile.
    """
    check(recipe)
    if checkpoint_every < 1:
        raise RecipeError(f"--checkpoint-every {checkpoint_every}; give at least 1")
    folder = RunFolder.create(
        out, describe(recipe), seed, name=name, resume=resume, may_change=MAY_CHANGE
    )
    found = folder.restore()
    machinery = build()
    engine, learners = machinery.engine, machinery.learners
    tasks = recipe.env.tasks("train")
    test = held_out(recipe.env, recipe.evaluation.tasks)
    clock = _Clock(0.0)
    before: dict[str, Interval] | None = None
    if found is None:
        state = start(recipe, tasks)
    else:
        saved = found.load("loop")
        state = State(**saved["state"])
        before = {k: Interval(**v) for k, v in saved["before"].items()}
        clock = _Clock(saved["seconds"])
        for name, saved_learner in found.load("learner").items():
            learners[name].load(saved_learner)
        engine.publish(state.step)
    drawn = trackers(out, state.step)

    with contextlib.closing(engine), progress(recipe.steps, state.step) as bar:

        def measure(step: int, phase: store.Phase) -> dict[str, Interval]:
            began = time.perf_counter()
            groups = evaluate(
                engine,
                recipe.evaluation.strategy or recipe.strategy,
                recipe.env,
                test,
                recipe.evaluation,
                Key(seed) / "eval",
                cast=recipe.cast.plays(max(1, step)) if recipe.cast else None,
            )
            if phase != "train":
                store.write(out, groups, step=step, phase=phase)
            bar.spent("evaluation", time.perf_counter() - began)
            return metrics.table([r for group in groups for r in group.rollouts])

        def save(held: Interval | None = None) -> None:
            """With the held-out success of these weights, where it is known: the best checkpoint stays."""
            began = time.perf_counter()
            loop = {
                "state": asdict(state),
                "seconds": clock(),
                "before": {k: asdict(v) for k, v in (before or {}).items()},
            }
            learnt = {name: learner.state() for name, learner in learners.items()}
            parts = {"loop": loop, "learner": learnt}
            folder.save(state.step, parts, score=None if held is None else held.mean)
            bar.spent("checkpoint", time.perf_counter() - began)

        if before is None:
            before = measure(0, "before")
            bar.note(f"before: success {before['success']} on {len(test)} held-out tasks")
            save(before["success"])
        steps = train(recipe, engine, learners, tasks, state, seed=seed, done=bar.attempt)
        for reached, told in steps:
            state = reached
            held, every = None, recipe.evaluation.every
            if every and told.step % every == 0 and told.step < recipe.steps:
                held = measure(told.step, "train")["success"]
                told = told.with_metrics(
                    {
                        "held-out/success": held.mean,
                        "held-out/success/low": held.low,
                        "held-out/success/high": held.high,
                    }
                )
            store.write(out, told.groups, step=told.step)
            folder.log(told)
            for tracker in drawn:
                tracker.log(told.step, {**told.metrics, **told.timings})
            bar.step(told, **_left(recipe, state, checkpoint_every))
            if told.step < recipe.steps and (held or told.step % checkpoint_every == 0):
                save(held)
        after = measure(state.step, "after")
        save(after["success"])
        bar.note(f"after:  success {after['success']} on {len(test)} held-out tasks")
    for tracker in drawn:
        tracker.close()
    machinery.save(out / "model")
    folder.summarise(
        before=before,
        after=after,
        steps=state.step,
        tokens=int(state.spent["tokens"]),
        seconds=clock(),
    )
    store.merge(out)
    report.write(out)
    return Result(out, before, after)


def held_out(env: Env, count: int) -> Sequence[Task]:
    """`count` of the test tasks, the same for every run: drawn by chance, for some worlds repeat in periods."""
    tasks = env.tasks("test")
    if not tasks:
        raise ValueError(f"{env.name} has no held-out tasks; env.tasks('test') returned none")
    if count >= len(tasks):
        return tasks
    drawn = Key(0, ("held out",)).generator().permutation(len(tasks))[:count]
    return [tasks[i] for i in sorted(drawn)]


def evaluate(
    engine: Engine,
    strategy: Strategy,
    env: Env,
    tasks: Sequence[Task],
    evaluation: Evaluation,
    key: Key,
    *,
    cast: Mapping[str, str] | None = None,
    done: Callable[[Rollout], None] = lambda rollout: None,
) -> list[Group]:
    """Attempts at held-out tasks; the same key gives the same worlds and the same random numbers to every model."""
    requests = [
        Request(task, evaluation.answers, evaluation.max_turns, seed=world(key, task))
        for task in tasks
    ]
    groups = engine.collect(strategy, requests, env, key, cast=cast, done=done)
    if not evaluation.role:
        return groups
    return [
        replace(g, rollouts=tuple(r for r in g.rollouts if r.agent == evaluation.role))
        for g in groups
    ]


def _left(recipe: Recipe, state: State, checkpoint_every: int) -> dict[str, int]:
    """Pieces of work to come, by kind; where a budget ends the run, at what its steps have cost so far."""
    step, coming = state.step, recipe.steps - state.step
    if recipe.budget:
        spent = state.spent[recipe.budget.of]
        wanted = max(0.0, recipe.budget.amount - spent)
        coming = min(coming, math.ceil(wanted * step / spent)) if spent else coming
    every = recipe.evaluation.every
    between = max(0, (step + coming - 1) // every - step // every) if every else 0
    return {
        "step": coming,
        "evaluation": between + 1,
        "checkpoint": -(-coming // checkpoint_every),
    }


class _Clock:
    """Seconds of the whole run, its earlier parts included."""

    def __init__(self, before: float) -> None:
        self.began = time.perf_counter() - before

    def __call__(self) -> float:
        return time.perf_counter() - self.began
