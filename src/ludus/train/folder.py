"""The run folder: everything that a run leaves behind, readable without this program.

    recipe.json           format, name, seed, recipe (what the run was made of), versions
    metrics.jsonl         a line a step; nothing in it depends on the clock, so two equal runs have equal files
    timings.jsonl         a line a step; seconds of each stage, speeds
    trajectories.parquet  see ludus.data.store
    checkpoints/          see ludus.train.checkpoint
    summary.json          before, after: the held-out measures with intervals; steps, tokens, seconds, seed, versions
    report.html           see ludus.train.report

Numbers in the lines are exact (`repr`); one that is not finite is written as null, since JSON has no word for it.
No file says where the folder is, so that it can be moved, packed and compared.
"""

from __future__ import annotations

import fcntl
import json
import logging
import math
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import IO, Any

from ludus.evals.metrics import Interval
from ludus.train import checkpoint
from ludus.train.checkpoint import Checkpoint, Keep
from ludus.train.disk import free_bytes, human, is_full, sync, write_atomic
from ludus.types import Explained, Report

FORMAT = 1
LINES = ("metrics.jsonl", "timings.jsonl")
SHOWN = 12  # changed fields that a message lists

logger = logging.getLogger(__name__)


class FolderError(Explained, RuntimeError):
    """A run folder cannot be used as asked; the message says why and what to type."""


