"""A base that makes itself from games of a small world."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ludus.engines.local.build import open_model
from ludus.envs.small.grid import grid
from ludus.models import tiny
from ludus.models.world_base import Stage, WorldBase

SMALL = WorldBase(
    grid(3, 3), steps=4, games=4, turns=4, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64)
)


def test_it_is_made_once_and_opens_as_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    model, renderer = open_model(SMALL)
    assert renderer.tokenizer.decode(renderer.tokenizer.encode("right")) == "right"
    monkeypatch.setattr(WorldBase, "build", None)
    again, _ = open_model(SMALL)
    for one, two in zip(model.module.parameters(), again.module.parameters(), strict=True):
        assert torch.equal(one, two)


def test_muon_moves_the_matrices() -> None:
    one, _ = SMALL.build()
    two, _ = replace(SMALL, muon=0.02).build()
    assert all(torch.isfinite(p).all() for p in two.parameters())
    assert not torch.equal(
        next(p for p in one.parameters() if p.dim() == 2),
        next(p for p in two.parameters() if p.dim() == 2),
    )


def test_stages_come_one_after_the_other() -> None:
    texts = list(replace(SMALL, share=0.0, first=(Stage(3, 1.0),)).texts())
    assert len(texts) == 7
    good = next(iter(replace(SMALL, share=1.0).texts()))
    poor = list(replace(SMALL, share=0.0, steps=7).texts())
    assert texts[0] == good and texts[3:] == poor[3:]
    assert replace(SMALL, first=(Stage(3, 1.0),)).fingerprint != SMALL.fingerprint


def test_what_it_depends_on() -> None:
    assert SMALL.fingerprint == replace(SMALL).fingerprint
    others = [replace(SMALL, seed=2), replace(SMALL, world=grid(3, 4)), replace(SMALL, share=0.3)]
    assert len({SMALL.fingerprint, *(other.fingerprint for other in others)}) == 4


def test_training_makes_the_games_likelier() -> None:
    from ludus.engines.local.model import CausalModel
    from ludus.models.base import loss_of

    losses = []
    for steps in (1, 40):
        base = replace(SMALL, steps=steps, games=8)
        module, tokenizer = base.build()
        text = next(iter(replace(base, seed=9).texts()))
        with torch.no_grad():
            losses.append(float(loss_of(CausalModel(module), *base._encoded(text, tokenizer))))
    assert losses[1] < losses[0] - 1.0, losses
