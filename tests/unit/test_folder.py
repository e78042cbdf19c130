"""The run folder: what is written, what is refused, and how it is cut back."""

from __future__ import annotations

import json
import logging
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ludus.evals.metrics import Interval
from ludus.train.folder import MISSING, FolderError, RunFolder, changes, versions
from ludus.types import Report

RECIPE = {"model": "tiny", "optim": {"lr": 1e-3, "betas": (0.9, 0.999)}, "steps": 10}


def report(step: int, **metrics: Any) -> Report:
    return Report(step, {"success": step / 7, **metrics}, {"tokens_per_second": 10.0 * step})


def run(path: Path, steps: int = 5, save_at: tuple[int, ...] = (3,)) -> RunFolder:
    folder = RunFolder.create(path, RECIPE, 7, name="demo")
    for step in range(1, steps + 1):
        folder.log(report(step))
        if step in save_at:
            folder.save(step, {"loop": {"step": step}})
    return folder


def test_what_a_run_leaves_behind(tmp_path: Path) -> None:
    folder = run(tmp_path / "run")
    before, after = Interval(0.1, 0.0, 0.2, 40), Interval(1 / 3, 0.2, 0.5, 40)
    folder.summarise(
        before={"success": before}, after={"success": after}, steps=5, tokens=900, seconds=1.5
    )
    names = {path.name for path in folder.path.iterdir() if not path.name.startswith(".")}
    assert names == {"recipe.json", "metrics.jsonl", "timings.jsonl", "checkpoints", "summary.json"}
    about = json.loads((folder.path / "recipe.json").read_text())
    assert (
        about["recipe"] == json.loads(json.dumps(RECIPE))
        and about["seed"] == 7
        and about["name"] == "demo"
    )
    summary = json.loads((folder.path / "summary.json").read_text())
    assert set(summary) == {"before", "after", "steps", "tokens", "seconds", "seed", "versions"}
    assert summary["after"]["success"] == {
        "mean": 1 / 3,
        "low": 0.2,
        "high": 0.5,
        "n": 40,
        "level": 0.95,
    }
    assert set(summary["versions"]) == {"python", "ludus", "torch", "transformers", "numpy"}
    for path in folder.path.rglob("*"):
        assert path.is_dir() or str(tmp_path).encode() not in path.read_bytes()


def test_lines_are_exact_sorted_and_one_a_step(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path, RECIPE, 0)
    folder.log(
        report(
            1, third=1 / 3, tensor=torch.tensor(0.1), half=np.float32(0.1), count=3, lost=math.nan
        )
    )
    line = (tmp_path / "metrics.jsonl").read_text()
    assert line == (
        '{"count": 3, "half": 0.10000000149011612, "lost": null, "step": 1, "success": 0.14285714285714285, '
        '"tensor": 0.10000000149011612, "third": 0.3333333333333333}\n'
    )
    with pytest.raises(ValueError, match="step 1 after step 1: a step has one line"):
        folder.log(report(1))
    with pytest.raises(
        ValueError, match=r"checkpoint of step 2 before its line; call log\(report\) first"
    ):
        folder.save(2, {})


