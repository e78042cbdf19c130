"""Checkpoints that no kill, full disk or damaged file can spoil. No pickle anywhere.

    checkpoints/
        latest                      the name of the newest one, for people and scripts
        step-00000020/
            manifest.json           format, step, score; bytes and sha256 of every other file. Written last.
            learner.json            the shape of the part "learner": plain JSON, tensors named in their places
            learner.safetensors     its tensors

Writing: a directory with a dot in front -> files, each synced -> manifest, synced -> renamed -> parent synced ->
`latest` replaced -> read back and compared -> only then are older ones deleted. A directory called step-* is therefore
always a finished one, and everything else is the remains of a killed save, ignored by `latest` and swept by `save`.

Reading: `latest` takes the newest whose every byte has the hash in its manifest, and says which it passed over and why.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from ludus.train.disk import free_bytes, human, is_full, sync, write_atomic, write_synced
from ludus.types import Explained

FORMAT = 1
_STEP = re.compile(r"step-(\d{8,})")
_WRITING, _DELETED = ".writing-", ".deleted-"

logger = logging.getLogger(__name__)


class CheckpointError(Explained, RuntimeError):
    """A checkpoint could not be written or read; the message says which, why, and what to do."""


class NewerFormat(CheckpointError):
    """The checkpoint is sound, but written by a later version of the program."""


# ------------------------------------------------------------------------------------------ trees to files, exactly


def pack(tree: Any) -> tuple[Any, dict[str, torch.Tensor]]:
    """A tree of dicts, lists, tuples, tensors, arrays and scalars -> (a JSON value, the tensors by name).

    `unpack` gives back an equal tree: same bits, same dtypes, same key types and order, tuples as tuples. Plain JSON
    values stay as they are; what JSON cannot say becomes a one-key object:

        {"$tensor": name}   {"$array": name} (numpy)   {"$tuple": [...]}   {"$float": "nan" | "inf" | "-inf"}
        {"$items": [[key, value], ...]}   keys that are not strings, such as an optimiser's parameter indices

    Tensors come back on the CPU and without gradients; tied tensors are stored once and come back as one.

    Errors: TypeError for any other type, with its place in the tree.
    """
    tensors: dict[str, torch.Tensor] = {}
    stored: dict[tuple[Any, ...], str] = {}

    def keep(tensor: torch.Tensor, place: str) -> str:
        tensor = tensor.detach()
        same = (tensor.data_ptr(), tensor.shape, tensor.stride(), tensor.dtype, tensor.device)
        if tensor.numel() and same in stored:
            return stored[same]
        name = place or "value"
        while name in tensors or name == "__metadata__":  # the format keeps that name for itself
            name += "~"
        host = tensor.cpu().contiguous()
        if host.untyped_storage().nbytes() != host.nbytes:  # a view: write its own part only
            host = host.clone()
        tensors[name] = host
        stored[same] = name
        return name

    def walk(value: Any, place: str) -> Any:
        if isinstance(value, torch.Tensor):
            return {"$tensor": keep(value, place)}
        if isinstance(value, np.ndarray) and value.dtype != object:
            return {"$array": keep(torch.from_numpy(np.array(value, order="C")), place)}
        if isinstance(value, Mapping):
            inside = {
                key: walk(item, f"{place}/{key}" if place else str(key))
                for key, item in value.items()
            }
            if all(type(key) is str and not key.startswith("$") for key in inside):
                return inside
            return {"$items": [[walk(key, place), item] for key, item in inside.items()]}
        if isinstance(value, list | tuple):
            items = [
                walk(item, f"{place}/{i}" if place else str(i)) for i, item in enumerate(value)
            ]
            return {"$tuple": items} if isinstance(value, tuple) else items
        if isinstance(value, float) and not math.isfinite(value):
            return {"$float": repr(float(value))}
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(
            f"cannot store a {type(value).__name__} at {place or 'the top'!r}: give tensors, arrays, numbers, strings, "
            "None, or dicts, lists and tuples of these"
        )

    return walk(tree, ""), tensors


def unpack(packed: Any, tensors: Mapping[str, torch.Tensor]) -> Any:
    """The inverse of `pack`."""
    if isinstance(packed, list):
        return [unpack(item, tensors) for item in packed]
    if not isinstance(packed, dict):
        return packed
    match list(packed.items()):
        case [("$tensor", name)]:
            return tensors[name]
        case [("$array", name)]:
            return tensors[name].numpy()
        case [("$tuple", items)]:
            return tuple(unpack(item, tensors) for item in items)
        case [("$items", pairs)]:
            return {unpack(key, tensors): unpack(item, tensors) for key, item in pairs}
        case [("$float", text)]:
            return float(text)
        case items:
            return {key: unpack(item, tensors) for key, item in items}


# ------------------------------------------------------------------------------------------ one checkpoint


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint whose files were all there, with the right hashes, when it was found.

    score    what the best one is chosen by (higher is better), or None
    skipped  newer ones that could not be used, each with the reason
    """

    path: Path
    step: int
    score: float | None
    parts: tuple[str, ...]
    skipped: tuple[str, ...] = ()

    def load(self, part: str) -> Any:
        """The value saved as `part`, tensors on the CPU."""
        if part not in self.parts:
            raise CheckpointError(
                f"{self.path} has no part {part!r}; it has {', '.join(self.parts)}. It was written by a run made of "
                "other pieces: resume with the recipe that wrote it, or start anew with another --out"
            )
        packed = json.loads((self.path / f"{part}.json").read_text())
        file = self.path / f"{part}.safetensors"
        mapped = load_file(file) if file.exists() else {}
        # copied, because an optimiser keeps what it is given, and these are views of a file that will be deleted
        return unpack(packed, {name: tensor.clone() for name, tensor in mapped.items()})


