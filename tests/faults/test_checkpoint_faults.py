"""Kills, full disks and damaged files: the last good checkpoint stays usable, and the curve stays the same.

The run here is a real one in small: a linear model, AdamW, a line and sometimes a checkpoint each step. It runs in
its own process, so that `kill -9` is `kill -9`.
"""

from __future__ import annotations

import errno
import json
import multiprocessing
import os
import random
import resource
import shutil
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from ludus.train import checkpoint, disk
from ludus.train.checkpoint import CheckpointError, Keep, latest, save
from ludus.train.folder import FolderError, RunFolder
from ludus.types import Report

STEPS = 30
RECIPE = {"lr": 0.03, "steps": STEPS}

processes = multiprocessing.get_context("forkserver")
# torch is read once, not for each process
processes.set_forkserver_preload(["ludus.train.folder", "torch._dynamo", "pytest"])


def train(
    path: Path, steps: int = STEPS, every: int = 5, pause: float = 0.0, kill_in_save: bool = False
) -> None:
    """The whole run, or what is left of it, with a checkpoint `every` so many steps."""
    torch.set_num_threads(1)
    if kill_in_save:
        checkpoint.save_file = half_then_kill  # type: ignore[assignment]
    folder = RunFolder.create(path, RECIPE, 0, resume=True)
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 1)
    adam = torch.optim.AdamW(model.parameters(), lr=RECIPE["lr"])
    done, found = 0, folder.restore()
    if found is not None:
        model.load_state_dict(found.load("model"))
        adam.load_state_dict(found.load("adam"))
        done = found.step
    for step in range(done + 1, steps + 1):
        x = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        time.sleep(pause)
        folder.log(Report(step, {"loss": loss.item()}, {"now": time.time()}))
        if step % every == 0:
            parts = {"model": model.state_dict(), "adam": adam.state_dict()}
            folder.save(step, parts, score=-loss.item(), keep=Keep(last=2))


def half_then_kill(tensors: Any, file: Path) -> None:
    safetensors.torch.save_file(tensors, file)
    os.truncate(file, file.stat().st_size // 2)
    os.kill(os.getpid(), signal.SIGKILL)


def start(path: Path, **settings: Any) -> Any:
    process = processes.Process(target=train, args=(path,), kwargs=settings)
    process.start()
    return process


def until_written(process: Any, file: Path) -> None:
    """Waits until the process writes `file` anew, or ends."""
    before = file.stat().st_mtime_ns if file.exists() else 0
    while process.is_alive() and (not file.exists() or file.stat().st_mtime_ns == before):
        time.sleep(0.002)


def finish(process: Any) -> int:
    process.join(600)  # long enough for a machine with much else to do
    assert process.exitcode is not None, "the run hangs"
    return process.exitcode


def outcome(path: Path) -> tuple[bytes, bytes]:
    """What must not differ: every line, and the final weights and optimiser state."""
    found = latest(path / "checkpoints")
    assert found is not None and found.step == STEPS
    tensors = [(found.path / f"{part}.safetensors").read_bytes() for part in ("model", "adam")]
    return (path / "metrics.jsonl").read_bytes(), b"".join(tensors)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, bytes]:
    path = tmp_path_factory.mktemp("whole") / "run"
    train(path)
    lines = outcome(path)[0].splitlines()
    assert [json.loads(line)["step"] for line in lines] == list(range(1, STEPS + 1))
    return outcome(path)


# ------------------------------------------------------------------------------------------ kills


def test_ten_kills_at_random_and_the_curve_is_the_same(
    tmp_path: Path, uninterrupted: tuple[bytes, bytes]
) -> None:
    path, chance = tmp_path / "run", random.Random(11)
    reached = [0]
    for kill in range(10):
        if kill == 1:  # for certain inside a checkpoint: while its tensors are being written
            assert finish(start(path, kill_in_save=True)) == -signal.SIGKILL
            assert list((path / "checkpoints").glob(".writing-*/*.safetensors"))
        else:
            process = start(path, pause=0.01)
            # one half soon after the start, the other after some progress, however slow the machine
            until_written(process, path / ("checkpoints/latest" if kill % 2 else "recipe.json"))
            time.sleep(chance.random() * 0.05)
            process.kill()
            finish(process)
        found = latest(path / "checkpoints")
        reached.append(found.step if found else 0)
    assert reached == sorted(reached), "a checkpoint that was there is gone"
    assert reached[-1] > 0
    assert finish(start(path)) == 0
    assert outcome(path) == uninterrupted


class Killed(BaseException):
    """Stands for kill -9 where a process for each would take long: nothing here catches it or cleans up after it."""


