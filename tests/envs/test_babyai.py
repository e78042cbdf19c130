"""BabyAI on minigrid: all levels, paths through what is in sight, solutions, scoring, pictures and forks."""

from __future__ import annotations

import asyncio
import io
from dataclasses import replace

import numpy as np
import pytest

pytest.importorskip("minigrid")

from ludus.envs.babyai import (
    LEVELS,
    NOT_FOR_THE_BOT,
    BabyAI,
    State,
    Thing,
    View,
    choices,
    look,
    path,
    understood,
)
from ludus.envs.guard import checked
from ludus.envs.world import mixed, play
from ludus.types import End, Image, Step

ENV = BabyAI()


def reset(env: BabyAI, level: int, seed: int = 0) -> Step:
    return checked(asyncio.run(env.reset(env.item(level - 1 + len(LEVELS) * seed), 0)), env.name)


def act(env: BabyAI, state: State, *actions: str) -> Step:
    assert actions
    for action in actions:
        step = checked(asyncio.run(env.step(state, action)), env.name)
    return step


def test_the_forty_levels_of_the_card_begin_the_same_every_time():
    assert len(set(LEVELS)) == 40
    for level in range(1, 41):
        first, again = reset(ENV, level), reset(ENV, level)
        assert first.observation == again.observation and "Goal: " in str(first.observation)
        assert "turn left" in str(first.observation)
        assert first.state.game.max_steps >= 36


def test_items_are_numbered_as_in_agentgym_and_splits_share_no_seed():
    assert ENV.item(0).extras == {"level": 1, "seed": 0}
    assert ENV.item(85).extras == {"level": 6, "seed": 2} and ENV.item(85).domain == LEVELS[5]
    train, test = ENV.tasks("train"), ENV.tasks("test")
    assert (len(train), len(test)) == (800, 120)
    assert not {task.id for task in train} & {task.id for task in test}
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(ENV.reset(replace(train[0], env="another"), 0))
    with pytest.raises(ValueError, match="give some of 1 to 40"):
        BabyAI(levels=(41,))


# ---------------------------------------------------------------------------------------------- paths


def test_a_path_goes_around_what_stands_in_the_way_and_never_through_what_is_not_seen():
    # facing east, a ball right ahead and the goal behind it; free cells below
    free = frozenset({(0, 0), (0, 1), (1, 1), (2, 1), (3, 1), (3, 0)})
    view = View((0, 0), 0, (), free, 0, "")
    around = path(view, (2, 0), arrive=False)
    assert around == (1, 2, 0, 2, 2, 0)  # down, east, east, and face it from below
    assert path(view, (3, 0), arrive=True) == (1, 2, 0, 2, 2, 2, 0, 2)
    assert path(view, (9, 9), arrive=False) is None
    assert path(view, (1, 0), arrive=False) == ()


def test_what_is_offered_follows_from_what_is_seen():
    door = Thing("red locked door", 1, (1, 0), 1, 0)
    view = View((0, 0), 0, (door,), frozenset({(0, 0)}), 0, "")
    assert set(choices(view)) == {"turn left", "turn right", "go to red locked door 1"}
    with_key = replace(view, held="red key")
    assert choices(with_key)["toggle and go through red locked door 1"] == (5, 2)
    assert "toggle" in choices(with_key) and "drop" not in choices(with_key)
    assert "toggle" not in choices(replace(view, held="blue key"))
    # an open door can be walked through, and nothing can be dropped on it
    opened = replace(
        with_key,
        things=(Thing("red open door", 1, (1, 0), 1, 0),),
        free=frozenset({(0, 0), (1, 0)}),
    )
    assert choices(opened)["go through red open door 1"] == (2,)
    assert "drop" not in choices(opened) and "move forward" in choices(opened)


def test_pickup_and_a_name_without_its_number_are_understood():
    offered = {"pick up red ball 1": (3,), "go to red ball 1": ()}
    assert understood("pickup red  ball 1", offered) == "pick up red ball 1"
    assert understood("Pick up red ball", offered) == "pick up red ball 1"
    assert understood("go to blue ball", offered) == "go to blue ball"


def test_things_are_where_minigrid_has_them():
    for level in (1, 17, 39):
        game = reset(ENV, level, seed=3).state.game
        for thing in look(game).things:
            there = game.grid.get(*thing.cell)
            assert f"{there.color} " in f"{thing.name} " and there.type in thing.name
            assert game.in_view(*thing.cell)


# ---------------------------------------------------------------------------------------------- solutions


def test_one_sentence_does_what_many_moves_do():
    start = reset(ENV, 1)
    done = act(ENV, start.state, "Thought: there it is.\nAction: go to red ball 1")
    moves, limit = done.info["moves"], done.info["limit"]
    assert done.end is End.SOLVED and limit == 64 and 1 < moves < 20
    assert done.reward == pytest.approx(1 - 0.9 * moves / limit)
    with pytest.raises(ValueError, match="call reset"):
        act(ENV, start.state, "turn left")


@pytest.mark.parametrize("level", [2, 8, 13, 22, 25, 28, 34, 38])
def test_the_bot_of_minigrid_solves_a_level_in_words(level: int):
    assert level not in NOT_FOR_THE_BOT
    rng = np.random.default_rng(0)
    task = ENV.item(level - 1)
    game = asyncio.run(play(ENV, task, 0, mixed(ENV, 1.0), rng, 400))
    last = game.turns[-1][1]
    assert all(step.info["valid"] for _, step in game.turns)
    # a thing in sight is reached in one action of several moves
    assert game.end is End.SOLVED and last.info["moves"] >= len(game.turns)
    assert game.reward == pytest.approx(1 - 0.9 * last.info["moves"] / last.info["limit"])


