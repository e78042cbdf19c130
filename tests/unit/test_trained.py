"""A model that another recipe trains: made once for each seed, resumed, and made anew for another recipe."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from ludus.advantages.credit import Reinforce
from ludus.curricula.horizon import fixed
from ludus.engines.local.build import Local, build, open_model
from ludus.envs.small.grid import grid
from ludus.losses.clipped import clipped_ratio
from ludus.models import tiny
from ludus.models.trained import Trained
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train import run as running
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

WORLD = grid(3, 3)
BASE = WorldBase(WORLD, steps=2, games=2, turns=2, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64))
FIRST = Recipe(
    env=WORLD,
    strategy=AgentLoop(Sampling(max_tokens=3)),
    credit=Reinforce(whitened=True),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    entropy=0.1,  # so that something is learnt where nobody wins
    horizon=fixed(1),
    model=BASE,
    optim=Optim(lr=1e-2),
    tasks=2,
    answers=2,
    steps=2,
    evaluation=Evaluation(tasks=2, max_turns=1),
)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    return tmp_path


def weights(model: object) -> torch.Tensor:
    opened, _ = open_model(model, device="cpu")  # type: ignore[arg-type]
    return torch.cat([p.detach().flatten() for p in opened.module.parameters()])


def test_made_once_for_each_seed(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = Trained(FIRST)
    zero, one = stage.folder(0), stage.folder(1)
    assert zero != one and (zero / "config.json").exists()
    assert not torch.equal(weights(str(zero)), weights(str(one)))
    assert not torch.equal(weights(str(zero)), weights(BASE))
    assert (
        len(list((cache / "stages").iterdir())) == 2 and len(list((cache / "bases").iterdir())) == 1
    )
    monkeypatch.setattr(Local, "save", None)  # whoever trains again fails
    assert (Trained(FIRST).folder(0), Trained(FIRST).folder(1)) == (zero, one)
    assert torch.equal(weights(Trained(FIRST)), weights(str(zero)))


def test_stopped_it_goes_on(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = weights(Trained(FIRST))
    kept = Trained(FIRST).folder(0).parent
    kept.rename(cache / "whole")
    publish = running.train

    def stopped(*args: object, **settings: object) -> object:
        for state, report in publish(*args, **settings):  # type: ignore[arg-type]
            if report.step == 2:
                raise KeyboardInterrupt
            yield state, report

    with monkeypatch.context() as now, pytest.raises(KeyboardInterrupt):
        now.setattr(running, "train", stopped)
        Trained(FIRST).folder(0)
    assert kept.exists() and not (kept / "summary.json").exists()
    assert torch.equal(weights(Trained(FIRST)), whole)
    assert json.loads((kept / "summary.json").read_text())["steps"] == 2


def test_what_it_depends_on() -> None:
    stages = [
        Trained(FIRST),
        Trained(replace(FIRST, steps=3)),
        Trained(replace(FIRST, optim=Optim(lr=1e-3))),
        Trained(replace(FIRST, model=replace(BASE, share=0.9))),
    ]
    assert len({stage.fingerprint for stage in stages}) == 4
    assert Trained(replace(FIRST)).fingerprint == stages[0].fingerprint
    # the weights of another player of the same run lie beside its own
    assert Trained(FIRST, "verifier").fingerprint == stages[0].fingerprint


def test_stages_follow_one_another() -> None:
    second = replace(FIRST, model=Trained(FIRST), reference=True)
    machine = build(second, device="cpu", seed=1)
    assert machine.learner.reference is not None
    anchor = torch.cat([p.flatten() for p in machine.learner.reference.module.parameters()])
    assert torch.equal(anchor, weights(str(Trained(FIRST).folder(1))))
