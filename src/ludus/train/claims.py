"""A paper's claim as an executable comparison: what against what, by which margin, at which equal budget.

The verdict comes from intervals over seeds, not from a look at the means, and is written whatever it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Literal, TypeVar

import numpy as np

from ludus.evals.metrics import Interval, t_interval

Verdict = Literal["holds", "does not hold", "inconclusive"]
Outcome = Mapping[str, float]  # of one run: see ludus.train.replicate.outcome
T = TypeVar("T")  # a Recipe, or a Study


@dataclass(frozen=True)
class Claim:
    """`measure` of `better` exceeds that of `worse` by more than `margin`, seed by seed.

    better, worse  names of arms of the recipe file's `arms`; worse None compares with `better` before training
    measure        of an outcome: "after", held-out success at the end of training; a metric of the last step, such as
                   "last/entropy"; or what a study measures
    against        measure of `worse`, where it is another
    """

    text: str
    better: str
    worse: str | None
    margin: float
    measure: str = "after"
    against: str = ""


@dataclass(frozen=True)
class Judged:
    claim: Claim
    difference: Interval
    verdict: Verdict


def judge(claim: Claim, outcomes: Mapping[str, Sequence[Outcome]]) -> Judged:
    """The paired differences over seeds, their interval, and what follows from it.

    holds if the interval of the difference lies above the margin, does not hold if below, else inconclusive.
    """
    better = np.array([outcome[claim.measure] for outcome in outcomes[claim.better]])
    against = claim.against or ("before" if claim.worse is None else claim.measure)
    other = np.array([outcome[against] for outcome in outcomes[claim.worse or claim.better]])
    if len(better) != len(other) or len(better) < 2:
        raise ValueError(
            f"{len(better)} runs of {claim.better!r} against {len(other)}: a claim wants the same seeds, two or more"
        )
    difference = t_interval(better - other)
    verdict: Verdict = "inconclusive"
    if difference.low > claim.margin:
        verdict = "holds"
    elif difference.high < claim.margin:
        verdict = "does not hold"
    return Judged(claim, difference, verdict)


def replicate(
    arms: Mapping[str, T],
    claims: Sequence[Claim],
    seeds: Sequence[int],
    run: Callable[[str, T, int], Outcome],
) -> tuple[dict[str, list[Outcome]], list[Judged]]:
    """Run every arm that a claim names with every seed, then judge every claim."""
    wanted = {name for claim in claims for name in (claim.better, claim.worse) if name}
    if missing := wanted - set(arms):
        raise ValueError(f"claims name arms {sorted(missing)} that the recipe file does not have")
    outcomes = {
        name: [run(name, recipe, seed) for seed in seeds]
        for name, recipe in arms.items()
        if name in wanted
    }
    return outcomes, [judge(claim, outcomes) for claim in claims]


def as_json(
    outcomes: Mapping[str, Sequence[Outcome]], judged: Sequence[Judged], seeds: Sequence[int]
) -> dict[str, object]:
    """What docs/replications/ID.json holds, besides versions and the command."""
    measured = dict.fromkeys(["after", *(j.claim.measure for j in judged)])
    return {
        "seeds": list(seeds),
        "arms": {
            name: {
                "runs": [dict(run) for run in runs],
                **{m: _over_seeds([run[m] for run in runs]) for m in measured if m in runs[0]},
            }
            for name, runs in outcomes.items()
        },
        "claims": [
            {**asdict(j.claim), "difference": asdict(j.difference), "verdict": j.verdict}
            for j in judged
        ],
    }


def _over_seeds(values: Sequence[float]) -> dict[str, float]:
    interval = t_interval(values)
    return {"mean": interval.mean, "low": interval.low, "high": interval.high, "n": interval.n}