def test_the_expert_names_what_the_mission_names_and_goes_on_where_a_box_was_opened():
    env = BabyAI(levels=(2, 9, 17), scoring="success")
    for task in env.tasks("test"):
        start = asyncio.run(env.reset(task, 0))
        thing = start.state.goal.removeprefix("go to the ").removeprefix("pick up a ")
        in_sight = any(each.name == thing for each in look(start.state.game).things)
        assert not in_sight or env.expert(start.state).endswith(f"{thing} 1")
    # minigrid's bot stops where somebody opened a box; here games of a beginner go on
    games = [
        asyncio.run(play(env, task, 0, mixed(env, 0.3), np.random.default_rng(seed), 12))
        for seed in range(4)
        for task in env.tasks("test")
    ]
    assert all(step.info["valid"] for game in games for _, step in game.turns)


def test_a_key_in_a_box_can_be_had():
    """The level that the original's actions cannot solve: nothing in them opens a box."""
    env = BabyAI(scoring="success")
    state = reset(env, 26).state
    rng = np.random.default_rng(0)

    def walk_until(*words: str) -> str:
        for _ in range(300):
            for action in choices(look(state.game)):
                if all(word in action for word in words):
                    return action
            ways = [
                way for way in ("move forward", "turn right") if way in choices(look(state.game))
            ]
            act(env, state, ways[int(rng.random() < 0.3) % len(ways)])
        raise AssertionError(f"nothing with {words} came into sight")

    act(env, state, walk_until("go to", "box"), "toggle")
    act(env, state, walk_until("pick up", "key"))
    done = act(env, state, walk_until("toggle and go through"))
    assert done.end is End.SOLVED and done.reward == 1


# ---------------------------------------------------------------------------------------------- scoring


def test_ten_of_sixty_four_moves_score_what_the_card_says():
    start = reset(ENV, 1)
    start.state.game.step_count = 9  # the next move is the tenth
    view = look(start.state.game)
    ball = next(thing for thing in view.things if thing.name == "red ball")
    way = path(view, ball.cell, arrive=False)
    assert way
    start.state.game.step_count = 10 - len(way)
    assert act(ENV, start.state, f"go to {ball.label}").reward == pytest.approx(0.859375)


def test_the_original_scoring_pays_again_and_does_not_end_a_slow_success():
    env = BabyAI(scoring="original")
    start = reset(env, 1)
    start.state.game.step_count = (
        50  # a success after more than 5/9 of 64 moves is worth less than half
    )
    won = act(env, start.state, "go to red ball 1")
    assert won.end is None and 0 < won.reward <= 0.5
    again = act(env, start.state, "dance")
    assert again.reward == pytest.approx(2 * won.reward) and again.info["valid"] is False
    assert act(ENV, reset(ENV, 1).state, "dance").reward == 0


def test_the_limit_of_minigrid_ends_a_game():
    start = reset(ENV, 1)
    start.state.game.step_count = 63
    assert act(ENV, start.state, "turn left").end is End.OUT_OF_TURNS


# ---------------------------------------------------------------------------------------------- sessions


def test_two_sessions_interleaved_and_a_fork_do_not_see_each_other():
    actions = [
        "turn left",
        "move forward",
        "turn left",
        "move forward",
        "turn right",
        "move forward",
    ]
    alone = reset(ENV, 17, seed=1).state
    expected = [act(ENV, alone, action).observation for action in actions]
    one, other = reset(ENV, 17, seed=1).state, reset(ENV, 17, seed=1).state
    seen = []
    for action in actions:
        seen.append(act(ENV, one, action).observation)
        act(ENV, other, "turn right")
    assert seen == expected
    parent = reset(ENV, 17, seed=1).state
    act(ENV, parent, *actions[:3])
    child = asyncio.run(ENV.fork(parent))
    act(ENV, parent, "turn right", "turn right")
    assert [act(ENV, child, action).observation for action in actions[3:]] == expected[3:]


def test_pictures_show_what_changed():
    from PIL import Image as Pictures

    for sight, side in (("view", 7 * 16), ("map", 8 * 16)):
        env = replace(ENV, sight=sight)
        start = reset(env, 1)
        text, image = start.observation
        assert isinstance(text, str)
        assert "Goal: go to the red ball" in text and "You see" not in text
        assert isinstance(image, Image)
        assert Pictures.open(io.BytesIO(image.data)).size == (side, side)
        assert reset(env, 1).observation == start.observation
        assert act(env, start.state, "turn left").observation[1] != image


@pytest.mark.parametrize(
    "text", ["", "\x00", "\ud800", "a" * 100_000, "Action:" * 5_000, "go to " * 5_000, "توجه 🙂"]
)
def test_hostile_text_changes_nothing(text: str):
    start = reset(ENV, 12)
    view = look(start.state.game)
    step = act(ENV, start.state, text)
    assert step.reward == 0 and step.end is None and not step.info["valid"]
    assert look(start.state.game) == view and len(str(step.observation)) < 3_000


def test_the_list_of_actions_costs_no_move():
    start = reset(ENV, 12)
    step = act(ENV, start.state, "check available actions")
    assert step.info["valid"] and start.state.game.step_count == 0
    assert set(step.info["actions"]) == set(choices(look(start.state.game)))
