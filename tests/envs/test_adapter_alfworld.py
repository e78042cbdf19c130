"""ludus.envs.adapters.alfworld on the real package, with two small kitchens in the package's own format."""

# pyright: reportMissingImports=false
from __future__ import annotations

import asyncio
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("alfworld")
pytest.importorskip("fast_downward")

from alfworld.agents.utils.misc import add_task_to_grammar
from alfworld.info import ALFRED_PDDL_PATH, ALFRED_TWL2_PATH

from ludus.envs.adapters import alfworld as adapter
from ludus.envs.adapters.alfworld import ALFWorld
from ludus.envs.guard import checked
from ludus.envs.world import play
from ludus.types import End, Explained, Step

PLACES = ("CounterTop", "Fridge", "Microwave", "Sink_bar_1_bar_SinkBasin")
OBJECTS = ("Apple", "Mug", "Egg")


def receptacle(place: str) -> str:
    return place if "_bar_" in place else f"{place}_bar_1"


def problem(goal: str) -> str:
    """A kitchen: everything lies on the counter, and any thing may be put anywhere."""
    types = [place.rpartition("_")[2] + "Type" for place in PLACES]
    where = [
        f"(receptacleType {receptacle(place)} {kind}) (receptacleAtLocation {receptacle(place)} loc_{number})"
        + "".join(f" (canContain {kind} {thing}Type)" for thing in OBJECTS)
        for number, (place, kind) in enumerate(zip(PLACES, types, strict=True), 1)
    ]
    things = [
        f"(objectType {thing}_bar_1 {thing}Type) (pickupable {thing}_bar_1) (heatable {thing}_bar_1)"
        f" (cleanable {thing}_bar_1) (coolable {thing}_bar_1)"
        f" (inReceptacle {thing}_bar_1 CounterTop_bar_1) (objectAtLocation {thing}_bar_1 loc_1)"
        for thing in OBJECTS
    ]
    return f"""(define (problem kitchen) (:domain alfred)
      (:objects agent1 - agent {" ".join(types)} - rtype {" ".join(f"{o}Type" for o in OBJECTS)} - otype
        {" ".join(map(receptacle, PLACES))} - receptacle {" ".join(f"{o}_bar_1" for o in OBJECTS)} - object
        loc_0 loc_1 loc_2 loc_3 loc_4 - location)
      (:init (= (total-cost) 0) (atLocation agent1 loc_0) (openable Fridge_bar_1) (openable Microwave_bar_1)
        {" ".join(where)} {" ".join(things)})
      (:goal (and (exists (?r - receptacle) (exists (?o - object) (and {goal})))))
      (:metric minimize (total-cost)))"""


def write(folder: Path, kind: str, thing: str, place: str, more: str = "", **says: object) -> None:
    folder.mkdir(parents=True)
    names = {"object_target": thing, "parent_target": place, "toggle_target": ""}
    scene = {
        "task_type": kind,
        "pddl_params": {**names, "mrecep_target": "", "object_sliced": False},
        "turk_annotations": {"anns": [{"task_desc": f"Put the {thing} away"}]},
    }
    goal = (
        f"(inReceptacle ?o ?r) (objectType ?o {thing}Type) (receptacleType ?r {place}Type) {more}"
    )
    game = {
        "pddl_domain": Path(ALFRED_PDDL_PATH).read_text(),
        "grammar": add_task_to_grammar(Path(ALFRED_TWL2_PATH).read_text(), scene, 1.0),
        "pddl_problem": problem(goal),
        "solvable": True,
        **says,
    }
    (folder / "traj_data.json").write_text(json.dumps(scene))
    (folder / "game.tw-pddl").write_text(json.dumps(game))


@pytest.fixture(scope="module")
def env(tmp_path_factory: pytest.TempPathFactory) -> ALFWorld:
    data = tmp_path_factory.mktemp("alfworld")
    parts = {part: data / "json_2.1.1" / part for part in ("train", "valid_seen", "valid_unseen")}
    put, heat = "pick_and_place_simple", "pick_heat_then_place_in_recep"
    write(parts["train"] / "b/trial_1", put, "Apple", "Fridge")
    write(parts["train"] / "a/trial_1", heat, "Egg", "CounterTop", "(isHot ?o)")
    write(parts["train"] / "a-movable/trial_1", put, "Apple", "Fridge")
    write(parts["train"] / "c/trial_1", put, "Apple", "Fridge", solvable=False)
    write(parts["valid_seen"] / "d/trial_1", put, "Mug", "Fridge")
    write(parts["valid_unseen"] / "e/trial_1", put, "Mug", "Microwave")
    (parts["train"] / "f").mkdir()
    (parts["train"] / "f" / "game.tw-pddl").write_text('{"solvable": tr')
    return ALFWorld(str(data))


def reset(env: ALFWorld, index: int = 1) -> Step:
    return checked(asyncio.run(env.reset(env.tasks()[index], 0)), env.name)


def act(env: ALFWorld, step: Step, *actions: str) -> Step:
    for action in actions:
        step = checked(asyncio.run(env.step(step.state, action)), env.name)
    return step