def test_a_folder_with_something_in_it_is_refused(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    with pytest.raises(
        FolderError,
        match=r"not empty \(it has thesis.tex\); type --resume .* or choose another --out",
    ):
        RunFolder.create(tmp_path, RECIPE, 0)
    (tmp_path / "file").write_text("")
    with pytest.raises(FolderError, match="is a file"):
        RunFolder.create(tmp_path / "file", RECIPE, 0)


def test_resuming_cuts_every_file_back_to_the_checkpoint(tmp_path: Path) -> None:
    folder = run(tmp_path)
    parts = tmp_path / "trajectories"
    parts.mkdir()
    for name in (
        "part-000000-before.parquet",
        "part-000003-train.parquet",
        "part-000004-train.parquet",
    ):
        (parts / name).write_bytes(b"")
    whole = (tmp_path / "metrics.jsonl").read_bytes()
    with (tmp_path / "metrics.jsonl").open("ab") as file:
        file.write(b'{"step": 6, "succ')  # as a kill leaves it
    again = RunFolder.create(tmp_path, RECIPE, 7, resume=True)
    found = again.restore()
    assert found is not None and found.step == 3 and found.load("loop") == {"step": 3}
    assert [row["step"] for row in again.lines("metrics.jsonl")] == [1, 2, 3]
    assert [row["step"] for row in again.lines("timings.jsonl")] == [1, 2, 3]
    assert sorted(path.name for path in parts.iterdir()) == [
        "part-000000-before.parquet",
        "part-000003-train.parquet",
    ]
    for step in (4, 5):
        again.log(report(step))
    assert (tmp_path / "metrics.jsonl").read_bytes() == whole
    assert again.last_step == folder.last_step == 5


def test_resuming_before_any_checkpoint_begins_anew(tmp_path: Path) -> None:
    run(tmp_path, steps=2, save_at=())
    again = RunFolder.create(tmp_path, RECIPE, 7, resume=True)
    assert again.restore() is None
    assert (tmp_path / "metrics.jsonl").read_bytes() == b"" and again.last_step is None
    again.log(report(1))


def test_resuming_where_nothing_is_yet_just_begins(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "new", RECIPE, 0, resume=True)
    assert folder.restore() is None and folder.about["seed"] == 0


def test_a_changed_recipe_is_refused_field_by_field(tmp_path: Path) -> None:
    run(tmp_path)
    other = {"model": "tiny", "optim": {"lr": 3e-4, "betas": [0.9, 0.999]}, "steps": 20, "kl": 0.1}
    with pytest.raises(FolderError) as caught:
        RunFolder.create(tmp_path, other, 8, resume=True, may_change=("steps",))
    text = str(caught.value)
    assert (
        "optim.lr: 0.001 -> 0.0003" in text
        and "kl: nothing -> 0.1" in text
        and "seed: 7 -> 8" in text
    )
    assert "steps" not in text and "betas" not in text
    assert "--set optim.lr=0.001" in text and "another --out" in text
    assert RunFolder(tmp_path).about["recipe"]["optim"]["lr"] == 1e-3  # nothing was overwritten


def test_many_long_changes_stay_readable(tmp_path: Path) -> None:
    RunFolder.create(tmp_path, {f"field {i}": "x" * 5000 for i in range(40)}, 0)
    with pytest.raises(FolderError) as caught:
        RunFolder.create(tmp_path, {f"field {i}": "y" * 5000 for i in range(40)}, 0, resume=True)
    assert len(str(caught.value)) < 4000 and "... and 28 more" in str(caught.value)


def test_more_steps_may_be_allowed(tmp_path: Path) -> None:
    run(tmp_path)
    more = RunFolder.create(
        tmp_path, {**RECIPE, "steps": 99}, 7, resume=True, may_change=("steps",)
    )
    found = more.restore()
    assert found is not None and more.about["recipe"]["steps"] == 99


def test_editing_recipe_json_does_not_get_round_the_checkpoint(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / "recipe.json"
    file.write_text(file.read_text().replace("0.001", "0.1"))
    edited = {**RECIPE, "optim": {"lr": 0.1, "betas": (0.9, 0.999)}}
    with pytest.raises(FolderError, match=r"optim\.lr: 0\.001 -> 0\.1"):
        RunFolder.create(tmp_path, edited, 7, resume=True).restore()


def test_lost_or_damaged_lines_are_not_passed_over(tmp_path: Path) -> None:
    run(tmp_path)
    file = tmp_path / "metrics.jsonl"
    lines = file.read_bytes().splitlines(keepends=True)
    file.write_bytes(b"".join(lines[:2]))
    with pytest.raises(FolderError, match=r"ends at step 2, and the checkpoint is of step 3"):
        RunFolder.create(tmp_path, RECIPE, 7, resume=True).restore()
    file.write_bytes(lines[0] + b"%%%\n" + b"".join(lines[2:]))
    with pytest.raises(FolderError, match=r"line 2 is damaged"):
        RunFolder.create(tmp_path, RECIPE, 7, resume=True).restore()


def test_one_writer_a_folder(tmp_path: Path) -> None:
    folder = run(tmp_path)
    said, told = os.pipe()
    child = os.fork()
    if child == 0:  # a second process; it leaves by _exit, so that it runs no other test
        try:
            RunFolder.create(tmp_path, RECIPE, 7, resume=True)
        except FolderError as error:
            os.write(told, str(error).encode())
        os._exit(0)
    os.waitpid(child, 0)
    os.close(told)
    with os.fdopen(said) as answer:
        assert "another process is writing into" in answer.read()
    del folder  # its lock went with it
    assert RunFolder.create(tmp_path, RECIPE, 7, resume=True).last_step == 5


def test_other_versions_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    run(tmp_path)
    file = tmp_path / "recipe.json"
    file.write_text(file.read_text().replace(json.dumps(versions()["numpy"]), '"1.0.0"'))
    with caplog.at_level(logging.WARNING):
        RunFolder.create(tmp_path, RECIPE, 7, resume=True)
    assert f"numpy 1.0.0 -> {versions()['numpy']}" in caplog.text


def test_reading_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(FolderError, match=r"no run folder.*ludus run"):
        _ = RunFolder(tmp_path).about


def test_a_recipe_must_be_json_and_infinity_is_spelt(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="describe"):
        RunFolder.create(tmp_path / "a", {"loss": print}, 0)
    for _ in range(2):
        folder = RunFolder.create(tmp_path / "b", {"clip": math.inf}, 0, resume=True)
    assert folder.about["recipe"] == {"clip": "inf"}


def test_changes_are_dotted() -> None:
    assert changes({"a": {"b": 1, "c": 2}, "d": {}}, {"a": {"b": 1, "c": 3}, "e": [1]}) == {
        "a.c": (2, 3),
        "d": ({}, MISSING),
        "e": (MISSING, [1]),
    }


@pytest.mark.parametrize("text", ['{"format": 1, "na', "[]", "7"])
def test_a_damaged_recipe_or_summary_is_named(tmp_path: Path, text: str) -> None:
    folder = RunFolder.create(tmp_path, RECIPE, 0)
    (tmp_path / "summary.json").write_text(text)
    with pytest.raises(FolderError, match=r"summary.json is damaged.*Put back"):
        _ = folder.summary
    for lacking in (text, '{"format": 1}'):
        (tmp_path / "recipe.json").write_text(lacking)
        with pytest.raises(FolderError, match=r"recipe.json is damaged.*Put back"):
            _ = folder.about


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FolderError, match=r"file/run cannot be made.*--out"):
        RunFolder.create(tmp_path / "file" / "run", RECIPE, 0)