def verify(path: Path) -> Checkpoint:
    """Reads every byte of the checkpoint at `path` and compares it with its manifest.

    Errors: CheckpointError saying which file is missing, cut or altered; NewerFormat.
    """
    try:
        manifest = json.loads((path / "manifest.json").read_text())
        form, step, score = manifest["format"], manifest["step"], manifest["score"]
        parts, files = tuple(manifest["parts"]), manifest["files"]
    except FileNotFoundError:
        raise CheckpointError(f"{path.name}: manifest.json is missing") from None
    except (ValueError, KeyError, TypeError) as error:
        raise CheckpointError(f"{path.name}: manifest.json cannot be read ({error})") from None
    if form > FORMAT:
        raise NewerFormat(
            f"{path} has format {form}, and this version of Ludus reads up to {FORMAT}; "
            "type `pip install -U ludus`, or resume with the version that wrote it"
        )
    for name, wanted in files.items():
        file = path / name
        if not file.exists():
            raise CheckpointError(f"{path.name}: {name} is missing")
        if (size := file.stat().st_size) != wanted["bytes"]:
            raise CheckpointError(
                f"{path.name}: {name} has {size} bytes, {wanted['bytes']} were written"
            )
        if _sha256(file) != wanted["sha256"]:
            raise CheckpointError(
                f"{path.name}: {name} was altered after it was written (other sha256)"
            )
    return Checkpoint(path, step, score, parts)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


# ------------------------------------------------------------------------------------------ saving


@dataclass(frozen=True)
class Keep:
    """Which checkpoints stay: the newest `last`, the one with the best score, and every `every`-th step (0: none)."""

    last: int = 2
    best: bool = True
    every: int = 0

    def __post_init__(self) -> None:
        if self.last < 1:
            raise ValueError(
                f"Keep(last={self.last}) would delete the checkpoint just written; give 1 or more"
            )


KEEP = Keep()


