"""Frozen Lake: walk over the ice to the goal, around the holes; on slippery ice a step may go to the side.

    @---        @ you   - ice   ! hole   * goal
    -!-!
    ---!
    !--*

The game of Gymnasium and of RAGEN (arXiv:2504.20073), on lakes that are drawn anew for every task. In both, a step on
slippery ice goes where it was meant to with probability 1/3 and to either side with 1/3: slip=2/3. Where the ice slips
is fixed by the seed and the number of the step, so a state stepped twice slips twice alike, and a fork is the state.
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
    "Walk to the goal * and into no hole ! on the way. You are @, and - is ice. Write one word: up, down, left or "
    "right. Write give up if you cannot go on.",
)
SLIPPERY = Message("system", INSTRUCTION.text + " The ice is slippery: a step may go to the side.")
SIDES = {
    "up": ("left", "right"),
    "down": ("left", "right"),
    "left": ("up", "down"),
    "right": ("up", "down"),
}


@dataclass(frozen=True)
class Lake:
    """A square of ice; the walk begins at the top left and ends at the bottom right."""

    size: int
    holes: frozenset[Cell]

    @property
    def goal(self) -> Cell:
        return self.size - 1, self.size - 1

    def step(self, cell: Cell, direction: str) -> Cell:
        """The neighbour; at the edge one stays."""
        row, column = after(cell, direction)
        return min(max(row, 0), self.size - 1), min(max(column, 0), self.size - 1)

    def ends(self, cell: Cell) -> bool:
        return cell in self.holes or cell == self.goal


@dataclass(frozen=True)
class State:
    """`luck` is the name of the numbers that say where steps slip; `steps` were taken."""

    lake: Lake
    you: Cell = (0, 0)
    steps: int = 0
    luck: Key = field(default_factory=lambda: Key(0), repr=False)
    over: bool = False


def outcomes(direction: str, slip: float) -> dict[str, float]:
    """Where a step may go, and how likely: to each side with half of `slip`."""
    first, second = SIDES[direction]
    return {direction: 1 - slip, first: slip / 2, second: slip / 2}


def slipped(state: State, direction: str, slip: float) -> str:
    """Where this step goes: [0, 1 - slip) as meant, then one side, then the other."""
    if not slip:
        return direction
    point = (state.luck / state.steps).generator().random()
    if point < 1 - slip:
        return direction
    return SIDES[direction][int(point >= 1 - slip / 2)]


def drawn(state: State) -> str:
    """The lake as text, one row a line."""
    lake = state.lake

    def symbol(cell: Cell) -> str:
        if cell == state.you:
            return "@"
        return "!" if cell in lake.holes else "*" if cell == lake.goal else "-"

    return "\n".join(
        "".join(symbol((row, column)) for column in range(lake.size)) for row in range(lake.size)
    )


def way(lake: Lake) -> tuple[str, ...] | None:
    """A shortest walk around the holes, if no step slips; None where there is none."""

    def moves(cell: Cell) -> Iterator[tuple[str, Cell]]:
        for direction in MOVES:
            to = lake.step(cell, direction)
            if to not in lake.holes:
                yield direction, to

    return shortest((0, 0), moves, lambda cell: cell == lake.goal)


DISCOUNT = 0.999  # so near 1 that the surest way is taken, and the shortest of equally sure ones


@lru_cache(maxsize=4096)
def chances(lake: Lake, slip: float) -> dict[Cell, dict[str, float]]:
    """Cell -> direction -> the discounted chance of reaching the goal by that step and the best ones after it.

    Q(s, a) = DISCOUNT sum over s' of p(s' | s, a) max over a' of Q(s', a'), with 1 at the goal and 0 in the holes;
    by value iteration until nothing changes by more than 1e-9.
    """
    size, ways = lake.size, list(MOVES)
    cells = [(row, column) for row in range(size) for column in range(size)]
    going = np.array([[cells.index(lake.step(cell, way)) for cell in cells] for way in ways])
    share = np.array([[outcomes(way, slip).get(to, 0.0) for to in ways] for way in ways])
    fixed = np.array([lake.ends(cell) for cell in cells])
    value = np.array([float(cell == lake.goal) for cell in cells])
    while True:
        chance = DISCOUNT * share @ value[going]  # [way, cell]
        new = np.where(fixed, value, chance.max(0))
        if np.abs(new - value).max() <= 1e-9:
            break
        value = new
    return {
        cell: dict(zip(ways, chance[:, i].tolist(), strict=True)) for i, cell in enumerate(cells)
    }


@dataclass(frozen=True)
class FrozenLake:
    """Reward 1 at the goal, as in Gymnasium and RAGEN.

    size     rows and columns
    holes    share of the squares that are holes (Gymnasium: 0.2); there is always a way around them
    slip     chance that a step goes to one of both sides (2/3 in the original; 0 is safe to walk on)
    goal     reward at the goal
    invalid  subtracted for what is no action
    """

    size: int = 4
    holes: float = 0.2
    slip: float = 0.0
    goal: float = 1.0
    invalid: float = 0.0
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "frozen lake"

    def __post_init__(self) -> None:
        if not 3 <= self.size <= 12 or not 0 < self.holes < 0.6 or not 0 <= self.slip <= 1:
            raise ValueError(
                f"size={self.size}, holes={self.holes}, slip={self.slip}; "
                "give a size from 3 to 12, holes between 0 and 0.6, and slip from 0 to 1"
            )

    def start(self, split: Split, index: int) -> State:
        """The test split gets the lakes that hash to it."""
        return State(_lake(self, split, index), luck=Key(0, ("frozen lake", split, index)))

    def draw(self, rng: np.random.Generator) -> Lake | None:
        """A lake with a way to the goal, or None."""
        inside = [(row, column) for row in range(self.size) for column in range(self.size)][1:-1]
        lake = Lake(self.size, frozenset(cell for cell in inside if rng.random() < self.holes))
        return lake if way(lake) else None

    # ------------------------------------------------------------------------------------ players

    @property
    def instruction(self) -> Message:
        return SLIPPERY if self.slip else INSTRUCTION

    def words(self) -> tuple[str, ...]:
        return (*listed(SLIPPERY.text, INVALID), *"@-!*")

    def expert(self, state: State) -> str:
        """The step of the best chance. Where steps do not slip, that is the shortest way."""
        chance = chances(state.lake, self.slip)[state.you]
        return max(MOVES, key=lambda way: chance[way])

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return one_of(rng, tuple(MOVES))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The difficulty is the length of the shortest way."""
        count = self.train if split == "train" else self.test
        lengths = (len(way(self.start(split, index).lake) or ()) for index in range(count))
        return listed_tasks(self, split, self.instruction, lengths)

    async def reset(self, task: Task, seed: int) -> Step:
        """The task fixes the lake, and `seed` where the ice slips: the answers of a group meet the same ice."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        state = replace(state, luck=Key(seed, state.luck.path))
        return Step(state, drawn(state))

    async def step(self, state: State, action: str) -> Step:
        """`info` holds the anchor that was acted in, and whether the action was one."""
        refuse_if_over(state.over)
        said = action_of(action).lower()
        if said == GIVE_UP:
            return given_up(state)
        info = {"anchor": drawn(state), "valid": said in MOVES}
        if not info["valid"]:
            return Step(state, f"{INVALID}\n{drawn(state)}", 0.0 - self.invalid, info=info)
        cell = state.lake.step(state.you, slipped(state, said, self.slip))
        moved = replace(state, you=cell, steps=state.steps + 1, over=state.lake.ends(cell))
        if cell == state.lake.goal:
            return Step(moved, "you are at the goal", self.goal, End.SOLVED, info)
        if moved.over:
            return Step(moved, "you fell into a hole", 0.0, End.FAILED, info)
        return Step(moved, drawn(moved), info=info)

    async def fork(self, state: State) -> State:
        return state


@lru_cache(maxsize=8192)
def _lake(world: FrozenLake, split: Split, index: int) -> Lake:
    key = Key(world.seed, ("frozen lake", world.size, split, index))
    return draw_for(split, key, world.draw, lambda lake: sorted(lake.holes))
