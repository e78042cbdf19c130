"""Curves elsewhere: TensorBoard for real; the optional ones for real where they are installed."""

from __future__ import annotations

import json
import math
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from ludus.train.trackers import MissingPackage, MLflow, TensorBoard, Trackio, WandB, open_trackers


def curve(folder: Path, name: str) -> dict[int, float]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(folder / "tensorboard")).Reload()
    return {event.step: event.value for event in events.Scalars(name)}


def test_tensorboard_goes_on_after_resuming_without_doubles(tmp_path: Path) -> None:
    first = TensorBoard(tmp_path)
    for step in range(1, 6):
        first.log(step, {"success": step / 8, "end/out of turns": 1.0})
    first.close()
    second = TensorBoard(tmp_path, after=3)
    for step in (4, 5, 6):
        second.log(step, {"success": step / 4})
    second.close()
    assert curve(tmp_path, "success") == {1: 0.125, 2: 0.25, 3: 0.375, 4: 1.0, 5: 1.25, 6: 1.5}


@pytest.mark.parametrize(
    ("make", "package"),
    [
        (lambda run: WandB(run, {}), "wandb"),
        (lambda run: MLflow(run, {}), "mlflow"),
        (lambda run: Trackio(run, {}), "trackio"),
    ],
)
def test_a_missing_package_is_named(
    tmp_path: Path, make, package: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, package, None)  # as if it were not installed
    with pytest.raises(MissingPackage, match=f"type `pip install {package}`"):
        make(tmp_path)


def test_they_are_opened_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tracker,) = open_trackers(["tensorboard"], tmp_path, {}, after=2)
    assert isinstance(tracker, TensorBoard)
    tracker.close()
    assert open_trackers([], tmp_path, {}) == []
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(MissingPackage, match=r"pip install wandb"):
        open_trackers(["wandb"], tmp_path, {})


def test_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb")
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_MODE", "offline")
    for begin in (1, 3):  # twice: the run, and its second part
        tracker = WandB(tmp_path, {"lr": 0.1})
        for step in range(begin, begin + 3):
            tracker.log(step, {"success": step / 8, "nothing": math.nan})
        tracker.close()
    files = list((tmp_path / "wandb").glob("offline-run-*/run-*.wandb"))
    assert len({file.stem for file in files}) == 1  # one id for both parts
    assert all(file.stat().st_size > 0 for file in files)


def test_mlflow_goes_on_in_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")  # the slim package has no other local one
    mlflow = pytest.importorskip("mlflow")
    mlflow.set_tracking_uri((tmp_path / "mlflow").as_uri())
    for begin in (1, 3):
        tracker = MLflow(tmp_path, {"lr": 0.1})
        for step in range(begin, begin + 3):
            tracker.log(step, {"success": step / 8, "pass@4": 1.0, "nothing": math.nan})
        tracker.close()
    client = mlflow.MlflowClient()
    run = client.get_run((tmp_path / "mlflow.id").read_text())
    assert run.data.metrics == {"success": 0.625, "pass_4": 1.0}
    history = client.get_metric_history(run.info.run_id, "success")
    assert {point.step for point in history} == {1, 2, 3, 4, 5}


def test_trackio_goes_on_in_the_same_run(tmp_path: Path) -> None:
    """In a process of its own: Trackio reads TRACKIO_DIR once, when anything first imports it."""
    pytest.importorskip("trackio")
    program = (
        "import math, sys\n"
        "from pathlib import Path\n"
        "from ludus.train.trackers import Trackio\n"
        "for begin in (1, 4):\n"
        "    tracker = Trackio(Path(sys.argv[1]), {'lr': 0.1})\n"
        "    for step in range(begin, begin + 3):\n"
        "        tracker.log(step, {'success': step / 8, 'nothing': math.nan})\n"
        "    tracker.close()\n"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(tmp_path / "trackio")}
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], env=environment, check=True)
    with sqlite3.connect(next((tmp_path / "trackio").glob("*.db"))) as stored:
        rows = stored.execute(
            "SELECT run_name, step, metrics FROM metrics ORDER BY step"
        ).fetchall()
    assert len({name for name, _, _ in rows}) == 1
    assert [(step, json.loads(metrics)) for _, step, metrics in rows] == [
        (step, {"success": step / 8}) for step in range(1, 7)
    ]


def test_tensorboard_has_no_doubles_after_resuming_before_the_first_checkpoint(
    tmp_path: Path,
) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    for value in (0.25, 0.5):
        tracker = TensorBoard(tmp_path, after=0)
        for step in (1, 2):
            tracker.log(step, {"success": value})
        tracker.close()
    events = EventAccumulator(str(tmp_path / "tensorboard")).Reload()
    assert [(e.step, e.value) for e in events.Scalars("success")] == [(1, 0.5), (2, 0.5)]
