"""A base that sees, from games of coloured shapes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ludus.engines.local.model import load
from ludus.envs.small.grid import grid
from ludus.envs.small.shapes import Shapes
from ludus.models import tiny
from ludus.models.shapes_base import ShapesBase, within

SMALL = ShapesBase(
    Shapes(train=30, test=10),
    share=0.3,
    clear=1,
    steps=3,
    games=4,
    warmup=1,
    muon=0.02,
    size=tiny.Size(32, 1, 2, 1, 16, 64),
    eye=16,
)


def test_it_is_made_once_with_its_tower(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    model, _ = load(SMALL.folder(show=False), device="cpu")
    assert model.pictures is not None and model.pictures.vectors == 9
    first = SMALL.model(SMALL.processor().tokenizer)
    bodies: list[Any] = [first.base_model, model.module.base_model]
    before, after = (body.vision_tower.state_dict() for body in bodies)
    assert any(not torch.equal(before[name], after[name]) for name in before)  # it learns to see
    monkeypatch.setattr(ShapesBase, "build", None)
    again, _ = load(SMALL.folder(), device="cpu")
    for one, two in zip(model.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_what_it_depends_on() -> None:
    others = [replace(SMALL, clear=2), replace(SMALL, eye=32), replace(SMALL, world=Shapes())]
    assert len({SMALL.fingerprint, *(other.fingerprint for other in others)}) == 4
    with pytest.raises(ValueError, match="plays Shapes"):
        replace(SMALL, world=grid(3, 3))


def test_answers_weigh_more_up_to_their_end() -> None:
    ids = np.array([7, 1, 5, 5, 2, 7, 1, 5, 2])
    assert within(ids, 1, 2).tolist() == [0, 0, 1, 1, 1, 0, 0, 1, 1]