def test_the_games_of_a_split_are_those_that_can_be_solved(env: ALFWorld):
    assert [task.id for task in env.tasks()] == [
        "alfworld-train/a/trial_1",
        "alfworld-train/b/trial_1",
    ]
    assert [task.extras["game"] for task in env.tasks("test")] == ["valid_unseen/e/trial_1"]
    seen = replace(env, held_out="valid_seen")
    assert [task.extras["game"] for task in seen.tasks("test")] == ["valid_seen/d/trial_1"]
    put = replace(env, kinds=("pick_and_place_simple",))
    assert [task.domain for task in put.tasks()] == ["pick_and_place_simple"]


def test_a_game_is_read_and_won_as_the_package_tells_it(env: ALFWorld):
    arguments = list(sys.argv)
    step = reset(env)
    assert "Your task is to: Put the Apple away." in str(step.observation)
    assert "a countertop 1, a fridge 1, a microwave 1, and a sinkbasin 1" in str(step.observation)
    assert sys.argv == arguments
    step = act(env, step, "I should look first.\nAction: go to countertop 1.")
    told = str(step.observation)
    assert (
        told
        == "You arrive at countertop 1. On the countertop 1, you see a apple 1, a egg 1, and a mug 1."
    )
    nothing = act(env, step, "take lamp 1 from countertop 1")
    assert nothing.observation == "Nothing happens." and not nothing.info["valid"]
    step = act(env, nothing, "Take Apple 1 from countertop 1", "go to fridge 1", "open fridge 1")
    assert step.info["valid"] and "move apple 1 to fridge 1" in step.info["actions"]
    assert step.reward == 0 and step.end is None
    won = act(env, step, "move apple 1 to fridge 1")
    assert won.end is End.SOLVED and won.reward == 1
    with pytest.raises(ValueError, match="call reset"):
        act(env, won, "look")


@pytest.mark.parametrize(("split", "index"), [("train", 0), ("train", 1), ("test", 0)])
def test_the_planner_wins_every_game_also_after_a_detour(env: ALFWorld, split, index: int):
    def player(state, rng: np.random.Generator) -> str:
        return env.beginner(state, rng) if len(state.actions) < 4 else env.expert(state)

    rng = np.random.default_rng(index)
    game = asyncio.run(play(env, env.tasks(split)[index], 0, player, rng, 30))
    assert game.end is End.SOLVED and game.reward == 1
    assert all(step.info["valid"] for _, step in game.turns)


def test_an_anchor_names_the_place_acted_in_and_looking_does_not_change_it(env: ALFWorld):
    first = act(env, reset(env), "go to fridge 1")
    looked = act(env, first, "look")
    opened = act(env, looked, "open fridge 1")
    after = act(env, opened, "look")
    other = act(env, act(env, reset(env), "inventory", "go to fridge 1"), "examine fridge 1")
    assert looked.info["anchor"] == opened.info["anchor"] == other.info["anchor"]
    assert len({first.info["anchor"], opened.info["anchor"], after.info["anchor"]}) == 3


def test_sessions_and_forks_do_not_see_each_other(env: ALFWorld):
    one, other = reset(env), reset(env)
    assert one == other
    one = act(env, one, "go to countertop 1", "take apple 1 from countertop 1")
    assert "apple 1" in str(act(env, other, "go to countertop 1").observation)
    child = asyncio.run(env.fork(one.state))
    assert child == one.state
    left = act(env, one, "go to fridge 1", "open fridge 1", "move apple 1 to fridge 1")
    right = act(env, Step(child, ""), "go to microwave 1", "inventory")
    assert left.end is End.SOLVED and right.observation == "You are carrying: a apple 1."
    with pytest.raises(ValueError, match=r"env\.fork"):
        act(env, one, "look")


def test_a_closed_session_lends_its_library_to_the_next_and_is_not_stepped(env: ALFWorld):
    adapter._IDLE.clear()
    step = act(env, reset(env), "go to countertop 1", "take apple 1 from countertop 1")
    asyncio.run(env.close(step.state))
    asyncio.run(env.close(step.state))
    (idle,) = adapter._IDLE
    with pytest.raises(ValueError, match="was closed"):
        act(env, step, "look")
    again = reset(env, index=0)
    assert again.state.held.thing is idle and "Put the Egg away" in str(again.observation)
    told = act(env, again, "inventory").observation
    assert told == "You are not carrying anything."


def test_actions_are_listed_on_request_and_hostile_text_does_nothing(env: ALFWorld):
    listed = replace(env, listed=True)
    assert "You can: go to countertop 1, " in str(reset(listed).observation)
    step = reset(env)
    for hostile in ("", "\x00", "\ud800", "go to " * 20_000, "🙂", "{r.name}", "#intro#"):
        step = act(env, step, hostile)
        assert step.observation == "Nothing happens." and step.reward == 0


def test_what_is_missing_says_what_to_type(env: ALFWorld, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("ALFWORLD_DATA", str(tmp_path))
    with pytest.raises(Explained, match=r"(?s)no games .*train; type: .* && alfworld-download"):
        ALFWorld().tasks()
    with pytest.raises(ValueError, match="pick_and_place_simple"):
        ALFWorld(kinds=("pick_and_place",))
    with pytest.raises(ValueError, match="valid_seen"):
        ALFWorld(held_out="train")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(
            env.reset(replace(env.tasks()[0], extras={"split": "train", "game": "../x"}), 0)
        )
    monkeypatch.setitem(sys.modules, "alfworld.agents.environment.alfred_tw_env", None)
    with pytest.raises(Explained, match="pip install alfworld"):
        reset(env)
