"""Where curves go besides metrics.jsonl: TensorBoard by default; Weights & Biases, MLflow and Trackio when asked.

A resumed run goes on in the same place: TensorBoard hides what lies after the checkpoint, the others reopen the run
whose id is kept in the run folder. None of them is needed for resuming or for the report.
"""

from __future__ import annotations

import importlib
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from ludus.types import Explained

Name = Literal["tensorboard", "wandb", "mlflow", "trackio"]
PROJECT = "ludus"  # what all runs lie under, where a tool has projects


class Tracker(Protocol):
    """A place that draws curves."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...
    def close(self) -> None: ...


class MissingPackage(Explained, ImportError):
    """A tracker was asked for whose package is not installed; the message says what to type."""


def _load(package: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(package)
    except ModuleNotFoundError as error:
        raise MissingPackage(
            f"the tracker {extra} needs the package {error.name}; type `pip install {extra}`, "
            "or leave the tracker out: metrics.jsonl and report.html are written anyway"
        ) from error


def _identity(run: Path, tool: str) -> str:
    """An id made once for each run folder, so that a resumed run finds its curves again."""
    file = run / f"{tool}.id"
    if not file.exists():
        file.write_text(secrets.token_hex(8))
    return file.read_text().strip()


def _finite(metrics: Mapping[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


class TensorBoard:
    """Event files under RUN/tensorboard; look at them with `tensorboard --logdir RUN`.

    after  the step of the checkpoint that the run goes on from: what was drawn later is hidden, and drawn again
    """

    def __init__(self, run: Path, *, after: int = 0) -> None:
        writer = _load("torch.utils.tensorboard", "tensorboard").SummaryWriter
        self.writer = writer(str(run / "tensorboard"), purge_step=after + 1)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        for name, value in metrics.items():
            self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        self.writer.close()


class WandB:
    """Weights & Biases. With WANDB_MODE=offline it writes under RUN/wandb, for `wandb sync` later, without an account.

    It refuses steps that it has seen, so after resuming the curve goes on where it ended; the steps between are the
    same to the last digit anyway.
    """

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run = _load("wandb", "wandb").init(
            project=PROJECT,
            name=run.name,
            id=_identity(run, "wandb"),
            resume="allow",
            dir=str(run),
            config=dict(config),
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(dict(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


class MLflow:
    """MLflow, at MLFLOW_TRACKING_URI, or else in the file that MLflow chooses by itself."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.mlflow = _load("mlflow", "mlflow")
        self.mlflow.set_experiment(PROJECT)
        file = run / "mlflow.id"
        known = file.read_text().strip() if file.exists() else None
        started = self.mlflow.start_run(run_id=known, run_name=run.name if known is None else None)
        if known is None:
            file.write_text(started.info.run_id)
            self.mlflow.log_dict(dict(config), "recipe.json")

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        # names there may not hold other signs, and "end/out of turns" has spaces, "pass@4" an at sign
        named = {re.sub(r"[^\w\-. :/]", "_", name): value for name, value in metrics.items()}
        self.mlflow.log_metrics(_finite(named), step=step)

    def close(self) -> None:
        self.mlflow.end_run()


class Trackio:
    """Trackio, in its own folder on this machine (TRACKIO_DIR); look with `trackio show`."""

    def __init__(self, run: Path, config: Mapping[str, Any]) -> None:
        self.run = _load("trackio", "trackio").init(
            project=PROJECT,
            name=f"{run.name}-{_identity(run, 'trackio')}",
            config=dict(config),
            resume="allow",
        )

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.run.log(_finite(metrics), step=step)

    def close(self) -> None:
        self.run.finish()


def open_trackers(
    names: Sequence[Name], run: Path, config: Mapping[str, Any], *, after: int = 0
) -> list[Tracker]:
    """The trackers of a run; `after` is the step that it goes on from."""
    opened: list[Tracker] = []
    for name in names:
        match name:
            case "tensorboard":
                opened.append(TensorBoard(run, after=after))
            case "wandb":
                opened.append(WandB(run, config))
            case "mlflow":
                opened.append(MLflow(run, config))
            case "trackio":
                opened.append(Trackio(run, config))
    return opened
