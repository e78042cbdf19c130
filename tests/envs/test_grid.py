"""Grid and corridor: the walk by hand, and the anchors that GiGPO compares by."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace

import numpy as np
import pytest

from ludus.envs.small.grid import Grid, State, corridor, grid
from ludus.types import End, Step


def walk(world: Grid, actions: str, start: State | None = None) -> list[Step]:
    letters = {"r": "right", "l": "left", "u": "up", "d": "down", "s": "stay"}
    state = start or world.starts["train"][0]
    steps = []
    for letter in actions:
        steps.append(asyncio.run(world.step(state, letters.get(letter, letter))))
        state = steps[-1].state
    return steps


def test_a_walk_word_for_word():
    world = grid()
    steps = walk(world, "ulrrr", State((0, 0), (3, 0)))
    assert [step.observation for step in steps] == [
        *["you 0 0 goal 3 0"] * 2,  # the walls
        "you 1 0 goal 3 0",
        "you 2 0 goal 3 0",
        "you 3 0 goal 3 0",
    ]
    assert [step.reward for step in steps] == [0, 0, 0, 0, 1]
    assert [step.end for step in steps] == [None] * 4 + [End.SOLVED]
    down = walk(world, "dddu", State((1, 1), (0, 0)))
    assert [step.state.at for step in down] == [(1, 2), (1, 3), (1, 3), (1, 2)]


def test_what_is_no_action_stays_and_costs():
    world = replace(grid(), invalid=0.1, success=10.0)
    start = State((0, 0), (1, 0))
    for text in ("north", "stay", "", "right left", "up down"):
        step = asyncio.run(world.step(start, text))
        assert step.state == start and step.reward == -0.1 and step.end is None
        assert step.info == {"anchor": "you 0 0 goal 1 0", "valid": False}
        assert step.observation == "no such action. you 0 0 goal 1 0"
    for text in ("right", " Right.\n", "to the goal\nAction: right"):
        assert asyncio.run(world.step(start, text)).reward == 10
    assert asyncio.run(corridor().step(corridor().starts["train"][0], "stay")).info["valid"]


def test_the_anchor_is_the_state_acted_in_without_history():
    world = grid()
    start = State((0, 0), (3, 3))
    direct = walk(world, "rd", start)
    detour = walk(world, "rdlrxlr", start)
    assert direct[1].info["anchor"] == detour[1].info["anchor"] == "you 1 0 goal 3 3"
    anchors = [step.info["anchor"] for step in detour]
    assert (
        anchors[2] == anchors[4] == anchors[5] == "you 1 1 goal 3 3"
    )  # again and again, and after nonsense


def test_gigpo_groups_of_the_card():
    """Card gigpo (a): cells C A B goal, four rollouts from A. Groups, returns and advantages come out as there."""
    world = corridor(4, start=1)
    rollouts = [walk(world, actions) for actions in ("rr", "rlll", "lr", "rr")]
    assert [steps[-1].end for steps in rollouts] == [End.SOLVED, None, None, End.SOLVED]
    groups: dict[str, list[tuple[tuple[int, int], float]]] = defaultdict(list)
    for i, steps in enumerate(rollouts, 1):
        returns = 0.0
        back = []
        for step in reversed(steps):
            returns = step.reward + 0.95 * returns
            back.append(returns)
        for t, (step, value) in enumerate(zip(steps, reversed(back), strict=True), 1):
            groups[step.info["anchor"]].append(((i, t), value))
    a, b, c = (groups[f"you {cell} goal 3"] for cell in (1, 2, 0))
    assert [who for who, _ in a] == [(1, 1), (2, 1), (2, 3), (3, 1), (4, 1)]
    expected = [[0.57, -0.38, -0.38, -0.38, 0.57], [1 / 3, -2 / 3, 1 / 3], [0, 0]]
    for group, advantages in zip((a, b, c), expected, strict=True):
        values = np.array([value for _, value in group])
        assert values - values.mean() == pytest.approx(advantages)
    assert len(groups) == 3


def test_the_sizes_that_are_claimed():
    world = grid()
    assert len(world.starts["train"]) == 192 and len(world.starts["test"]) == 48
    assert {task.difficulty for task in world.tasks("train")} == {1, 2, 3, 4, 5, 6}
    assert world.instruction.text == "Reach the goal. Write one word: right, left, up or down."
    assert corridor().instruction.text == "Reach the goal. Write one word: right, left or stay."
    assert corridor().starts["train"] == (State((0, 0), (5, 0)),)


@pytest.mark.parametrize(
    "make", [lambda: grid(1, 4), lambda: grid(4, 11), lambda: grid(held_out=0)]
)
def test_grids_that_make_no_world(make: object):
    with pytest.raises(ValueError, match="give"):
        make()  # type: ignore[operator]


@pytest.mark.parametrize(("cells", "start"), [(1, 0), (11, 0), (6, 5), (6, -1)])
def test_corridors_that_make_no_world(cells: int, start: int):
    with pytest.raises(ValueError, match="give"):
        corridor(cells, start)
