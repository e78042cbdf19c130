"""Speed and memory, measured: `ludus bench NAME`, or `python -m ludus.benches.NAME` for more options.

    multiturn        the multi-turn job against TRL's GRPOTrainer with a rollout_func
    singleturn       a single-turn job against the plain GRPOTrainer
    turns            what a turn costs in long episodes: 4 to 64 of them
    group            what an answer costs in groups of 1 to 16 that share a long prompt
    tree             the gradient of rows that share prefixes, against each row computed apart
    linear_logprob   the head: chunked log-probabilities against torch's dense ones
    service          worlds behind `ludus env serve` against in-process; memory a session; a soak
    faults           a run whose world fails, hangs and dies, against one in good weather

A figure against a peer is a ratio on the same job, model and tokens, in one run, one side's step after the other's.
Nothing in the tests looks at a clock.
"""

from __future__ import annotations

import importlib
from pathlib import Path

from rich import print

from ludus.types import Explained

NAMES = ("multiturn", "singleturn", "turns", "group", "tree", "linear_logprob", "service", "faults")


class UnknownBench(Explained, ValueError):
    """A bench was asked for that does not exist."""


def main(name: str = "", *, quick: bool = False, json: Path | None = None) -> None:
    """Run the bench `name` at its default sizes (`quick`: at sizes that only show that it works)."""
    if not name:
        print(__doc__)
        return
    if name not in NAMES:
        raise UnknownBench(
            f"there is no bench {name!r}; type ludus bench and one of: {', '.join(NAMES)}"
        )
    importlib.import_module(f"ludus.benches.{name}").main(quick=quick, json=json)
