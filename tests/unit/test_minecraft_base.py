"""The texts of the real book's base: what they are made of, what they must not hold, and that they teach."""

from __future__ import annotations

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
import torch

from ludus.envs.games import planner
from ludus.envs.games.books import minecraft
from ludus.envs.games.textcraft import act, opening
from ludus.models import base, minecraft_base, tiny
from ludus.models.minecraft_base import DEEP, MIDDLE, Mix, Phase, Settings

MIX = Mix(2, 4, 0.3, 0.3, 0.5, MIDDLE, 0.5, 3)


def rng(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_shipped_base_is_small_and_says_what_it_was_made_of() -> None:
    folder = base.folder("minecraft")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4 * 2**20
    told = json.loads((folder / "base.json").read_text())
    assert told["settings"] == json.loads(json.dumps(asdict(Settings())))


def test_a_renamed_book_is_the_same_game() -> None:
    """The expert needs as many actions, and every action of the one is the other's in other words."""
    env = minecraft()
    for index in range(0, 60, 7):
        state = env.start("train", index)
        other = minecraft_base.renamed(state, rng(index))
        assert other is not None
        assert len(other.shown) == len(state.shown)
        assert len(opening(other).split()) == len(opening(state).split())
        assert len(planner.plan(other)) == len(planner.plan(state))
        for action in planner.plan(other):
            inventory, _ = act(other, action)
            other = replace(other, inventory=inventory)
        assert other.solved


def test_only_training_goals_are_renamed() -> None:
    env = minecraft()
    goals = [
        env.start("train", i).goal for d in (1, 2, 3) for i in minecraft_base.training_goals(d)
    ]
    held_out = {env.start("test", i).goal for i in range(len(env.depths["test"]))}
    assert len(goals) > 400 and not held_out & set(goals)


def test_no_text_holds_the_real_book() -> None:
    """Not one of the commands of a renamed opening is a command of Minecraft, but for a chance meeting of words."""
    real = {str(recipe) for recipe in minecraft().start("train", 0).book.recipes}
    lines = [
        line
        for seed in range(20)
        for line in opening(minecraft_base.real(rng(seed), DEEP)).splitlines()
        if line.startswith("craft")
    ]
    assert len(lines) > 100 and sum(line in real for line in lines) <= 1


def test_a_drill_asks_for_every_recipe_by_name() -> None:
    state = minecraft_base.start(replace(MIX, home=1.0), rng())
    (prompt, *lines), worth = minecraft_base.drill(state, rng())
    assert worth == (0.0, 1.0) and "Goal" not in prompt
    told = {f"{asked}{answer}" for asked, answer in zip(lines[::2], lines[1::2], strict=True)}
    assert told == {f"{planner.recall(recipe)}\n" for recipe in state.shown}


def test_a_step_depends_on_its_number_alone() -> None:
    tokenizer, settings = tiny.tokenizer(), Settings()
    one, again, other = (
        minecraft_base.batch(MIX, step, settings, tokenizer)[0] for step in (3, 3, 4)
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, again, strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(one, other, strict=False))


def test_the_rates_rise_and_fall_in_each_phase() -> None:
    phase = Phase((replace(MIX, steps=6), replace(MIX, steps=4)), rate=0.5, decay=0.4)
    shares = [share for _, share in minecraft_base.schedule(phase, warmup=2)]
    assert shares == pytest.approx([0.25, *[0.5] * 6, 0.375, 0.25, 0.125])


def test_the_command_builds_a_model_that_has_learnt_something() -> None:
    size = tiny.Size(32, 2, 2, 1, 16, 64)
    phases = (Phase((replace(MIX, steps=30),)),)
    settings = Settings(size=size, phases=phases, warmup=5)
    before, _ = minecraft_base.build(replace(settings, phases=()))
    after, tokenizer = minecraft_base.build(settings)
    losses = []
    for module in (before, after):
        from ludus.engines.local.model import CausalModel
        from ludus.models.base import loss_of

        with torch.no_grad():
            batch = minecraft_base.batch(MIX, 99, settings, tokenizer)
            losses.append(float(loss_of(CausalModel(module), *batch)))
    assert losses[1] < losses[0] - 1.0, losses