def test_killed_at_every_operation_of_a_save(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uninterrupted: tuple[bytes, bytes]
) -> None:
    """Each write, sync, rename and deletion is in turn the last thing done; a file being written is left by half."""
    begun = tmp_path / "begun"
    train(begun, steps=20, every=10)

    operations: list[str] = []
    allowed = 10**9

    def mortal(
        name: str, operation: Callable[..., Any], file: int | None = None
    ) -> Callable[..., Any]:
        def run(*arguments: Any, **named: Any) -> Any:
            if len(operations) >= allowed:
                if file is not None:
                    operation(*arguments, **named)
                    os.truncate(arguments[file], Path(arguments[file]).stat().st_size // 2)
                raise Killed
            operations.append(name)
            return operation(*arguments, **named)

        return run

    def mortals() -> None:
        operations.clear()
        write = mortal("write", disk.write_synced, file=0)
        monkeypatch.setattr(disk, "write_synced", write)
        monkeypatch.setattr(checkpoint, "write_synced", write)
        monkeypatch.setattr(
            checkpoint, "save_file", mortal("write", safetensors.torch.save_file, file=1)
        )
        monkeypatch.setattr(checkpoint, "sync", mortal("sync", disk.sync))
        monkeypatch.setattr(os, "rename", mortal("rename", os.rename))
        monkeypatch.setattr(os, "replace", mortal("replace", os.replace))
        monkeypatch.setattr(checkpoint.shutil, "rmtree", mortal("delete", shutil.rmtree))

    def one_more_save(path: Path) -> None:
        folder = RunFolder(path)
        folder.log(Report(21, {"loss": 0.0}, {}))
        mortals()
        parts = {"model": {"weight": torch.ones(9)}, "loop": {"step": 21}}
        folder.save(21, parts, keep=Keep(last=2, best=False))

    one_more_save(shutil.copytree(begun, tmp_path / "whole"))
    monkeypatch.undo()
    wanted = Counter(write=6, rename=2, replace=1, delete=1)
    assert Counter(operations) & wanted == wanted and operations[-2:] == ["rename", "delete"]
    whole = list(operations)

    found_at = []
    for allowed in range(len(whole)):
        path = shutil.copytree(begun, tmp_path / f"killed-{allowed}")
        with pytest.raises(Killed):
            one_more_save(path)
        monkeypatch.undo()
        found = latest(path / "checkpoints")
        assert found is not None and not found.skipped, f"after {whole[:allowed]}"
        found_at.append(found.step)
        if found.step == 20:
            train(path, every=10)
            assert outcome(path) == uninterrupted
            assert not list((path / "checkpoints").glob(".*"))
    renamed = whole.index("rename") + 1  # the instant at which the new one counts
    assert found_at == [20] * renamed + [21] * (len(whole) - renamed)


# ------------------------------------------------------------------------------------------ no room


def two_checkpoints(folder: Path) -> None:
    for step in (1, 2):
        save(
            folder, step, {"model": {"w": torch.full((5000,), float(step))}, "loop": {"step": step}}
        )


def untouched(folder: Path) -> None:
    found = latest(folder)
    assert found is not None and found.step == 2 and not found.skipped
    assert found.load("model")["w"].eq(2).all()
    assert {path.name for path in folder.iterdir()} == {"latest", "step-00000001", "step-00000002"}


def test_too_little_room_is_told_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_checkpoints(tmp_path)
    monkeypatch.setattr(checkpoint, "free_bytes", lambda folder: 1000)
    monkeypatch.setattr(checkpoint, "write_synced", None)
    with pytest.raises(CheckpointError) as caught:
        save(tmp_path, 3, {"model": {"w": torch.zeros(5000)}})
    text = str(caught.value)
    for needed in (
        str(tmp_path),
        "20",
        "19.6 KiB",
        "1000 bytes",
        "Free some space",
        "--resume",
        "untouched",
    ):
        assert needed in text
    untouched(tmp_path)


@pytest.mark.parametrize("victim", ["loop.json", "manifest.json", ".latest.new"])
def test_a_disk_that_fills_up_while_saving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, victim: str
) -> None:
    two_checkpoints(tmp_path)
    real = disk.write_synced

    def full(path: Path, data: bytes) -> None:
        if path.name == victim:
            path.write_bytes(data[: len(data) // 2])
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        real(path, data)

    monkeypatch.setattr(disk, "write_synced", full)
    monkeypatch.setattr(checkpoint, "write_synced", full)
    with pytest.raises(
        CheckpointError, match=r"no room for the checkpoint of step 3 in .* it needs \d+ bytes"
    ):
        save(tmp_path, 3, {"model": {"w": torch.zeros(5000)}, "loop": {"step": 3}})
    if victim == ".latest.new":  # only the pointer failed; the checkpoint was whole by then
        found = latest(tmp_path)
        assert found is not None and found.step == 3
    else:
        untouched(tmp_path)
    monkeypatch.undo()
    save(tmp_path, 3, {"loop": {"step": 3}})
    assert (tmp_path / "latest").read_text() == "step-00000003\n"


def save_under_a_limit(folder: Path) -> None:
    """The system itself refuses bytes, inside safetensors' own writing."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))
    try:
        save(folder, 3, {"model": {"w": torch.zeros(5000)}})
    except CheckpointError as error:
        (folder.parent / "said").write_text(str(error))
    untouched(folder)


def test_the_system_refuses_the_tensors(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    two_checkpoints(folder)
    process = processes.Process(target=save_under_a_limit, args=(folder,))
    process.start()
    assert finish(process) == 0
    assert "no room for the checkpoint of step 3" in (tmp_path / "said").read_text()
    untouched(folder)


def test_other_errors_keep_their_own_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    two_checkpoints(tmp_path)

    def broken(path: Path, data: bytes) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(checkpoint, "write_synced", broken)
    with pytest.raises(OSError, match="Input/output error"):
        save(tmp_path, 3, {"loop": 1})
    untouched(tmp_path)


def log_under_a_limit(path: Path) -> None:
    folder = RunFolder.create(path, {}, 0)
    folder.log(Report(1, {"a": 1.0}, {}))
    unlimited = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (40, unlimited[1]))
    try:
        folder.log(Report(2, {"a": 1.0}, {}))
    except FolderError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, unlimited)
        (path.parent / "said").write_text(str(error))


def test_a_line_that_finds_no_room_is_dropped_on_resuming(tmp_path: Path) -> None:
    path = tmp_path / "run"
    process = processes.Process(target=log_under_a_limit, args=(path,))
    process.start()
    assert finish(process) == 0
    said = (tmp_path / "said").read_text()
    assert "no room for" in said and "metrics.jsonl" in said and "--resume" in said
    assert (path / "metrics.jsonl").read_bytes().count(b"\n") == 1  # and a torn second line
    folder = RunFolder.create(path, {}, 0, resume=True)
    folder.rewind(1)
    assert [row["step"] for row in folder.lines("metrics.jsonl")] == [1]


# ------------------------------------------------------------------------------------------ damage


def cut(file: Path) -> None:
    os.truncate(file, file.stat().st_size - 1)


def flip(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(bytes(data))


@pytest.mark.parametrize(
    ("harm", "name", "reason"),
    [
        (
            cut,
            "model.safetensors",
            r"step-00000002: model.safetensors has \d+ bytes, \d+ were written",
        ),
        (flip, "model.safetensors", "step-00000002: model.safetensors was altered"),
        (flip, "loop.json", "step-00000002: loop.json was altered"),
        (Path.unlink, "model.safetensors", "step-00000002: model.safetensors is missing"),
        (cut, "manifest.json", "step-00000002: manifest.json cannot be read"),
        (Path.unlink, "manifest.json", "step-00000002: manifest.json is missing"),
    ],
)
def test_a_damaged_checkpoint_is_passed_over_and_said(
    tmp_path: Path,
    harm: Callable[[Path], None],
    name: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    two_checkpoints(tmp_path)
    harm(tmp_path / "step-00000002" / name)
    found = latest(tmp_path)
    assert found is not None and found.step == 1 and found.load("model")["w"].eq(1).all()
    assert len(found.skipped) == 1
    with pytest.raises(CheckpointError, match=reason):
        checkpoint.verify(tmp_path / "step-00000002")
    assert "using step-00000001" in caplog.text and found.skipped[0] in caplog.text

    # the run goes on from step 1 and comes to step 2 again: the damaged one is replaced, the good one kept
    save(tmp_path, 2, {"model": {"w": torch.full((5000,), 2.0)}, "loop": {"step": 2}})
    untouched(tmp_path)


def test_all_damaged_is_an_error_not_a_new_beginning(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for step in (1, 2):
        cut(tmp_path / f"step-0000000{step}" / "loop.json")
    with pytest.raises(CheckpointError) as caught:
        latest(tmp_path)
    text = str(caught.value)
    assert (
        "step-00000001: loop.json" in text
        and "step-00000002: loop.json" in text
        and "--resume" in text
    )


def test_a_damaged_one_does_not_push_out_a_good_one(tmp_path: Path) -> None:
    """Steps 1, 2 and a damaged 9: saving step 3 keeps 2 and 3, though 9 is newer by its number."""
    two_checkpoints(tmp_path)
    save(tmp_path, 9, {"loop": {"step": 9}})
    cut(tmp_path / "step-00000009" / "loop.json")
    save(tmp_path, 3, {"loop": {"step": 3}}, keep=Keep(last=2))
    found = latest(tmp_path)
    assert found is not None and found.step == 3 and len(found.skipped) == 1
    checkpoint.verify(tmp_path / "step-00000002")


def test_what_does_not_read_back_deletes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Older checkpoints go only after the new one was compared with its manifest on the disk."""
    two_checkpoints(tmp_path)
    real = os.rename

    def harmful(source: Any, target: Any) -> None:
        real(source, target)
        if Path(target).name == "step-00000003":
            flip(Path(target) / "loop.json")

    monkeypatch.setattr(os, "rename", harmful)
    with pytest.raises(CheckpointError, match=r"loop\.json was altered"):
        save(tmp_path, 3, {"loop": {"step": 3}}, keep=Keep(last=1))
    found = latest(tmp_path)
    assert found is not None and found.step == 2


def test_remains_of_killed_saves_are_ignored_and_swept(tmp_path: Path) -> None:
    two_checkpoints(tmp_path)
    for name in (".writing-step-00000003", ".deleted-step-00000000"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.safetensors").write_bytes(b"half")
    found = latest(tmp_path)
    assert found is not None and found.step == 2 and not found.skipped
    save(tmp_path, 3, {"loop": {"step": 3}})
    assert not list(tmp_path.glob(".*"))
