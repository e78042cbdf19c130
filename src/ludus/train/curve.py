"""The learning curve of one or several runs as a picture: `python -m ludus.train.curve RUN [RUN ...] OUT.svg`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

import matplotlib

matplotlib.use("svg")
matplotlib.rcParams["svg.hashsalt"] = "ludus"  # the same run gives the same bytes
from matplotlib import pyplot as plt  # noqa: E402 (the backend is chosen before)

from ludus.train.folder import RunFolder  # noqa: E402


def draw(runs: Sequence[Path], out: Path) -> None:
    """Success over steps: in training (thin), and on held-out tasks with its 95 % interval."""
    figure, axes = plt.subplots(figsize=(7, 3.6), layout="constrained")
    for number, run in enumerate(runs):
        folder, colour = RunFolder(run), f"C{number}"
        rows, summary = folder.lines("metrics.jsonl"), folder.summary
        if not rows or summary is None:
            raise SystemExit(f"{run} is not over; go on with `ludus run ... --resume --out {run}`")
        steps = [row["step"] for row in rows]
        axes.plot(steps, [row["success"] for row in rows], color=colour, alpha=0.25, lw=1)
        held = [(0, summary["before"]["success"])]
        for row in rows:
            if "held-out/success" in row:
                names = {"mean": "", "low": "/low", "high": "/high"}
                held.append(
                    (row["step"], {k: row[f"held-out/success{v}"] for k, v in names.items()})
                )
        held.append((steps[-1], summary["after"]["success"]))
        x, mean = [s for s, _ in held], [h["mean"] for _, h in held]
        error = [[h["mean"] - h["low"] for _, h in held], [h["high"] - h["mean"] for _, h in held]]
        label = f"held-out tasks, seed {summary['seed']}"
        axes.errorbar(x, mean, error, color=colour, marker="o", ms=4, capsize=2, label=label)
    axes.set(xlabel="training step", ylabel="success", ylim=(0, 1))
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(out, metadata={"Date": None})


if __name__ == "__main__":
    if len(sys.argv) < 3 or not sys.argv[-1].endswith(".svg"):
        raise SystemExit("type: python -m ludus.train.curve RUN [RUN ...] OUT.svg")
    draw([Path(name) for name in sys.argv[1:-1]], Path(sys.argv[-1]))
