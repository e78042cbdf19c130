"""What worlds show of themselves beside their observations: the further routes of AgentGym's servers."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
from tests.serving import running

from ludus.envs.babyai import BabyAI
from ludus.envs.games.books import generated
from ludus.envs.games.maze import Maze
from ludus.envs.games.wordle import Wordle, colours


def begun(env: Any) -> Any:
    return asyncio.run(env.reset(env.tasks()[0], 0)).state


def test_textcraft_shows_its_recipes_and_its_goal():
    env = generated()
    state = begun(env)
    shown = env.views["commands"](state)
    assert isinstance(shown, list) and len(shown) == len(state.shown)
    assert all(line.startswith("craft ") and " using " in line for line in shown)
    assert env.views["goal"](state) == state.goal


def test_the_maze_shows_its_actions():
    env = Maze()
    assert env.views["available_actions"](begun(env)) == ["up", "down", "left", "right"]


def test_wordle_shows_the_words_that_may_still_be_it():
    env = Wordle()
    state = begun(env)
    assert len(env.possible(state)) == len(env.words_known)
    step = asyncio.run(env.step(state, " ".join(env.words_known[0])))
    left = env.possible(step.state)
    assert state.secret in left and len(left) < len(env.words_known)
    seen = colours(env.words_known[0], state.secret)
    assert all(colours(env.words_known[0], word) == seen for word in left)


def test_babyai_shows_a_picture_that_json_can_say():
    with (
        running(BabyAI(levels=(1,), train=2, test=2)) as (url, _),
        httpx.Client(base_url=url) as to,
    ):
        id_ = to.post("/create").json()["id"]
        to.post("/reset", json={"id": id_, "data_idx": 0})
        picture = to.post("/render", json={"id": id_}).json()["$image"]
        assert picture.startswith("iVBOR")  # PNG in base64
