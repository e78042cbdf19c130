"""Maze: find the way to the goal, with the whole map in view, or with no more than the walls around you.

    map      #######        # wall   - way   @ you   * goal
             #@--#-#
             #-#-#-#
             #-#--*#
             #######

    walls    goal 3 5 you 1 1 walls up left

The second view is that of the fully observed maze of LMRL-Gym (arXiv:2311.18232) and AgentGym (arXiv:2406.04151),
which tell the place of the goal, one's own and the walls beside it. There, tasks are starts in a fixed maze; here
every task has a maze of its own, so that finding the way must be learnt, and not the way.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal

import numpy as np

from ludus.envs.games.shared import (
    GIVE_UP,
    INVALID,
    MOVES,
    Cell,
    after,
    given_up,
    listed_tasks,
    shortest,
)
from ludus.envs.world import Split, action_of, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

MOVE = "Write one word: up, down, left or right. Write give up if you cannot go on."
MAP = Message("system", f"Walk to the goal *. You are @, # is a wall. {MOVE}")
WALLS = Message(
    "system", f"Walk to the goal. Places are row and column, counted from the top left. {MOVE}"
)


@dataclass(frozen=True)
class Plan:
    """An odd number of rows and columns; the ways run between squares whose row and column are both odd."""

    height: int
    width: int
    ways: frozenset[Cell]
    goal: Cell

    def beside(self, cell: Cell) -> tuple[str, ...]:
        """The directions in which there is a wall."""
        return tuple(way for way in MOVES if after(cell, way) not in self.ways)


@dataclass(frozen=True)
class State:
    """`been` are the squares that were stood on, the present one among them: all whose walls were seen."""

    plan: Plan
    you: Cell
    been: frozenset[Cell]
    over: bool = False


def drawn(state: State) -> str:
    """The map as text, one row a line."""

    def symbol(cell: Cell) -> str:
        if cell == state.you:
            return "@"
        return "*" if cell == state.plan.goal else "-" if cell in state.plan.ways else "#"

    rows, columns = range(state.plan.height), range(state.plan.width)
    return "\n".join("".join(symbol((row, column)) for column in columns) for row in rows)


def told(state: State) -> str:
    """Goal, place and walls in words."""
    walls = " ".join(state.plan.beside(state.you)) or "none"
    goal, you = state.plan.goal, state.you
    return f"goal {goal[0]} {goal[1]} you {you[0]} {you[1]} walls {walls}"


def carved(rng: np.random.Generator, height: int, width: int) -> frozenset[Cell]:
    """The ways of a maze without circles, by a depth-first walk that breaks the wall to a square not yet reached."""
    start = (1 + 2 * int(rng.integers(height // 2)), 1 + 2 * int(rng.integers(width // 2)))
    ways, path = {start}, [start]
    while path:
        row, column = path[-1]
        steps = [
            ((row + up, column + across), (row + 2 * up, column + 2 * across))
            for up, across in MOVES.values()
            if 0 < row + 2 * up < height - 1 and 0 < column + 2 * across < width - 1
        ]
        fresh = [(wall, to) for wall, to in steps if to not in ways]
        if not fresh:
            path.pop()
            continue
        wall, to = one_of(rng, fresh)
        ways |= {wall, to}
        path.append(to)
    return frozenset(ways)


def searched(plan: Plan, start: Cell) -> tuple[str, ...] | None:
    """The shortest way to the goal."""

    def moves(cell: Cell) -> Iterator[tuple[str, Cell]]:
        return ((way, after(cell, way)) for way in MOVES if after(cell, way) in plan.ways)

    return shortest(start, moves, lambda cell: cell == plan.goal)


# Remembered for mazes that are played; a plan of 31 x 31 squares takes 60 kB, so what is only drawn must not stay.
route = lru_cache(maxsize=4096)(searched)


def hopeful_route(state: State) -> tuple[str, ...] | None:
    """The shortest way by what was seen: a wall that was not looked at yet is taken for a way."""
    inside = [range(1, state.plan.height - 1), range(1, state.plan.width - 1)]
    seen = {after(cell, way) for cell in state.been for way in state.plan.beside(cell)}

    def moves(cell: Cell) -> Iterator[tuple[str, Cell]]:
        for way in MOVES:
            to = after(cell, way)
            if to not in seen and to[0] in inside[0] and to[1] in inside[1]:
                yield way, to

    return shortest(state.you, moves, lambda cell: cell == state.plan.goal)


@dataclass(frozen=True)
class Maze:
    """Reward 1 at the goal. LMRL-Gym pays step_reward=-1 for every step that does not reach the goal, 0 for the one
    that does (goal=0), and -4 instead for what is no action (invalid=-4); a step against a wall is a step.

    size   rows and columns, both odd (LMRL-Gym's U maze fits into 5 x 5)
    moves  least and most steps of the shortest way
    view   "map", or "walls" for no more than those beside the player
    """

    size: tuple[int, int] = (7, 7)
    moves: tuple[int, int] = (2, 12)
    view: Literal["map", "walls"] = "map"
    goal: float = 1.0
    step_reward: float = 0.0
    invalid: float = 0.0
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "maze"

    def __post_init__(self) -> None:
        if not all(5 <= side <= 31 and side % 2 for side in self.size):
            raise ValueError(f"size={self.size}; give odd numbers of rows and columns from 5 to 31")
        least, most = self.moves
        if not 1 <= least <= most:
            raise ValueError(f"moves={self.moves}; give (least, most), from 1")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the mazes that hash to it."""
        return _start(self, split, index)

    def draw(self, rng: np.random.Generator) -> State | None:
        """A maze with a start and a goal; None where they are too near or too far."""
        ways = carved(rng, *self.size)
        squares = sorted(ways)
        you, goal = (squares[place] for place in rng.permutation(len(squares))[:2])
        plan = Plan(*self.size, ways, goal)
        least, most = self.moves
        return (
            State(plan, you, frozenset([you]))
            if least <= len(searched(plan, you) or ()) <= most
            else None
        )

    def look(self, state: State) -> str:
        return drawn(state) if self.view == "map" else told(state)

    # ------------------------------------------------------------------------------------ players

    @property
    def instruction(self) -> Message:
        return MAP if self.view == "map" else WALLS

    def words(self) -> tuple[str, ...]:
        return (*listed(MAP.text, WALLS.text, INVALID, "walls none"), *"@-#*")

    def expert(self, state: State) -> str:
        """The next step of the shortest way: by the map, or by what was seen of the walls so far."""
        seen = self.view == "map"
        way = route(state.plan, state.you) if seen else hopeful_route(state)
        return way[0] if way else GIVE_UP

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Any step that no wall forbids."""
        walls = state.plan.beside(state.you)
        return one_of(rng, [way for way in MOVES if way not in walls])

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The difficulty is the length of the shortest way."""
        count = self.train if split == "train" else self.test
        starts = (self.start(split, index) for index in range(count))
        lengths = (len(route(state.plan, state.you) or ()) for state in starts)
        return listed_tasks(self, split, self.instruction, lengths)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the maze."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, self.look(state))

    async def step(self, state: State, action: str) -> Step:
        """`info` holds the anchor that was acted in, and whether the action was one."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        info = {"anchor": self.look(state), "valid": said in MOVES}
        if not info["valid"]:
            return Step(state, f"{INVALID}\n{self.look(state)}", self.invalid, info=info)
        if said in state.plan.beside(state.you):
            return Step(state, self.look(state), self.step_reward, info=info)
        you = after(state.you, said)
        moved = replace(state, you=you, been=state.been | {you}, over=you == state.plan.goal)
        if moved.over:
            return Step(moved, "you are at the goal", self.goal, End.SOLVED, info)
        return Step(moved, self.look(moved), self.step_reward, info=info)

    async def fork(self, state: State) -> State:
        return state

    @property
    def views(self) -> Mapping[str, Callable[[State], object]]:
        return {"available_actions": lambda state: list(MOVES)}


@lru_cache(maxsize=8192)
def _start(world: Maze, split: Split, index: int) -> State:
    key = Key(world.seed, ("maze", *world.size, split, index))
    return draw_for(split, key, world.draw, drawn)
