"""What the numbers of a run suggest to try next: each with the number that suggests it, and what to type."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean, variance
from typing import Any

from ludus.evals.metrics import Interval
from ludus.train.charts import figure
from ludus.train.report_chats import readable
from ludus.train.report_curves import points
from ludus.types import End, Rollout


@dataclass(frozen=True)
class Advice:
    text: str
    command: str = ""


def advice(
    run: str,
    about: Mapping[str, Any],
    summary: Mapping[str, Any],
    metrics: Sequence[Mapping[str, Any]],
    after: Sequence[Rollout],
    gain: Interval | None,
) -> list[Advice]:
    """What the numbers of this run suggest: each with the number that suggests it, and what to type."""
    recipe = about["recipe"]
    recipe_id, _, variant = readable(about["name"]).partition(":")
    name = shlex.quote(recipe_id or "RECIPE")
    name += f" --variant {shlex.quote(variant)}" if variant else ""
    seed = about["seed"]
    own = f"{name} --seed {seed}" if seed else name
    found: list[Advice] = []

    def ask(text: str, **settings: Any) -> None:
        changed = " ".join(f"--set {k.replace('__', '.')}={v}" for k, v in settings.items())
        found.append(Advice(text, f"ludus run {name} {changed} --out OTHER" if changed else ""))

    last = [row for row in metrics[-max(1, len(metrics) // 4) :]]

    def late(metric: str) -> float:
        seen = [row[metric] for row in last if row.get(metric) is not None]
        return fmean(seen) if seen else math.nan

    if not summary:
        found.append(
            Advice(
                "The run is not over. To go on from its last checkpoint:",
                f"ludus run {own} --resume --out {run}",
            )
        )
    if gain is not None and gain.high < 0:
        if lr := (recipe.get("optim") or {}).get("lr"):
            ask("It got worse; the steps may be too large.", optim__lr=f"{lr / 3:.1g}")
    elif after and not any(rollout.solved for rollout in after):
        found.append(
            Advice(
                "No held-out task was solved after training. A policy that never succeeds has nothing to learn from: "
                "begin with a model that sometimes does, or with easier tasks.",
                f"ludus run {name} --model DIR --out OTHER",
            )
        )
    elif gain is not None and gain.low <= 0 < gain.high - gain.low:
        ask(
            f"With {gain.n} held-out tasks the interval is {100 * (gain.high - gain.low):.0f} points wide and holds "
            "zero. Four times as many tasks halve it.",
            evaluation__tasks=4 * gain.n,
        )
    if (rise := rising(points(metrics, "success"))) and summary:
        steps = summary["steps"]
        found.append(
            Advice(
                f"Training success still rose in the last quarter, by {100 * rise:.1f} points over the one before. "
                "Longer training may give more:",
                f"ludus run {own} --resume --steps {2 * steps} --out {run}",
            )
        )
    if late("groups/mixed") < 0.3:
        easy = late("success") > 0.5
        ask(
            f"In the last quarter only {late('groups/mixed'):.0%} of the groups had better and worse answers; the "
            f"others teach nothing. The tasks are too {'easy' if easy else 'hard'} by now: draw others, or attempt "
            "each more often.",
            answers=2 * recipe.get("answers", 8),
        )
    shares = Counter(rollout.end for rollout in after)
    for end, cure in ((End.OUT_OF_TURNS, "turns"), (End.OUT_OF_TOKENS, "tokens")):
        share = shares[end] / max(len(after), 1)
        if share > 0.15:
            text = f"{share:.0%} of the attempts after training ended {end}. See whether they wander or were near; "
            limit = (recipe.get("evaluation") or {}).get("max_turns")
            if cure == "turns" and limit:
                ask(f"{text}if near, allow more turns:", evaluation__max_turns=2 * limit)
            else:
                ask(f"{text}if near, allow more {cure}.")
    entropy = points(metrics, "entropy")
    if entropy and entropy[0][1] > 0 and late("entropy") < 0.2 * entropy[0][1]:
        ask(
            f"Entropy fell from {figure(entropy[0][1])} to {figure(late('entropy'))}: answers have become alike, and "
            "little is left to learn from. A bonus keeps them apart:",
            entropy=0.003,
        )
    if late("kl_old") > 0.05:
        ask(
            f"The policy moves by a KL of {figure(late('kl_old'))} from the one that sampled, so that its samples are "
            "stale. Smaller steps, or fewer updates a batch:",
            optim__updates=1,
        )
    broken = sum("grad_norm" in row and row["grad_norm"] is None for row in metrics)
    if broken:
        ask(
            f"In {broken} steps the gradient was not finite; these steps moved nothing. Look for their cause."
        )
    lost = sum(not rollout.end.scorable for rollout in after)
    if lost > 0.01 * len(after):
        found.append(
            Advice(
                f"{lost} of {len(after)} attempts after training were lost outside the policy and are not counted. "
                "Why:",
                f"duckdb -c \"SELECT ending, error, count(*) FROM '{run}/trajectories.parquet' "
                "WHERE error <> '' GROUP BY ALL\"",
            )
        )
    found.append(
        Advice(
            f"This is one seed ({seed}). How much of the result is luck shows in others:",
            f"ludus run {name} --seed {seed + 1} --out OTHER",
        )
    )
    if " on " in about["name"]:  # made by `ludus compare`: no recipe file has it
        return [Advice(a.text) if a.command.startswith("ludus run") else a for a in found]
    return found


def rising(line: Sequence[tuple[float, float]]) -> float | None:
    """How much the last quarter's mean exceeds the third's, where that is more than two standard errors."""
    quarter = len(line) // 4
    if quarter < 5:
        return None
    old, new = ([y for _, y in line[-n * quarter :][:quarter]] for n in (2, 1))
    rise = fmean(new) - fmean(old)
    return rise if rise > 2 * math.sqrt((variance(old) + variance(new)) / quarter) else None
