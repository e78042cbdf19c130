"""Checkpoints: exact round trips, what is kept, and which is found."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from ludus.train import checkpoint
from ludus.train.checkpoint import CheckpointError, Keep, NewerFormat, latest, pack, save, unpack


def same(a: Any, b: Any) -> bool:
    """Equal in every bit: types, key types and order, dtypes, signs of zeros, NaN."""
    if type(a) is not type(b):
        return False
    if isinstance(a, torch.Tensor):
        return a.dtype == b.dtype and a.shape == b.shape and raw(a) == raw(b)
    if isinstance(a, np.ndarray):
        return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(same, a, b))
    if isinstance(a, float):
        return repr(a) == repr(b)
    return a == b


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.contiguous().flatten().view(torch.uint8).numpy().tobytes()


def through_disk(folder: Path, tree: Any) -> Any:
    return save(folder, 1, {"part": tree}).load("part")


# ------------------------------------------------------------------------------------------ round trips

scalars = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
keys = st.text(max_size=4) | st.integers()
trees = st.recursive(
    scalars,
    lambda inside: (
        st.lists(inside, max_size=3)
        | st.lists(inside, max_size=3).map(tuple)
        | st.dictionaries(keys, inside, max_size=3)
    ),
    max_leaves=12,
)


@given(trees)
@settings(max_examples=150, deadline=None)
def test_any_tree_of_scalars_survives_json(tree: Any) -> None:
    shape, tensors = pack(tree)
    assert same(unpack(json.loads(json.dumps(shape)), tensors), tree)


def test_our_own_marks_are_no_trap() -> None:
    """A dict that looks like one of the marks comes back as the dict it was."""
    for tree in (
        {"$tensor": "x"},
        {"$float": "nan"},
        {"$items": []},
        {"$tuple": [1]},
        {"a": {"$x": 1, "b": 2}},
    ):
        shape, tensors = pack(tree)
        assert unpack(json.loads(json.dumps(shape)), tensors) == tree


def test_tensors_of_every_kind_keep_their_bits(tmp_path: Path) -> None:
    base = torch.arange(12, dtype=torch.float32).reshape(3, 4)
    tree = {
        "bf16": torch.tensor([1 / 3, -0.0, math.inf, math.nan]).bfloat16(),
        "f64": torch.tensor([1 / 3], dtype=torch.float64),
        "int": torch.tensor([2**62, -1]),
        "bool": torch.tensor([True, False]),
        "bytes": torch.get_rng_state(),
        "scalar": torch.tensor(7.0),
        "empty": torch.zeros(0, 3),
        "transposed": base.T,
        "a row of it": base[1],
        "numpy": np.arange(4, dtype=np.uint64),
        "numpy scalar": np.array(1.5, dtype=np.float32),
        "__metadata__": torch.ones(1),
        "a/b": torch.ones(2),
        "a": {"b": torch.zeros(2)},
        "inside": [(torch.ones(1), {3: torch.zeros(1)})],
    }
    assert same(through_disk(tmp_path, tree), tree)


def test_tied_weights_are_stored_once_and_come_back_as_one(tmp_path: Path) -> None:
    weight = nn.Parameter(torch.randn(64, 64))
    written = save(tmp_path, 1, {"model": {"embed": weight, "head": weight}})
    assert (written.path / "model.safetensors").stat().st_size < 64 * 64 * 4 + 500
    back = written.load("model")
    assert back["embed"] is back["head"] and raw(back["embed"]) == raw(weight.detach())


def test_what_cannot_be_stored_is_named_with_its_place(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"cannot store a set at 'curriculum/seen'"):
        save(tmp_path, 1, {"loop": {"curriculum": {"seen": {1, 2}}}})
    assert latest(tmp_path) is None
    with pytest.raises(ValueError, match="manifest"):
        save(tmp_path, 1, {"manifest": 1})


# ------------------------------------------------------------------------------------------ optimisers


def model_and_adam(seed: int = 0) -> tuple[nn.Module, torch.optim.AdamW]:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(5, 7), nn.Tanh(), nn.Linear(7, 1))
    groups = [
        {"params": list(model[0].parameters()), "lr": 1 / 3},
        {"params": list(model[2].parameters()), "betas": (0.8, 0.95), "weight_decay": 0.1},
    ]
    return model, torch.optim.AdamW(groups, lr=1e-2, amsgrad=True)


def train(model: nn.Module, adam: torch.optim.Optimizer, steps: range) -> list[float]:
    losses = []
    for step in steps:
        x = torch.randn(8, 5, generator=torch.Generator().manual_seed(step))
        loss = (model(x) - x.sum(1, keepdim=True)).square().mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
        losses.append(loss.item())
    return losses


def test_adamw_goes_on_to_the_last_bit(tmp_path: Path) -> None:
    model, adam = model_and_adam()
    train(model, adam, range(3))
    written = save(tmp_path, 3, {"model": model.state_dict(), "adam": adam.state_dict()})
    assert same(written.load("adam"), adam.state_dict())
    losses = train(model, adam, range(3, 6))  # what is saved must not follow the live weights

    other, fresh = model_and_adam(seed=1)
    other.load_state_dict(written.load("model"))
    fresh.load_state_dict(written.load("adam"))
    assert train(other, fresh, range(3, 6)) == losses
    assert all(
        raw(a) == raw(b)
        for a, b in zip(other.state_dict().values(), model.state_dict().values(), strict=True)
    )


@pytest.mark.parametrize("lost", ["adam", "bf16 weights"])
def test_what_a_careless_checkpoint_loses_is_seen(tmp_path: Path, lost: str) -> None:
    """The check above can fail: without the optimiser, or with rounded weights, the losses differ."""
    model, adam = model_and_adam()
    train(model, adam, range(3))
    written = save(tmp_path, 3, {"model": model.state_dict(), "adam": adam.state_dict()})
    losses = train(model, adam, range(3, 6))
    other, fresh = model_and_adam(seed=1)
    weights = written.load("model")
    if lost == "bf16 weights":
        weights = {name: weight.bfloat16().float() for name, weight in weights.items()}
        fresh.load_state_dict(written.load("adam"))
    other.load_state_dict(weights)
    assert train(other, fresh, range(3, 6)) != losses


def test_what_was_loaded_outlives_the_file(tmp_path: Path) -> None:
    tensor = torch.randn(1000)
    written = save(tmp_path, 1, {"part": {"w": tensor}})
    back = written.load("part")["w"]
    (written.path / "part.safetensors").write_bytes(b"")
    assert raw(back) == raw(tensor)


# ------------------------------------------------------------------------------------------ keeping and finding


def steps(folder: Path) -> list[int]:
    return sorted(int(path.name[5:]) for path in folder.glob("step-*"))


def test_it_keeps_the_last_the_best_and_every_nth(tmp_path: Path) -> None:
    scores = {1: 0.1, 2: 0.9, 3: 0.9, 4: 0.2, 5: math.nan, 6: 0.3, 7: None, 8: 0.1, 9: 0.0}
    for step, score in scores.items():
        save(tmp_path, step, {"a": step}, score=score, keep=Keep(last=2, every=4))
    assert steps(tmp_path) == [
        2,
        4,
        8,
        9,
    ]  # 2: the earlier of the two best; 4 and 8: every 4th; 8 and 9: the last
    assert (tmp_path / "latest").read_text() == "step-00000009\n"


def test_none_before_the_first_and_then_the_newest(tmp_path: Path) -> None:
    assert latest(tmp_path / "nowhere") is None
    save(tmp_path, 9, {"a": 1})
    save(tmp_path, 10, {"a": 2, "b": [1.5]}, score=0.25)
    found = latest(tmp_path)
    assert found is not None
    assert (found.step, found.score, found.parts, found.skipped) == (10, 0.25, ("a", "b"), ())
    assert found.load("a") == 2
    with pytest.raises(CheckpointError, match="no part 'critic'; it has a, b"):
        found.load("critic")


def test_a_later_format_is_refused_not_passed_over(tmp_path: Path) -> None:
    save(tmp_path, 1, {"a": 1})
    written = save(tmp_path, 2, {"a": 1})
    manifest = written.path / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"format": 1', '"format": 99'))
    with pytest.raises(NewerFormat, match=r"format 99.*reads up to 1.*pip install -U ludus"):
        latest(tmp_path)


def test_files_are_plain_and_say_nothing_of_this_machine(tmp_path: Path) -> None:
    written = save(tmp_path, 1, {"loop": {"step": 1, "seen": [0.1]}, "model": {"w": torch.ones(2)}})
    names = {path.name for path in written.path.iterdir()}
    assert names == {"manifest.json", "loop.json", "model.json", "model.safetensors"}
    assert json.loads((written.path / "loop.json").read_text()) == {"step": 1, "seen": [0.1]}
    for path in written.path.iterdir():
        assert str(tmp_path).encode() not in path.read_bytes()


def test_keep_must_keep_something() -> None:
    with pytest.raises(ValueError, match="give 1 or more"):
        Keep(last=0)
    assert Keep(last=2, best=True, every=0) == checkpoint.KEEP