def save(
    folder: Path,
    step: int,
    parts: Mapping[str, Any],
    *,
    score: float | None = None,
    keep: Keep = KEEP,
) -> Checkpoint:
    """Writes the checkpoint of `step`: each part a tree of tensors and JSON values (see `pack`).

    score  what the best is kept by, higher is better; None, or a number that is not finite, for not known

    It returns after everything is on the disk and was read back. Tensors are written before it returns, so the caller
    may train on at once. One writer a folder.

    Errors: CheckpointError if there is no room (older checkpoints are untouched) or if what was written reads back
    otherwise; TypeError for a part that cannot be stored.
    """
    for name in parts:
        if not re.fullmatch(r"[a-z][a-z0-9_]*", name) or name == "manifest":
            raise ValueError(f"a part is called {name!r}; use a-z, 0-9 and _, and not 'manifest'")
    if score is not None and not math.isfinite(score):
        score = None
    packed = {name: pack(value) for name, value in parts.items()}
    texts = {name: json.dumps(shape, indent=1).encode() for name, (shape, _) in packed.items()}
    need = sum(map(len, texts.values()))
    need += sum(tensor.nbytes for _, tensors in packed.values() for tensor in tensors.values())

    folder.mkdir(parents=True, exist_ok=True)
    _sweep(folder)
    final = folder / f"step-{step:08d}"
    temporary = folder / f"{_WRITING}{final.name}"
    if need > free_bytes(folder):
        raise _no_room(folder, step, need)
    try:
        temporary.mkdir()
        files: dict[str, dict[str, Any]] = {}
        for name, (_, tensors) in packed.items():
            write_synced(temporary / f"{name}.json", texts[name])
            if tensors:
                save_file(tensors, temporary / f"{name}.safetensors")
                sync(temporary / f"{name}.safetensors")
        for file in sorted(temporary.iterdir()):
            files[file.name] = {"bytes": file.stat().st_size, "sha256": _sha256(file)}
        manifest = {
            "format": FORMAT,
            "step": step,
            "score": score,
            "parts": list(parts),
            "files": files,
        }
        write_synced(temporary / "manifest.json", json.dumps(manifest, indent=1).encode())
        sync(temporary)
        if final.exists():  # damaged: had it been sound, the run would have gone on from it
            _delete(final)
        os.rename(temporary, final)
        sync(folder)
        write_atomic(folder / "latest", f"{final.name}\n".encode())
    except (OSError, SafetensorError) as error:
        shutil.rmtree(temporary, ignore_errors=True)
        if is_full(error):
            raise _no_room(folder, step, need) from error
        raise
    written = verify(final)
    _prune(folder, written, keep)
    return written


def _no_room(folder: Path, step: int, need: int) -> CheckpointError:
    return CheckpointError(
        f"no room for the checkpoint of step {step} in {folder}: it needs {need} bytes ({human(need)}), "
        f"{free_bytes(folder)} ({human(free_bytes(folder))}) are free, or a quota or file size limit is reached. "
        "Earlier checkpoints are untouched. Free some space, then go on with --resume; Keep(last=1) needs least"
    )


def _steps(folder: Path) -> dict[int, Path]:
    """The finished checkpoints, oldest first."""
    found = (
        [(_STEP.fullmatch(path.name), path) for path in folder.iterdir()] if folder.exists() else []
    )
    return dict(sorted((int(match.group(1)), path) for match, path in found if match))


def _sweep(folder: Path) -> None:
    """Removes what killed saves and killed deletions left."""
    for path in folder.iterdir():
        if path.name.startswith((_WRITING, _DELETED)):
            shutil.rmtree(path)


def _delete(path: Path) -> None:
    """Renames first, so that a kill half-way leaves no step-* directory with files missing."""
    doomed = path.with_name(f"{_DELETED}{path.name}")
    os.rename(path, doomed)
    shutil.rmtree(doomed)


def _score(path: Path) -> float | None:
    try:
        return json.loads((path / "manifest.json").read_text())["score"]
    except (OSError, ValueError, KeyError):  # damaged: not the best of anything
        return None


def _prune(folder: Path, newest: Checkpoint, keep: Keep) -> None:
    """Deletes older checkpoints that `keep` does not name. `newest` has been read back from the disk by now."""
    steps = {step: path for step, path in _steps(folder).items() if step <= newest.step}
    kept = set(list(steps)[-keep.last :])
    if keep.every:
        kept |= {step for step in steps if step % keep.every == 0}
    scores = {step: score for step, path in steps.items() if (score := _score(path)) is not None}
    if keep.best and scores:
        kept.add(max(scores, key=lambda step: (scores[step], -step)))  # the earliest of equals
    for step, path in steps.items():
        if step not in kept:
            _delete(path)


# ------------------------------------------------------------------------------------------ finding


def latest(folder: Path) -> Checkpoint | None:
    """The newest sound checkpoint, or None where none was ever finished. Deletes nothing.

    Errors: CheckpointError if there are checkpoints and none is sound (starting again silently would hide the loss).
    """
    skipped: list[str] = []
    for path in reversed(_steps(folder).values()):
        try:
            found = verify(path)
        except NewerFormat:
            raise
        except CheckpointError as error:
            skipped.append(str(error))
            continue
        if skipped:
            logger.warning(
                "using %s, because of newer ones: %s", found.path.name, "; ".join(skipped)
            )
        return replace(found, skipped=tuple(skipped))
    if skipped:
        raise CheckpointError(
            f"no usable checkpoint in {folder}: {'; '.join(skipped)}. Put back a copy of one of them and type --resume "
            f"again, or move {folder} away to begin from step 0 in this run folder"
        )
    return None
