"""TextWorld games on the real package: made the same, won by its own policy, forked, and closed to hostile text."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("textworld")

from textworld.generator.chaining import QuestGenerationError

from ludus.envs.games.textworld import NO_COMMAND, Size, TextWorld, command, made, read
from ludus.envs.guard import checked
from ludus.envs.world import play
from ludus.types import End, Key, Step

ENV = TextWorld(sizes=(Size(2, 4, 2), Size(5, 8, 5)), train=4, test=4)


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Games made in an empty folder, and a working directory in which nothing may appear."""
    folder = tmp_path_factory.mktemp("games")
    work = tmp_path_factory.mktemp("work")
    here = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("LUDUS_CACHE", str(folder))
        os.chdir(work)
        yield folder
        os.chdir(here)
    assert not list(work.iterdir())


def reset(index: int = 0, env: TextWorld = ENV) -> Step:
    return checked(asyncio.run(env.reset(env.tasks("test")[index], 0)), env.name)


def act(step: Step, *actions: str, env: TextWorld = ENV) -> Step:
    for action in actions:
        step = checked(asyncio.run(env.step(step.state, action)), env.name)
    return step


@pytest.mark.parametrize("index", [0, 1])
def test_the_winning_policy_of_the_package_wins_a_held_out_game(index: int):
    rng = np.random.default_rng(0)
    task = ENV.tasks("test")[index]
    game = asyncio.run(play(ENV, task, 0, lambda state, rng: ENV.expert(state), rng, 20))
    assert game.end is End.SOLVED and game.reward == pytest.approx(1)
    assert len(game.turns) == task.difficulty == ENV.sizes[index].quest
    assert all(step.info["valid"] for _, step in game.turns)
    with pytest.raises(ValueError, match="call reset"):
        act(game.turns[-1][1], "look")


def test_a_detour_is_found_back_from():
    """The expert follows what was done meanwhile."""
    step = reset(1)
    rng = np.random.default_rng(1)
    for _ in range(6):
        step = act(step, ENV.beginner(step.state, rng))
    reward = 0.0
    for _ in range(30):
        step = act(step, ENV.expert(step.state))
        reward += step.reward
        if step.end:
            break
    assert step.end is End.SOLVED


def test_a_key_makes_one_game_and_another_key_another(cache: Path, monkeypatch: pytest.MonkeyPatch):
    key = Key(0, ("textworld", "test", 0))
    first = made(Size(2, 4, 2), key)
    story = first.with_suffix(".ni").read_text()
    assert made(Size(2, 4, 2), key) == first  # kept
    assert made(Size(2, 4, 2), key / 1) != first
    monkeypatch.setenv("LUDUS_CACHE", str(cache / "again"))
    again = made(Size(2, 4, 2), key)
    assert again != first and again.with_suffix(".ni").read_text() == story


def test_two_sessions_interleaved_do_not_see_each_other():
    one, other = reset(0), reset(0)
    assert one.observation == other.observation
    act(one, ENV.expert(one.state))
    act(other, "look", "inventory")
    won = act(one, ENV.expert(one.state))
    assert won.end is End.SOLVED
    # the other one still has the whole quest before it
    assert act(other, ENV.expert(other.state)).end is None
    assert act(other, ENV.expert(other.state)).end is End.SOLVED


def test_a_fork_goes_its_own_way():
    won = act(reset(0), "look")
    child = asyncio.run(ENV.fork(won.state))
    while won.end is None:
        won = act(won, ENV.expert(won.state))
    assert not child.over and child.told.score in (0, None)
    forked = Step(child, "")
    seen = []
    while forked.end is None:
        forked = act(forked, ENV.expert(forked.state))
        seen.append(forked.observation)
    assert forked.end is End.SOLVED and len(seen) == 2 and seen[-1] == won.observation


def test_commands_are_listed_on_request():
    step = reset(0, replace(ENV, listed=True))
    assert "You can: " in str(step.observation) and "You can: " not in str(reset(0).observation)
    looked = act(step, "look")
    assert "inventory" in looked.info["actions"] and looked.info["valid"]


def test_what_the_interpreter_would_do_to_files_or_to_itself_is_no_command():
    for hostile in (
        "save",
        "restore",
        "quit",
        "restart",
        "script",
        "transcript on",
        "verbose",
        "y",
        "",
        "\ud800",
    ):
        assert command(hostile) is None
    assert command("take apple, then save") is None
    assert command("look. save") == "look save"
    assert command("  Take   the\nApple ") == "take the apple"
    step = reset(0)
    before = step.state.told.description
    for hostile in (
        "save",
        "script",
        "quit\ny",
        "look. save",
        "take " * 5_000,
        "a" * 100_000,
        "go 🙂",
    ):
        step = act(step, hostile)
        assert step.end is None and step.reward == 0 and len(str(step.observation)) < 3_000
    assert act(step, "restart").observation == NO_COMMAND
    assert step.state.told.description == before


def test_what_is_read_is_without_the_status_line_and_the_end():
    raw = "\nYou win.\n\n\n\n   *** The End ***\n\nWould you like to RESTART"
    assert read(raw) == "You win."
    assert read("Taken.\n\n>      -= Room =-0/1\n") == "Taken."


def test_bad_settings_and_tasks_say_what_to_do(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match="at least 1"):
        Size(0, 1, 1)

    def no_quest(options: object) -> None:
        raise QuestGenerationError("none")

    monkeypatch.setattr("textworld.generator.make_game", no_quest)
    with pytest.raises(ValueError, match="more rooms or a shorter quest"):
        made(Size(1, 1, 40), Key(0))
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(ENV.reset(replace(ENV.tasks("test")[0], env="another"), 0))
