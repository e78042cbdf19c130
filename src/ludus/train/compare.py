"""`ludus compare`: how several systems learn, on one task, with one model, at equal cost, with several seeds.

What is compared is the `Policy` of each recipe: credit, loss, average, KL, entropy, terms, probes, selection,
reference, critic, optimiser. All else is the task's: model, world, strategy, reward, curriculum, horizon, tasks and
answers of a step, evaluation. A seed draws the same tasks for all and evaluates all on the same worlds, so differences
are paired by seed.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure

from ludus.engines.local.build import build
from ludus.evals.metrics import t_interval
from ludus.train.disk import write_atomic
from ludus.train.folder import RunFolder, versions
from ludus.train.override import override
from ludus.train.progress import progress
from ludus.train.recipe import Budget, Policy, Recipe, RecipeError, check, describe
from ludus.train.replicate import outcome
from ludus.train.run import held_out, run
from ludus.types import Explained, Optim

OWN = tuple(f.name for f in dataclasses.fields(Policy) if f.name != "model")
Measured = Literal["success", "held-out/success"]


class CompareError(Explained, ValueError):
    """What cannot be compared, and what to type instead."""


def budget_of(text: str) -> Budget:
    """ "tokens=2e6" as a Budget; samples, turns and tokens are counted, those of the policy alone."""
    units = {"samples": "rollouts", "turns": "turns", "tokens": "tokens"}
    unit, _, number = text.partition("=")
    try:
        amount = float(number)
    except ValueError:
        amount = math.nan
    if unit not in units or not (1 <= amount < math.inf):
        raise CompareError(
            f"--budget {text}: give samples=N, turns=N or tokens=N with a number of 1 or more, such as tokens=2e6"
        )
    return Budget(units[unit], amount)  # type: ignore[arg-type] (pyright does not follow the table)


def contestant(
    name: str, system: Recipe, task: Recipe, budget: Budget, changes: Sequence[str] = ()
) -> Recipe:
    """The task, learnt as `system` learns; `changes` are those of --set.

    Errors: RecipeError, naming the system, where its pieces cannot go together with the task's.
    """
    own = {field: getattr(system, field) for field in OWN}
    # a step samples one attempt of one token at least, so the budget ends the run before the steps do
    made = replace(task, **own, budget=budget, steps=math.ceil(budget.amount))
    for change in changes:
        made = override(made, change)
    try:
        if not isinstance(made.reference, bool) and system.model != task.model:
            raise RecipeError(
                "its reference is weights of another model than the task's; give --set reference=True"
            )
        check(made)
    except RecipeError as error:
        raise RecipeError(f"{name} cannot learn this task: {error}") from error
    return made


def refuse(systems: Mapping[str, Any], task_name: str, task: Any, seeds: Sequence[int]) -> None:
    """Raise CompareError unless there is something to compare."""
    for name, value in {task_name: task, **systems}.items():
        if not isinstance(value, Recipe):
            raise CompareError(
                f"{name} is a study and no training run, so nothing in it learns; `ludus run {name}` measures it"
            )
    if len(systems) < 2:
        raise CompareError(
            f"{', '.join(systems) or 'nothing'} alone is no comparison; name two systems or more, different ones"
        )
    if len(seeds) < 2:
        raise CompareError(f"--seeds {len(seeds)} gives no interval; give 2 or more")
    if not task.env.tasks("test"):
        raise CompareError(
            f"{task_name} has no held-out tasks (env.tasks('test') is empty), so nothing can be measured; "
            "give --task another recipe"
        )


def compare(
    systems: Mapping[str, Recipe],
    task_name: str,
    task: Recipe,
    *,
    budget: Budget,
    seeds: Sequence[int],
    changes: Sequence[str] = (),
    name: str,
    command: str,
    out: Path,
    docs: Path,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Run (or take up, where an earlier call was stopped) every system and seed; write docs/NAME.json, .md and .png.

    A run's folder is named by a digest of its recipe, so that it serves every comparison that it is a part of, and no
    other. Returns what NAME.json holds.
    """
    refuse(systems, task_name, task, seeds)
    made = {n: contestant(n, s, task, budget, changes) for n, s in systems.items()}
    found: dict[str, list[Path]] = {}
    for seed, (system, recipe) in itertools.product(seeds, made.items()):
        folder = out / slug(task_name) / f"{slug(system)}-{digest(recipe)}-{seed}"
        if not (folder / "summary.json").exists():
            say(f"{system} on {task_name}, seed {seed}")
            _run(recipe, folder, f"{system} on {task_name}", seed)
        found.setdefault(system, []).append(folder)

    runs = {system: [outcome(folder) for folder in folders] for system, folders in found.items()}
    evaluation = next(iter(made.values())).evaluation  # the same for all
    measured: Measured = "held-out/success" if evaluation.every else "success"
    grid = np.linspace(0, budget.amount, POINTS)
    told = {
        "name": name,
        "task": task_name,
        "command": command,
        "budget": asdict(budget),
        "seeds": list(seeds),
        "versions": versions(),
        "held_out": {
            "tasks": len(held_out(task.env, evaluation.tasks)),
            "answers": evaluation.answers,
        },
        "systems": {
            system: {
                "learns": {field: describe(getattr(recipe, field)) for field in OWN},
                "shown": differing(recipe),
                "runs": runs[system],
                "before": asdict(t_interval([r["before"] for r in runs[system]])),
                "after": asdict(t_interval([r["after"] for r in runs[system]])),
            }
            for system, recipe in made.items()
        },
        "pairs": [pair(a, b, runs) for a, b in itertools.combinations(made, 2)],
        "curve": {
            "of": measured,
            "spent": grid.tolist(),
            "systems": {
                system: band([curve(folder, budget, measured) for folder in folders], grid)
                for system, folders in found.items()
            },
        },
    }
    docs.mkdir(parents=True, exist_ok=True)
    write_atomic(docs / f"{name}.json", (json.dumps(told, indent=1) + "\n").encode())
    write_atomic(docs / f"{name}.md", page(told).encode())
    draw(told, docs / f"{name}.png")
    return told