@dataclass
class RunFolder:
    """`RunFolder.create` to write a run, `RunFolder(path)` to read one, also while it is being written."""

    path: Path
    may_change: Sequence[str] = ()
    _last: int | None = None  # the last step logged, once known
    _lock: IO[str] | None = field(default=None, repr=False)

    # -------------------------------------------------------------------------------------- beginning

    @classmethod
    def create(
        cls,
        path: Path | str,
        recipe: Mapping[str, Any],
        seed: int,
        *,
        name: str = "",
        resume: bool = False,
        may_change: Sequence[str] = (),
    ) -> RunFolder:
        """Makes the folder, or takes up the one that is there (`resume`); one process at a time.

        Args:
            recipe:      plain JSON, written to recipe.json.
            name:        what the recipe is called, for the reader.
            may_change:  fields (dotted) that may differ from the earlier part of the run, such as "steps".

        Errors: FolderError if the folder is not empty and `resume` is False, if recipe or seed are not those that the
        folder was made with, or if another process is writing there.
        """
        path = Path(path)
        folder = cls(path, may_change)
        started = (path / "recipe.json").exists()
        if path.exists() and not path.is_dir():
            raise FolderError(f"{path} is a file; give a folder with --out")
        if path.is_dir() and not resume:
            there = sorted(p.name for p in path.iterdir() if not p.name.startswith("."))
            if there:
                raise FolderError(
                    f"{path} is not empty (it has {', '.join(there[:4])}{' ...' if there[4:] else ''}); "
                    "type --resume to go on with the run in it, or choose another --out"
                )
        try:
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FolderError(
                f"{path} cannot be made ({error.strerror}); choose another --out"
            ) from error
        folder._take()
        now = {
            "format": FORMAT,
            "name": name,
            "seed": seed,
            "recipe": _plain(recipe),
            "versions": versions(),
        }
        if started:  # a run killed before it wrote its recipe had not begun
            folder._refuse_changes(folder._settings, {**now["recipe"], "seed": seed})
            _warn_of_versions(folder.about["versions"], now["versions"])
        write_atomic(path / "recipe.json", _pretty(now))
        return folder

    def restore(self) -> Checkpoint | None:
        """The newest sound checkpoint, every file cut back to its step; None, and empty files, if there is none."""
        found = checkpoint.latest(self.path / "checkpoints")
        if found is not None:
            # recipe.json is easily edited; what the checkpoint says is what was run
            self._refuse_changes(found.load("recipe"), self._settings)
        self.rewind(found.step if found else -1)
        return found

    def rewind(self, step: int) -> None:
        """Forgets every step after `step` (-1: all), and a last line that a kill left torn.

        Errors: FolderError if a line before that is damaged, or lines up to `step` are missing.
        """
        for name in LINES:
            file = self.path / name
            if not file.exists() and step < 1:
                continue
            data = file.read_bytes() if file.exists() else b""
            kept, last = 0, 0
            for number, line in enumerate(data.splitlines(keepends=True), 1):
                row = _parse(line)
                if row is None and kept + len(line) == len(data):
                    break
                if row is None:
                    raise FolderError(
                        f"{file}, line {number} is damaged: {line[:60]!r}. Mend or delete it by hand, then --resume"
                    )
                if row["step"] > step:
                    break
                kept, last = kept + len(line), row["step"]
            if last < step:
                raise FolderError(
                    f"{file} ends at step {last}, and the checkpoint is of step {step}: lines were lost or deleted. "
                    "Put the file back, or begin anew with another --out"
                )
            if kept < len(data):
                os.truncate(file, kept)
                sync(file)
        # trajectories.parquet is left: it is written at the end, and steps that are run again win over its own
        for part in (self.path / "trajectories").glob("part-*.parquet"):
            if int(part.name.split("-")[1]) > step:
                part.unlink()
        self._last = None

    # -------------------------------------------------------------------------------------- going on

    def log(self, report: Report) -> None:
        """Appends a step to metrics.jsonl and timings.jsonl: handed to the system before it returns.

        A kill after that loses nothing; against a power cut, `save` waits for the disk.
        """
        if self.last_step is not None and report.step <= self.last_step:
            raise ValueError(
                f"step {report.step} after step {self.last_step}: a step has one line; "
                "put all its metrics into one report"
            )
        for name, values in zip(LINES, (report.metrics, report.timings), strict=True):
            row = {"step": report.step, **{key: _number(value) for key, value in values.items()}}
            line = json.dumps(row, sort_keys=True, allow_nan=False) + "\n"
            try:
                with (self.path / name).open("ab") as file:
                    file.write(line.encode())
            except OSError as error:
                if not is_full(error):
                    raise
                free = free_bytes(self.path)
                raise FolderError(
                    f"no room for {len(line)} more bytes in {self.path / name}: {free} ({human(free)}) are free. "
                    "Free some space, then go on with --resume: the last checkpoint is untouched"
                ) from error
        self._last = report.step

    def save(
        self,
        step: int,
        parts: Mapping[str, Any],
        *,
        score: float | None = None,
        keep: Keep = checkpoint.KEEP,
    ) -> Checkpoint:
        """Writes the checkpoint of a step that has been logged (see `checkpoint.save`)."""
        if step > 0 and (self.last_step or 0) < step:
            raise ValueError(f"checkpoint of step {step} before its line; call log(report) first")
        for name in LINES:  # a checkpoint on the disk must not be ahead of the lines on the disk
            if (self.path / name).exists():
                sync(self.path / name)
        whole = {**parts, "recipe": self._settings}
        return checkpoint.save(self.path / "checkpoints", step, whole, score=score, keep=keep)

    def summarise(
        self,
        *,
        before: Mapping[str, Interval] | None,
        after: Mapping[str, Interval] | None,
        steps: int,
        tokens: int,
        seconds: float,
    ) -> None:
        """Writes summary.json in one instant.

        before, after  held-out measures by name ("success" first of all), each {mean, low, high, n, level}
        tokens         sampled by the policy in training; seconds: of the whole run, all its parts
        """
        summary = {
            "before": None if before is None else {k: asdict(v) for k, v in before.items()},
            "after": None if after is None else {k: asdict(v) for k, v in after.items()},
            "steps": steps,
            "tokens": tokens,
            "seconds": seconds,
            "seed": self.about["seed"],
            "versions": versions(),
        }
        write_atomic(self.path / "summary.json", _pretty(summary))

    # -------------------------------------------------------------------------------------- reading

    @property
    def about(self) -> dict[str, Any]:
        """recipe.json: format, name, seed, recipe, versions."""
        file = self.path / "recipe.json"
        if not file.exists():
            raise FolderError(
                f"{self.path} is no run folder: it has no recipe.json. `ludus run ID --out DIR` makes one"
            )
        about = _read(file, ("format", "name", "seed", "recipe", "versions"))
        if about["format"] > FORMAT:
            raise FolderError(
                f"{file} has format {about['format']}, and this version of Ludus reads up to {FORMAT}; "
                "type `pip install -U ludus`"
            )
        return about

    @property
    def summary(self) -> dict[str, Any] | None:
        """summary.json, or None while the run is not over."""
        file = self.path / "summary.json"
        return _read(file) if file.exists() else None

    def lines(self, name: str) -> list[dict[str, Any]]:
        """The rows of "metrics.jsonl" or "timings.jsonl"; a last line still being written is left out."""
        file = self.path / name
        data = file.read_bytes().splitlines(keepends=True) if file.exists() else []
        return [row for line in data if (row := _parse(line)) is not None]

    @property
    def last_step(self) -> int | None:
        """The last step logged; None before the first."""
        if self._last is None and (rows := self.lines("metrics.jsonl")):
            self._last = rows[-1]["step"]
        return self._last

    # -------------------------------------------------------------------------------------- helpers

    @property
    def _settings(self) -> dict[str, Any]:
        """What must not change between the parts of a run."""
        about = self.about
        return {**about["recipe"], "seed": about["seed"]}

    def _take(self) -> None:
        """One writer a folder. The lock is the process's own: it ends with it, also by kill -9."""
        self._lock = (self.path / ".lock").open("w")
        try:
            fcntl.lockf(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            raise FolderError(
                f"another process is writing into {self.path}; let it finish or end it, or choose another --out"
            ) from None

    def _refuse_changes(self, was: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        changed = {
            name: pair for name, pair in changes(was, now).items() if name not in self.may_change
        }
        if not changed:
            return
        lines = [
            f"    {name}: {_show(old)} -> {_show(new)}" for name, (old, new) in changed.items()
        ]
        more = [f"    ... and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else []
        listed = "\n".join([*lines[:SHOWN], *more])
        name, (old, _) = next(iter(changed.items()))
        back = f"--seed {old}" if name == "seed" else f"--set {name}={_show(old)}"
        raise FolderError(
            f"{self.path} was begun with another recipe; what changed (then -> now):\n{listed}\n"
            f"To go on with that run, give back what it had ({back} ...) with --resume; "
            "to run what you have now, choose another --out"
        )


class _Missing:
    def __repr__(self) -> str:
        return "nothing"


MISSING = _Missing()


def changes(was: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The fields that differ, dotted ("optim.lr"), each with its old and its new value (MISSING where it has none)."""
    old, new = _flat(was), _flat(now)
    names = [*old, *(name for name in new if name not in old)]
    pairs = {name: (old.get(name, MISSING), new.get(name, MISSING)) for name in names}
    return {name: pair for name, pair in pairs.items() if pair[0] != pair[1]}


def _flat(value: Mapping[str, Any], place: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, item in value.items():
        if isinstance(item, Mapping) and item:
            flat |= _flat(item, f"{place}{key}.")
        else:
            flat[f"{place}{key}"] = item
    return flat


def _show(value: Any) -> str:
    text = repr(value) if value is MISSING else json.dumps(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


def versions() -> dict[str, str]:
    """Of what the numbers of a run may depend on."""
    found = {"python": platform.python_version()}
    for package in ("ludus", "torch", "transformers", "numpy"):
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def _warn_of_versions(was: Mapping[str, str], now: Mapping[str, str]) -> None:
    differ = [f"{name} {old} -> {new}" for name, (old, new) in changes(was, now).items()]
    if differ:
        logger.warning(
            "resuming with other versions (%s): the curve goes on, but not to the last digit of what it was",
            ", ".join(differ),
        )


def _plain(recipe: Mapping[str, Any]) -> dict[str, Any]:
    """As it reads back from JSON, so that a recipe equals itself after a restart: tuples as lists, inf as "inf"."""

    def finite(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: finite(item) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [finite(item) for item in value]
        return repr(value) if isinstance(value, float) and not math.isfinite(value) else value

    try:
        return json.loads(json.dumps(finite(recipe), allow_nan=False))
    except (TypeError, ValueError) as error:
        raise TypeError(
            f"the recipe is not plain JSON ({error}); give ludus.train.recipe.describe(recipe)"
        ) from None


def _pretty(value: Any) -> bytes:
    return (json.dumps(value, indent=2) + "\n").encode()


def _read(file: Path, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """The object in a JSON file that has these names. Errors: FolderError where it is damaged or another's."""
    try:
        told = json.loads(file.read_text())
        missing = [name for name in wanted if name not in told]
        wrong = f"it has no {', '.join(missing)}" if missing else ""
        wrong = wrong if isinstance(told, dict) else "it is no object"
    except (ValueError, TypeError) as error:
        told, wrong = {}, str(error)
    if wrong:
        raise FolderError(
            f"{file} is damaged, or not of a run ({wrong}). Put back a copy of it, or begin anew with another --out"
        )
    return told


def _parse(line: bytes) -> dict[str, Any] | None:
    """A row, or None where the line is torn or damaged."""
    try:
        row = json.loads(line) if line.endswith(b"\n") else None
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


def _number(value: Any) -> int | float | None:
    """A Python number from a number, a numpy scalar or a one-element tensor; None where it is not finite."""
    if isinstance(value, int):
        return value
    number = float(value)
    return number if math.isfinite(number) else None
