"""The multi-turn job, against TRL's GRPOTrainer with a rollout_func that calls transformers' generate.

    ludus bench multiturn
    python -m ludus.benches.multiturn --tasks 8 --turns 8

TextCraft with generated books; GRPO; the same model, environment, group size, tokens and optimiser step on both sides.
`ludus.benches.job` says how the work is made equal, `trl_side` what TRL is asked to do.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from ludus.benches.duel import report
from ludus.benches.job import Job

QUICK = Job(tasks=2, answers=2, turns=2, new=4, rows=2, steps=1)


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    tasks: int = 4,
    answers: int = 8,
    turns: int = 16,
    new: int = 32,
    rows: int = 16,
    steps: int = 3,
    threads: int = 1,
) -> None:
    """See `ludus.benches.job.Job` for the sizes. `quick` takes the smallest that show that it works."""
    job = Job(tasks, answers, turns, new, rows, steps, threads=threads)
    report("multiturn", "multi-turn GRPO against TRL", QUICK if quick else job, 3.0, json)


if __name__ == "__main__":
    tyro.cli(main)
