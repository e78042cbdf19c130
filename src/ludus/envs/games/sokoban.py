"""Sokoban: push every box onto a goal. Boxes cannot be pulled, so a wrong push may lose the game for good.

    ######        # wall    - floor   @ you   $ box   . goal
    #-@--#        + you on a goal     * box on a goal
    #-$--#
    #--.-#
    ######

The notation is that of level collections. The game of RAGEN (arXiv:2504.20073), whose default is a room of 6 x 6 with
one box. Levels are made by playing backwards from the solved room (the player pulls), and a breadth-first search
gives the length of the shortest solution, which is a task's difficulty.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

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

INSTRUCTION = Message(
    "system",
    "Push every box $ onto a goal . Write one word: up, down, left or right. You are @, or + on a goal; * is a box on "
    "a goal, # a wall. Boxes cannot be pulled. Write give up if nothing can be done.",
)
STUCK = "a box is stuck in a corner"


@dataclass(frozen=True)
class Room:
    """What never moves. `floor` has the goals in it; all around it is wall."""

    height: int
    width: int
    floor: frozenset[Cell]
    goals: frozenset[Cell]

    @property
    def corners(self) -> frozenset[Cell]:
        """Floor without a goal from which no box can ever be pushed: a wall above or below, and one left or right."""
        return frozenset(
            cell
            for cell in self.floor - self.goals
            if any(after(cell, way) not in self.floor for way in ("up", "down"))
            and any(after(cell, way) not in self.floor for way in ("left", "right"))
        )


@dataclass(frozen=True)
class State:
    """The same position is the same value, however it came about."""

    room: Room = field(repr=False)
    you: Cell
    boxes: frozenset[Cell]
    over: bool = False

    @property
    def placed(self) -> int:
        return len(self.boxes & self.room.goals)

    @property
    def solved(self) -> bool:
        return self.boxes == self.room.goals


# ---------------------------------------------------------------------------------------------- the rules


def push(state: State, direction: str) -> State:
    """One step, pushing one box where it has room; the same state where a wall or a second box is in the way."""
    to = after(state.you, direction)
    if to not in state.room.floor:
        return state
    if to not in state.boxes:
        return replace(state, you=to)
    beyond = after(to, direction)
    if beyond not in state.room.floor or beyond in state.boxes:
        return state
    return replace(state, you=to, boxes=state.boxes - {to} | {beyond})


def drawn(state: State) -> str:
    """The room as text, one row a line."""

    def symbol(cell: Cell) -> str:
        goal = cell in state.room.goals
        if cell == state.you:
            return "+" if goal else "@"
        if cell in state.boxes:
            return "*" if goal else "$"
        return "#" if cell not in state.room.floor else "." if goal else "-"

    rows, columns = range(state.room.height), range(state.room.width)
    return "\n".join("".join(symbol((row, column)) for column in columns) for row in rows)


def read(text: str) -> State:
    """The state that is drawn as `text`."""
    rows = text.strip().splitlines()
    at: dict[str, set[Cell]] = {symbol: set() for symbol in "#-@$.+*"}
    for row, line in enumerate(rows):
        for column, symbol in enumerate(line):
            if symbol not in at:
                raise ValueError(f"{symbol!r} in row {row}; draw a level with # - @ $ . + and *")
            at[symbol].add((row, column))
    goals, boxes, you = at["."] | at["+"] | at["*"], at["$"] | at["*"], at["@"] | at["+"]
    if len(you) != 1 or len(goals) != len(boxes):
        raise ValueError(
            f"{len(you)} players, {len(boxes)} boxes, {len(goals)} goals; "
            "draw one player and a goal for every box"
        )
    floor = frozenset(at["-"] | goals | boxes | you)
    room = Room(len(rows), max(map(len, rows)), floor, frozenset(goals))
    return State(room, you.pop(), frozenset(boxes))


@lru_cache(maxsize=4096)
def solution(state: State) -> tuple[str, ...] | None:
    """A shortest solution; None where there is none. A box in a corner is never looked into."""
    corners = state.room.corners

    def moves(at: State) -> Iterator[tuple[str, State]]:
        for direction in MOVES:
            following = push(at, direction)
            if following.boxes is at.boxes or not following.boxes & corners:
                yield direction, following

    if state.boxes & corners:
        return None
    return shortest(replace(state, over=False), moves, lambda at: at.solved)


# ---------------------------------------------------------------------------------------------- the levels


def backwards(rng: np.random.Generator, room: Room, steps: int) -> State | None:
    """Played backwards from the solved room: a walk of `steps` that pulls a box along, every other time it can."""
    free = sorted(room.floor - room.goals)
    if not free:
        return None
    you, boxes = one_of(rng, free), set(room.goals)
    for _ in range(steps):
        direction = one_of(rng, tuple(MOVES))
        to = after(you, direction)
        if to not in room.floor or to in boxes:
            continue
        behind = (2 * you[0] - to[0], 2 * you[1] - to[1])
        if behind in boxes and rng.random() < 0.5:
            boxes = boxes - {behind} | {you}
        you = to
    return State(room, you, frozenset(boxes))


@dataclass(frozen=True)
class Sokoban:
    """`solved` pays for the last box. With step_reward=-0.1, placed=1, solved=10 the rewards are those of RAGEN, which
    takes them from gym-sokoban.

    size     rows and columns of the room, with the walls around it
    boxes    and goals
    walls    share of the squares inside that are wall, so that rooms differ
    moves    least and most moves of a shortest solution
    corners  end the game as failed when a box is stuck in a corner; else the player has to notice
    step_reward  of every step
    placed   for each box that a step brings onto a goal, and its negative for each that leaves one
    """

    size: tuple[int, int] = (6, 6)
    boxes: int = 1
    walls: float = 0.15
    moves: tuple[int, int] = (3, 10)
    corners: bool = False
    step_reward: float = 0.0
    placed: float = 0.0
    solved: float = 1.0
    train: int = 512
    test: int = 128
    seed: int = 0
    name: str = "sokoban"

    def __post_init__(self) -> None:
        if not all(5 <= side <= 10 for side in self.size) or not 1 <= self.boxes <= 3:
            raise ValueError(
                f"size={self.size}, boxes={self.boxes}; give 5 to 10 rows and columns, and 1 to 3 boxes"
            )
        least, most = self.moves
        if not 1 <= least <= most:
            raise ValueError(f"moves={self.moves}; give (least, most), from 1")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the levels that hash to it."""
        return _start(self, split, index)

    def draw(self, rng: np.random.Generator) -> State | None:
        """A level with a box to push; None where no solution of the wanted length came out."""
        height, width = self.size
        inside = [(row, column) for row in range(1, height - 1) for column in range(1, width - 1)]
        floor = [cell for cell in inside if rng.random() >= self.walls]
        if len(floor) < 3 * self.boxes + 2:
            return None
        goals = frozenset(floor[place] for place in rng.permutation(len(floor))[: self.boxes])
        state = backwards(rng, Room(height, width, frozenset(floor), goals), 8 * self.moves[1])
        if state is None or state.placed:
            return None
        way = solution(state)
        return state if way and self.moves[0] <= len(way) <= self.moves[1] else None

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return (*listed(INSTRUCTION.text, INVALID, STUCK), *"#-@$.+*")

    def expert(self, state: State) -> str:
        """The next move of a shortest solution; where there is none, it gives up."""
        way = solution(state)
        return way[0] if way else GIVE_UP

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """Any step that moves something."""
        return one_of(rng, [way for way in MOVES if push(state, way) != state] or list(MOVES))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        count = self.train if split == "train" else self.test
        lengths = (len(solution(self.start(split, index)) or ()) for index in range(count))
        return listed_tasks(self, split, INSTRUCTION, lengths)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the level."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, drawn(state))

    async def step(self, state: State, action: str) -> Step:
        """`info` holds the anchor that was acted in, and whether the action was one."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        info = {"anchor": drawn(state), "valid": said in MOVES}
        if not info["valid"]:
            return Step(state, f"{INVALID}\n{drawn(state)}", self.step_reward, info=info)
        moved = push(state, said)
        reward = self.step_reward + self.placed * (moved.placed - state.placed)
        if moved.solved:
            moved = replace(moved, over=True)
            return Step(moved, drawn(moved), reward + self.solved, End.SOLVED, info)
        if self.corners and moved.boxes & moved.room.corners:
            moved = replace(moved, over=True)
            return Step(moved, f"{STUCK}\n{drawn(moved)}", reward, End.FAILED, info)
        return Step(moved, drawn(moved), reward, info=info)

    async def fork(self, state: State) -> State:
        return state


@lru_cache(maxsize=8192)
def _start(world: Sokoban, split: Split, index: int) -> State:
    key = Key(world.seed, ("sokoban", *world.size, world.boxes, split, index))
    return draw_for(split, key, world.draw, drawn)
