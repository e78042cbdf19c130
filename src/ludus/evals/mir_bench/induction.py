"""Accuracy against the number of shots, with the lines that it has to be read against."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ludus.engines.local.build import open_model
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.sampler import LocalSampler
from ludus.evals.mir_bench.codes import Codes
from ludus.evals.mir_bench.pool import Source
from ludus.evals.mir_bench.problems import Problem, Shot
from ludus.evals.mir_bench.prompts import DIRECT, NEVER_SHOWN, prompt, with_copies, with_wrong
from ludus.evals.mir_bench.scores import lenient, strict
from ludus.evals.mir_bench.trivial import TRIVIAL, trivial_accuracy
from ludus.models.shots_base import ShotsBase
from ludus.rollouts.single_turn import SingleTurn
from ludus.train.recipe import Made
from ludus.train.study import Track
from ludus.types import Key, Message, Request, Sampling, Task

COPIED = 16  # shots, to which copies of one of them are added


@dataclass(frozen=True)
class Setting:
    """What a prompt shows: so many shots, a share of them wrong, or with copies of one of them."""

    shots: int
    wrong: float = 0.0
    copies: int = 0

    def __str__(self) -> str:
        wrong = f", {self.wrong:.0%} wrong" if self.wrong else ""
        copies = f" and {self.copies} copies" if self.copies else ""
        return f"{self.shots} shots{wrong}{copies}"

    def shown(self, problem: Problem, key: Key) -> Sequence[Shot]:
        shots: Sequence[Shot] = problem.shots[: self.shots]
        rng = (key / problem.function.name / str(self)).generator()
        if self.wrong:
            # outputs of calls that no prompt shows; half of the calls where they are few
            spare = problem.shots[min(NEVER_SHOWN, len(problem.shots) // 2) :]
            shots = with_wrong(shots, self.wrong, [output for _, output in spare], rng)
        return with_copies(shots, self.copies, rng)


@dataclass(frozen=True)
class Induction:
    """A model on the tests of some problems, at several numbers of shots.

    problems  where they come from: codes for a tiny model, `Generated()` for any other
    wrong     shares of wrong shots, at `wrong_shots`; `copies` of one of 16 shots
    ask       FREE, THINK or DIRECT of ludus.evals.mir_bench.prompts, with or without the warning AWARE
    """

    model: str | Made = field(default_factory=ShotsBase)
    problems: Source = field(default_factory=Codes)
    shots: tuple[int, ...] = (4, 8, 16, 32, 64)
    wrong: tuple[float, ...] = (0.25, 0.5)
    wrong_shots: int = 32
    copies: tuple[int, ...] = (48, 1008)
    ask: str = DIRECT
    max_tokens: int = 8

    def settings(self) -> list[Setting]:
        plain = [Setting(shots) for shots in self.shots]
        wrong = [Setting(self.wrong_shots, wrong=rate) for rate in self.wrong]
        return [*plain, *wrong, *(Setting(COPIED, copies=copies) for copies in self.copies)]

    def measure(self, seed: int, folder: Path, track: Track) -> dict[str, float]:
        """NAME/SETTING, such as "accuracy/4 shots" (strict) and "lenient/..", and the lines beside them: "search/..",
        each trivial rule, the best of them as "trivial/.."; then "funnel/STAGE"."""
        key = Key(seed, ("mir-bench",))
        pool = self.problems(seed)
        most = max(setting.shots for setting in self.settings())
        if short := [p for p in pool.problems if len(p.shots) < most]:
            raise ValueError(
                f"{short[0].function.name} has {len(short[0].shots)} shots, and a prompt wants {most}; give fewer in "
                f"`shots` and `wrong_shots` (`copies` go with {COPIED})"
            )
        model, renderer = open_model(self.model, seed=seed)
        engine = LocalEngine(LocalSampler(model, renderer))
        rows: dict[Setting, list[dict[str, float]]] = {setting: [] for setting in self.settings()}
        for problem in track(pool.problems, "functions"):
            for setting, found in rows.items():
                shots = setting.shown(problem, key)
                prompts = [prompt(shots, x, self.ask) for x, _ in problem.tests]
                said = answers(engine, prompts, self.max_tokens, key / problem.function.name)
                found.append(self.scored(problem, setting, said))
        engine.close()
        means = {
            s: {n: float(np.mean([r[n] for r in each])) for n in each[0]}
            for s, each in rows.items()
        }
        write_table(folder / "accuracy.csv", means)
        draw(folder / "accuracy.png", {s: m for s, m in means.items() if s == Setting(s.shots)})
        told = {f"{name}/{s}": mean for s, each in means.items() for name, mean in each.items()}
        return told | {f"funnel/{stage}": float(n) for stage, n in pool.funnel.items()}

    def scored(self, problem: Problem, setting: Setting, said: Sequence[str]) -> dict[str, float]:
        """Of one problem; the lines beside a setting with wrong shots or copies are those of its clean shots."""
        golds = [gold for _, gold in problem.tests]

        def share(right: Callable[[str, str], bool]) -> float:
            return float(
                np.mean([right(text, gold) for text, gold in zip(said, golds, strict=True)])
            )

        found = {"accuracy": share(strict), "lenient": share(lenient)}
        sure = self.problems.search(problem, setting.shots)
        found["search"] = float(np.mean([a == b for a, b in zip(sure, golds, strict=True)]))
        trivial = trivial_accuracy(problem, setting.shots)
        return {**found, **trivial, "trivial": max(trivial.values())}


def answers(engine: LocalEngine, prompts: Sequence[str], max_tokens: int, key: Key) -> list[str]:
    """Greedy; "" where the prompt has no room in the model's context, which counts as wrong.

    The first prompt is read before the others, which begin as it does and need not be read again.
    """
    strategy = SingleTurn(Sampling(temperature=0.0, max_tokens=max_tokens))
    requests = [
        Request(Task(str(n), (Message("user", text),)), answers=1, max_turns=1)
        for n, text in enumerate(prompts)
    ]
    made = [
        rollout
        for some in (requests[:1], requests[1:])
        for group in engine.collect(strategy, some, None, key)
        for rollout in group.rollouts
    ]
    return [rollout.turns[0].action if rollout.turns else "" for rollout in made]


Means = dict[Setting, dict[str, float]]


def write_table(file: Path, means: Means) -> None:
    with file.open("w", newline="") as out:
        names = ["setting", *next(iter(means.values()))]
        table = csv.DictWriter(out, names)
        table.writeheader()
        table.writerows({"setting": str(setting), **each} for setting, each in means.items())


LINES = ("accuracy", "search", *(rule.__name__ for rule in TRIVIAL))


def draw(file: Path, means: Means) -> None:
    """Accuracy against shots, with program search above it and the trivial rules below."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 3.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot(xlabel="shots", ylabel="share of tests", ylim=(-0.02, 1.02))
    axes.set_xscale("log", base=2)
    for name in LINES:
        style = "-" if name == "accuracy" else "--"
        axes.plot([s.shots for s in means], [m[name] for m in means.values()], style, label=name)
    axes.legend(fontsize="small")
    figure.savefig(file)
