"""`ludus replicate ID`: run a recipe's claims, and write numbers, seeds, versions and verdicts, whatever they are."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ludus import recipes
from ludus.engines.local.build import build
from ludus.train.claims import Outcome, as_json, replicate
from ludus.train.disk import write_atomic
from ludus.train.folder import RunFolder, versions
from ludus.train.progress import progress
from ludus.train.recipe import Recipe
from ludus.train.run import run
from ludus.train.study import Study, run_study, shown
from ludus.types import Explained


class ReplicateError(Explained, ValueError):
    """Claims that cannot be judged as asked, and what to type instead."""


def replicate_recipe(
    name: str, seeds: Sequence[int], out: Path, docs: Path, say: Callable[[str], None]
) -> dict[str, Any]:
    """Run (or take up, where an earlier call was stopped) every arm and seed; write docs/NAME.json and NAME.md."""
    module = recipes.load(name)
    stem = Path(name).stem.replace("_", "-")
    if not getattr(module, "claims", ()):
        raise recipes.UnknownRecipe(f"{name} makes no claims; give its file `arms` and `claims`")
    if len(seeds) < 2:
        raise ReplicateError(f"--seeds {len(seeds)} gives no interval; give 2 or more")

    def one(arm: str, recipe: Recipe | Study, seed: int) -> Outcome:
        folder = out / stem / f"{arm.replace(' ', '-')}-{seed}"
        if not (folder / "summary.json").exists():
            say(f"{stem}: {arm}, seed {seed}")
            _run(recipe, folder, f"{name}:{arm}", seed)
        return outcome(folder)

    outcomes, judged = replicate(module.arms, module.claims, list(seeds), one)
    told = {
        "id": stem,
        "command": f"ludus replicate {name} --seeds {len(seeds)}",
        "versions": versions(),
        **as_json(outcomes, judged, seeds),
    }
    docs.mkdir(parents=True, exist_ok=True)
    write_atomic(docs / f"{stem}.json", (json.dumps(told, indent=1) + "\n").encode())
    write_atomic(docs / f"{stem}.md", page(told, module.__doc__ or "").encode())
    for judgement in judged:
        say(f"{judgement.verdict:>14}: {judgement.claim.text} (difference {judgement.difference})")
    return told


def _run(recipe: Recipe | Study, folder: Path, name: str, seed: int) -> None:
    """From the beginning, or on from where it was stopped."""
    if not isinstance(recipe, Recipe):
        run_study(recipe, folder, name=name, seed=seed, resume=folder.exists(), track=shown)
        return
    run(
        recipe,
        lambda: build(recipe, seed=seed),
        folder,
        name=name,
        seed=seed,
        resume=folder.exists(),
        progress=lambda total, done: progress(total, done=done),
    )


def outcome(folder: Path) -> dict[str, float]:
    """What a finished run gives a claim.

    Of training: held-out success, cost, "last/NAME" of the last step's metrics. Of a study: what it measured.
    """
    read = RunFolder(folder)
    summary = read.summary
    assert summary is not None
    if "measures" in summary:
        return {**summary["measures"], "seconds": summary["seconds"]}
    last = read.lines("metrics.jsonl")[-1]
    return {
        "before": summary["before"]["success"]["mean"],
        "after": summary["after"]["success"]["mean"],
        "steps": float(summary["steps"]),
        "seconds": summary["seconds"],
        **{name.removeprefix("spent/"): last[name] for name in last if name.startswith("spent/")},
        **{f"last/{name}": last[name] for name in last if not name.startswith("spent/")},
    }


def page(told: dict[str, Any], doc: str) -> str:
    """The reader's page: what was claimed, what came out, run by run."""
    seeds = ", ".join(map(str, told["seeds"]))
    lines = [f"# {told['id']}", "", doc.strip(), "", "## Claims", ""]
    lines += [
        "| claim | wanted | difference, 95 % interval over seeds | verdict |",
        "|---|---|---|---|",
    ]
    for claim in told["claims"]:
        d = claim["difference"]
        lines.append(
            f"| {claim['text']}: {_sides(claim)} | > {claim['margin']:+g} "
            f"| {d['mean']:+.3f} ({d['low']:+.3f} to {d['high']:+.3f}) | **{claim['verdict']}** |"
        )
    lines += ["", "## Runs", "", f"Written by `{told['command']}` (seeds {seeds}).", ""]
    shown = _columns(told)
    lines += [f"| arm | seed | {' | '.join(shown)} |", "|---" * (2 + len(shown)) + "|"]
    for arm, found in told["arms"].items():
        for seed, r in zip(told["seeds"], found["runs"], strict=True):
            cells = " | ".join(_cell(r.get(name)) for name in shown)
            lines.append(f"| {arm} | {seed} | {cells} |")
    used = ", ".join(f"{name} {number}" for name, number in told["versions"].items())
    return "\n".join([*lines, "", f"Versions: {used}.", ""])


def _sides(claim: dict[str, Any]) -> str:
    """What a claim compares: two arms, or two numbers of an arm."""
    better, worse, measure = claim["better"], claim["worse"], claim["measure"]
    of = "" if measure == "after" else f"{measure} of "
    if claim.get("against"):
        return f"{of}{better} against {claim['against']}" + (f" of {worse}" if worse else "")
    return f"{of}{better} against {worse or 'before training'}"


FEW = 12  # columns; where a study has more numbers, the page leaves the rest to its json
TRAINING = ("before", "after", "steps", "turns", "tokens", "seconds")


def _columns(told: dict[str, Any]) -> list[str]:
    """What the table of runs shows: of training the usual, and what a claim measures; of a study all, if few."""
    runs = [run for arm in told["arms"].values() for run in arm["runs"]]
    asked = {claim[key] for claim in told["claims"] for key in ("measure", "against")} - {""}
    if all("after" in run and "steps" in run for run in runs):
        return [*TRAINING, *sorted(asked - set(TRAINING))]
    found = sorted({name for run in runs for name in run})
    kept = asked | {"before", "after", "seconds"}
    return found if len(found) <= FEW else [name for name in found if name in kept]


def _cell(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:,.0f}" if abs(value) >= 20 else f"{value:.3f}".removesuffix(".000")