def _run(recipe: Recipe, folder: Path, name: str, seed: int) -> None:
    """From the beginning, or on from where it was stopped."""
    run(
        recipe,
        lambda: build(recipe, seed=seed),
        folder,
        name=name,
        seed=seed,
        resume=folder.exists(),
        progress=lambda total, done: progress(total, done=done),
    )


def digest(recipe: Recipe) -> str:
    told = json.dumps(describe(recipe), sort_keys=True).encode()
    return hashlib.sha256(told).hexdigest()[:8]


def slug(name: str) -> str:
    """A name that a file can have: agentgym-rl:ppo is agentgym-rl-ppo, some/mine.py is mine."""
    return re.sub(r"[^\w-]+", "-", re.sub(r"\.py\b", "", name.rpartition("/")[2]))


# ------------------------------------------------------------------------------------------ figures


def pair(first: str, second: str, runs: Mapping[str, Sequence[Mapping[str, float]]]) -> dict:
    """The difference of held-out success at the end, seed by seed, and what its interval says."""
    each = [a["after"] - b["after"] for a, b in zip(runs[first], runs[second], strict=True)]
    found = t_interval(each)
    verdict = "not told apart"
    if found.low > 0 or found.high < 0:
        verdict = f"{first if found.low > 0 else second} is better"
    return {"first": first, "second": second, "difference": asdict(found), "verdict": verdict}


POINTS = 41  # of a curve
BINS = 20  # of the budget, over each of which the success of training is averaged


@dataclass(frozen=True)
class Curve:
    spent: np.ndarray
    success: np.ndarray


