"""A single-turn job, against TRL's plain GRPOTrainer and its own generation.

    ludus bench singleturn
    python -m ludus.benches.singleturn --examples 0 --threads 2

Questions of arithmetic after some worked examples, as a base model needs them; one answer each of a fixed number of
tokens; GRPO on both sides. Without examples (`--examples 0`) a prompt is so short that nothing is gained by sharing it.
"""

from __future__ import annotations

from pathlib import Path

import tyro

from ludus.benches.duel import report
from ludus.benches.job import Job

QUICK = Job(tasks=2, answers=2, turns=0, new=4, rows=2, steps=1)


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    tasks: int = 16,
    answers: int = 8,
    new: int = 64,
    rows: int = 64,
    steps: int = 5,
    examples: int = 16,
    threads: int = 1,
) -> None:
    """See `ludus.benches.job.Job` for the sizes. `quick` takes the smallest that show that it works."""
    job = Job(tasks, answers, 0, new, rows, steps, threads=threads, examples=examples)
    report("singleturn", "single-turn GRPO against TRL", QUICK if quick else job, 2.0, json)


if __name__ == "__main__":
    tyro.cli(main)
