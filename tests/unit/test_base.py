"""The base model of the small world: shipped small, made by a command, the same every time."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest
import torch

from ludus.data.render import Renderer
from ludus.envs.games.planner import reason
from ludus.models import base, tiny
from ludus.models.base import Settings, Stage
from ludus.recipes.agents import agentgym_rl
from ludus.types import Message

SMALL = dataclasses.replace(
    Settings(),
    size=tiny.Size(32, 1, 2, 1, 16, 64),
    stages=(Stage(2, 0.7), Stage(1, 0.1)),
    episodes=4,
)


def test_the_shipped_base_is_small_and_says_what_it_was_made_of() -> None:
    folder = base.folder("textcraft")
    assert sum(file.stat().st_size for file in folder.iterdir()) <= 4 * 2**20
    told = json.loads((folder / "base.json").read_text())
    assert told["settings"] == json.loads(json.dumps(asdict(Settings())))
    with pytest.raises(FileNotFoundError, match="shipped: textcraft"):
        base.folder("other")


def test_building_is_reproducible_and_depends_on_the_seed() -> None:
    one, two = (base.build(SMALL)[0].state_dict() for _ in range(2))
    other = base.build(dataclasses.replace(SMALL, seed=2))[0].state_dict()
    assert all(torch.equal(one[name], two[name]) for name in one)
    assert not all(torch.equal(one[name], other[name]) for name in one)
    assert base.fingerprint(SMALL) != base.fingerprint(dataclasses.replace(SMALL, seed=2))


def test_a_base_is_made_once(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    where = base.cached(SMALL)
    assert (where / "model.safetensors").exists() and where.name == base.fingerprint(SMALL)
    monkeypatch.setattr(base, "build", None)
    assert base.cached(SMALL) == where


def test_its_texts_are_those_of_the_agent_loop() -> None:
    """A game as it is pre-trained on is, token for token, a game as the renderer and the loop build it."""
    tokenizer = tiny.tokenizer()
    world = agentgym_rl.recipe.env
    state = world.start("train", 0)  # type: ignore[attr-defined]
    lines, action = reason(state)
    rng = np.random.default_rng(0)
    pieces = base.episode(state, rng, thought=1.0, turns=1, peek=0.0)
    ids = [
        token
        for piece in pieces
        for token in tokenizer(piece, add_special_tokens=False)["input_ids"]
    ]
    renderer = Renderer(tokenizer)
    task = world.tasks("train")[0]
    from ludus.envs.games.textcraft import opening

    root = renderer.open([*task.prompt, Message("user", opening(state))])
    said = tokenizer(f"{lines}\nAction: {action}" + tiny.END, add_special_tokens=False)["input_ids"]
    assert ids == [*root.tokens.tolist(), *said]


def test_no_evaluation_task_is_trained_on() -> None:
    """Books are drawn with seeds that no recipe uses; here: no book of the first steps is a held-out one."""
    from ludus.envs.games.books import fingerprint

    world = agentgym_rl.recipe.env
    held = {fingerprint(world.start("test", i)) for i in range(256)}  # type: ignore[attr-defined]
    plain, deeper = base.worlds(SMALL)
    drawn = {fingerprint(w.start("train", i)) for w in (plain, deeper) for i in range(12)}
    assert not held & drawn
