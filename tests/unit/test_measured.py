"""A recipe's players measured as they are: a whole summary, the same for the same seed, and nothing learnt."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.grid import grid
from ludus.losses.clipped import clipped_ratio
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.measured import Measured
from ludus.train.recipe import Evaluation, Recipe
from ludus.train.study import Study, run_study, silent
from ludus.types import Sampling

WORLD = grid(3, 3)
RECIPE = Recipe(
    env=WORLD,
    strategy=AgentLoop(Sampling(max_tokens=3)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    horizon=fixed(2),
    model="nowhere",
    evaluation=Evaluation(tasks=3, answers=2, max_turns=2),
)
BASE = WorldBase(WORLD, steps=2, games=2, turns=2, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64))


def test_what_it_tells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    study = Measured(RECIPE, BASE, lambda groups: {"groups": float(len(groups))})
    assert isinstance(study, Study)
    told = run_study(study, tmp_path / "run", seed=3)
    assert told["groups"] == 3 and told["turns/longest"] <= 2 and "success" in told
    assert told == dict(Measured(RECIPE, BASE, study.more).measure(3, tmp_path, silent))
