"""ScienceWorld with players: plans, what is kept, and games on the real Java process."""

from __future__ import annotations

import asyncio
import shutil
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("scienceworld")

from ludus.envs import science_games
from ludus.envs.processes import Pool
from ludus.envs.science_games import ROOMS, ScienceGames, planned
from ludus.envs.scienceworld import ScienceWorld
from ludus.envs.world import World, mixed, play
from ludus.types import End

LONGEST_LIVED = "7-1"


def test_a_plan_walks_at_once():
    gold = ("open door to kitchen", "go to kitchen", "open door to outside", "go to outside")
    assert planned((*gold, "focus on crocodile", "wait1"), "hallway") == (
        "teleport to outside",
        "focus on crocodile",
        "wait1",
    )
    # where nothing is walked, the place is where it begins; a later walk is one of its own
    there = ("focus on baby baby wolf", *gold[:2], "look around", "move wolf to red box")
    assert planned(there, "outside") == (
        "teleport to outside",
        "focus on baby wolf",
        "teleport to kitchen",
        "move wolf to red box",
    )


def test_tasks_are_those_of_scienceworld_with_walks_told():
    games, plain = ScienceGames(), ScienceWorld()
    assert isinstance(games, World)
    assert [t.extras for t in games.tasks("test")] == [t.extras for t in plain.tasks("test")]
    assert "teleport to LOC" in games.tasks("train")[0].prompt[0].text
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(games.reset(plain.tasks("train")[0], 0))


# ---------------------------------------------------------------------------------------------- with the simulator

java = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime is installed")


@pytest.fixture(scope="module")
def games() -> Iterator[ScienceGames]:
    made = ScienceGames(kinds=(LONGEST_LIVED,), pool=Pool(most=1))
    yield made
    made.pool.close()
    made.planning.close()


@java
def test_the_expert_wins_from_wherever_a_beginner_left_off(games: ScienceGames):
    for seed, task in enumerate(games.tasks("test")[:3]):
        rng = np.random.default_rng(seed)
        best = asyncio.run(play(games, task, 0, mixed(games, 1.0), rng, 4))
        assert best.end is End.SOLVED and best.reward == 1 and len(best.turns) == 2
        state = asyncio.run(games.reset(task, 0)).state
        for action in ("look around", "teleport to foundry", "open sesame"):
            state = asyncio.run(games.step(state, action)).state
        rest = []
        while not state.over:
            rest.append(games.expert(state))
            state = asyncio.run(games.step(state, rest[-1])).state
        assert rest == [action for action, _ in best.turns]


@java
def test_beginners_go_anywhere_and_name_what_they_see(
    games: ScienceGames, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(science_games, "SAMPLED", 2)  # a solution takes most of a second
    task = games.tasks("train")[0]
    played = [
        asyncio.run(play(games, task, 0, mixed(games, 0.0), np.random.default_rng(seed), 4))
        for seed in range(8)
    ]
    told = [(action, step) for game in played for action, step in game.turns]
    assert {action.split()[0] for action, _ in told} == {"teleport", "look", "focus"}
    assert all(step.info["valid"] for _, step in told)
    known = set(games.words())
    assert {word for room in ROOMS for word in room.split()} < known
    for action, _ in told:
        assert set(action.split()) <= known


@java
def test_what_was_done_before_is_answered_from_memory_and_what_is_new_goes_on_from_there(
    games: ScienceGames,
):
    task = games.tasks("test")[0]
    start = asyncio.run(games.reset(task, 0))
    first = asyncio.run(games.step(start.state, "teleport to kitchen"))
    away = asyncio.run(games.step(start.state, "teleport to foundry"))
    looked = asyncio.run(games.step(first.state, "look around"))
    assert str(first.observation).endswith(str(looked.observation))
    assert "called the kitchen" in str(first.observation)
    assert "called the foundry" in str(away.observation)
    with_closed = replace(games, pool=Pool(most=1))
    with_closed.pool.close()
    assert asyncio.run(with_closed.step(first.state, "look around")) == looked
    with pytest.raises(RuntimeError, match="closed"):
        asyncio.run(with_closed.step(first.state, "wait1"))
    # the same is shown where nothing is kept
    fresh = replace(games, kept=OrderedDict())
    state = asyncio.run(fresh.reset(task, 0)).state
    for action in ("teleport to kitchen", "look around"):
        step = asyncio.run(fresh.step(state, action))
        state = step.state
    assert step.observation == looked.observation


@java
def test_players_ask_a_process_of_their_own_since_the_loop_that_they_block_hands_none_back(
    games: ScienceGames, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(science_games, "SAMPLED", 1)
    state = asyncio.run(games.reset(games.tasks("test")[0], 0)).state
    alone = replace(games, kept=OrderedDict(), pool=Pool(most=1))
    alone.pool.close()  # whoever asks this one fails; one whose processes are all in use would hang

    async def inside() -> tuple[str, tuple[str, ...]]:
        return alone.expert(state), alone.words()

    action, words = asyncio.run(inside())
    assert action.startswith("teleport to ") and {"greenhouse", "foundry"} <= set(words)


def test_what_is_kept_is_of_its_own_simplifications_and_bounded(monkeypatch: pytest.MonkeyPatch):
    played: list[tuple[object, ...]] = []

    class Recorder:
        """A process that knows no Java."""

        usable, story = True, ()

        def kill(self) -> None:
            pass

    def answered(simulator: object, story: tuple[object, ...]) -> tuple[str, int, bool]:
        played.append(story)
        return f"at {story[2]!r}", 0, False

    monkeypatch.setattr(science_games, "Simulator", Recorder)
    monkeypatch.setattr(science_games, "_played", answered)
    easy = ScienceGames(kinds=(LONGEST_LIVED,))
    hard = replace(easy, simplifications="")
    task = easy.tasks("train")[0]
    for _ in range(2):
        assert asyncio.run(easy.reset(task, 0)).observation == "at 'easy'"
        assert asyncio.run(hard.reset(task, 0)).observation == "at ''"
    assert len(played) == 2 and hard.kept is easy.kept
    plans = {easy: ("wait1",), hard: ("look around",)}
    for world, plan in plans.items():
        world.kept[("lifespan-longest-lived", 0, world.simplifications, "plan")] = plan
    start = science_games.Position("lifespan-longest-lived", 0, ("you see:",))
    assert easy.expert(start) == "wait1" and hard.expert(start) == "look around"

    monkeypatch.setattr(science_games, "KEPT", 3)
    for variation in range(5):
        asyncio.run(easy._answer("lifespan-longest-lived", variation, ("look around",)))
    assert [key[1] for key in easy.kept] == [2, 3, 4]