def curve(folder: Path, budget: Budget, measured: Measured) -> Curve:
    """Success of one run by what it had spent: at each evaluation, or in training, a mean over a part of the budget."""
    read = RunFolder(folder)
    rows, summary = read.lines("metrics.jsonl"), read.summary
    assert summary is not None
    spent = np.array([row[f"spent/{budget.of}"] for row in rows])
    if measured == "held-out/success":
        kept = [i for i, row in enumerate(rows[:-1]) if measured in row]
        return Curve(
            np.array([0.0, *spent[kept], spent[-1]]),
            np.array(
                [
                    summary["before"]["success"]["mean"],
                    *(rows[i][measured] for i in kept),
                    summary["after"]["success"]["mean"],
                ]
            ),
        )
    part = np.minimum(spent * BINS // budget.amount, BINS - 1)
    success = np.array([row["success"] for row in rows])
    full = np.unique(part)
    return Curve(
        np.array([spent[part == b].mean() for b in full]),
        np.array([success[part == b].mean() for b in full]),
    )


def band(curves: Sequence[Curve], grid: np.ndarray) -> dict[str, list[float]]:
    """Mean and 95 % interval over seeds at each point of the grid, linear between the points of a run."""
    values = np.array([np.interp(grid, each.spent, each.success) for each in curves])
    found = [t_interval(values[:, i]) for i in range(len(grid))]
    return {key: [getattr(f, key) for f in found] for key in ("mean", "low", "high")}


# ------------------------------------------------------------------------------------------ for the reader


def differing(recipe: Recipe) -> dict[str, str]:
    """What a system learns with, in a line each: credit, loss and optimiser, and else what is no default."""
    plain = {f.name: f.default for f in dataclasses.fields(Policy)}
    plain |= {"probes": {}, "optim": None}
    return {
        field: _line(getattr(recipe, field))
        for field in OWN
        if getattr(recipe, field) != plain[field]
    }


def _line(value: Any) -> str:
    if isinstance(value, Optim):
        settings = {f.name: getattr(value, f.name) for f in dataclasses.fields(Optim)}
        shown = [
            f"{n}={_plain(v)}" for n, v in settings.items() if n == "lr" or v != getattr(Optim(), n)
        ]
        return ", ".join(shown)
    return _plain(describe(value))


def _plain(told: Any) -> str:
    """What `describe` tells, on one line: GAE(gamma=1.0, lam=0.95)."""
    if isinstance(told, dict) and "is" in told:
        inside = ", ".join(
            f"{n}={_plain(v)}"
            for n, v in told.items()
            if n not in ("is", "needs") and v not in ({}, None)
        )
        return f"{told['is']}({inside})" if inside else told["is"]
    if isinstance(told, dict):
        return "{" + ", ".join(f"{n}: {_plain(v)}" for n, v in told.items()) + "}"
    if isinstance(told, list | tuple):
        return "[" + ", ".join(map(_plain, told)) + "]"
    return f"{told:g}" if isinstance(told, float) else str(told)


def page(told: Mapping[str, Any]) -> str:
    """What was compared, what came out, and what it does not say."""
    budget, seeds, held = told["budget"], told["seeds"], told["held_out"]
    unit = {"rollouts": "attempts"}.get(budget["of"], budget["of"])
    lines = [
        f"# {', '.join(told['systems'])} on {told['task']}",
        "",
        f"Equal cost: {budget['amount']:,.0f} {unit} sampled by each; seeds {', '.join(map(str, seeds))}. Model, "
        f"world, strategy, reward, curriculum and the shape of a step are those of {told['task']}; how it is learnt is "
        "each system's own. Written by",
        "",
        f"    {told['command']}",
        "",
        f"![success by what was spent]({told['name']}.png)",
        "",
        "## Held-out success",
        "",
        f"Of {held['tasks']} tasks that training does not draw, {held['answers']} attempts each.",
        "",
        f"| system | before | after, 95 % interval over {len(seeds)} seeds | steps | {unit} | seconds |",
        "|---|---|---|---|---|---|",
    ]
    for system, found in told["systems"].items():
        costs = [
            np.mean([r[key] for r in found["runs"]]) for key in ("steps", budget["of"], "seconds")
        ]
        cells = " | ".join(f"{cost:,.0f}" for cost in costs)
        lines.append(
            f"| {system} | {found['before']['mean']:.3f} | {_interval(found['after'])} | {cells} |"
        )
    lines += [
        "",
        "## Pairs",
        "",
        "Differences at the end, seed by seed, without a correction for the number of pairs.",
        "",
        "| pair | difference, 95 % interval | |",
        "|---|---|---|",
    ]
    lines += [
        f"| {p['first']} - {p['second']} | {_interval(p['difference'], sign='+')} | {p['verdict']} |"
        for p in told["pairs"]
    ]
    lines += ["", "## What each learnt with", ""]
    for system, found in told["systems"].items():
        lines.append(
            f"- **{system}**: " + "; ".join(f"{n} `{v}`" for n, v in found["shown"].items())
        )
    lines += [
        "",
        "A learning rate belongs to an estimator: one that suits this task less may be what lost. `--set optim.lr=...` "
        "changes it for all; a file of your own with variants changes it for one.",
        "",
        f"Versions: {', '.join(f'{n} {v}' for n, v in told['versions'].items())}.",
        "",
    ]
    return "\n".join(lines)


def _interval(found: Mapping[str, float], sign: str = "") -> str:
    return f"{found['mean']:{sign}.3f} ({found['low']:{sign}.3f} to {found['high']:{sign}.3f})"


def draw(told: Mapping[str, Any], out: Path) -> None:
    """The curves with their bands, and held-out success at the end with its interval beside them."""
    figure = Figure(figsize=(8, 4), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(4, 1))
    curves, budget = told["curve"], told["budget"]
    for number, (system, found) in enumerate(told["systems"].items()):
        colour, mean = f"C{number}", curves["systems"][system]
        left.plot(curves["spent"], mean["mean"], color=colour, label=system)
        left.fill_between(
            curves["spent"], mean["low"], mean["high"], color=colour, alpha=0.15, lw=0
        )
        end = found["after"]
        error = [[end["mean"] - end["low"]], [end["high"] - end["mean"]]]
        right.errorbar([number], [end["mean"]], error, color=colour, marker="o", ms=5, capsize=3)
    where = "on held-out tasks" if curves["of"] == "held-out/success" else "in training"
    unit = {"rollouts": "attempts"}.get(budget["of"], budget["of"])
    left.set(
        xlabel=f"{unit} sampled", ylabel="success", ylim=(0, 1), title=f"{where}, {told['task']}"
    )
    left.set_xlim(0, budget["amount"])
    right.set(xlim=(-0.7, len(told["systems"]) - 0.3), xticks=[], title="held out")
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.2)
    left.legend(frameon=False, loc="upper left")
    figure.suptitle(f"mean and 95 % interval over {len(told['seeds'])} seeds", fontsize=9)
    figure.savefig(out, dpi=150, metadata={"Software": None})
