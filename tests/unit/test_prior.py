"""The probability of references by the first weights, measured once, also from inside a reward."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from ludus.envs.small.sums import Sums
from ludus.models import tiny
from ludus.models.prior import Prior
from ludus.models.world_base import WorldBase

WORLD = Sums(train=4, test=2)
BASE = WorldBase(WORLD, steps=2, games=2, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64))


def test_every_task_has_one_and_it_is_measured_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    prior = Prior(WORLD, BASE)

    async def inside_a_reward() -> float:
        return prior["sums-train-0"]

    first = asyncio.run(inside_a_reward())
    monkeypatch.setattr(WorldBase, "folder", None)
    assert prior["sums-train-0"] == first and len(prior) == 6 and "no task" not in prior
    assert set(prior) == {task.id for split in ("train", "test") for task in WORLD.tasks(split)}
    assert all(0 < p < 1 for p in prior.values())


def test_a_folder_is_measured_as_the_base_in_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    assert dict(Prior(WORLD, str(BASE.folder()))) == dict(Prior(WORLD, BASE))


def test_no_state_is_left_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    closed = []

    class Held(Sums):
        async def close(self, state: object) -> None:
            closed.append(state)

    assert len(Prior(Held(train=4, test=2), str(BASE.folder()))) == len(closed) == 6
