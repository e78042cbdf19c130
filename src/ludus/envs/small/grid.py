"""A grid to walk on, told in words: `you 1 2 goal 3 0`. The same cell always looks the same.

That makes it the world for credit that compares what was done in one state (GiGPO, arXiv:2505.10978): rollouts of a
task meet in cells again and again. Every step's `info` holds

    anchor   what was seen when the action was chosen, without history and without words about the last action
    valid    False for what is no action; the walker then stays where it is
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.world import Split, action_of, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

Cell = tuple[int, int]
MOVES = {"right": (1, 0), "left": (-1, 0), "up": (0, -1), "down": (0, 1), "stay": (0, 0)}
INVALID = "no such action"


@dataclass(frozen=True)
class State:
    at: Cell
    goal: Cell
    over: bool = False


@dataclass(frozen=True)
class Grid:
    """`grid()` and `corridor()` make one.

    actions  those of MOVES that there are; a step off the grid stays
    starts   split -> the state that each task begins in
    success  reward for reaching the goal (GiGPO's recipes give 10)
    invalid  subtracted from the reward of a step that was no action (GiGPO: 0.1)
    """

    width: int
    height: int
    actions: tuple[str, ...]
    starts: Mapping[Split, Sequence[State]]
    success: float = 1.0
    invalid: float = 0.0
    name: str = "grid"

    def move(self, cell: Cell, action: str) -> Cell:
        x, y = MOVES[action]
        return (
            min(max(cell[0] + x, 0), self.width - 1),
            min(max(cell[1] + y, 0), self.height - 1),
        )

    def look(self, state: State) -> str:
        """All there is to know; a grid of one row has one number a cell."""

        def told(cell: Cell) -> str:
            return f"{cell[0]} {cell[1]}" if self.height > 1 else f"{cell[0]}"

        return f"you {told(state.at)} goal {told(state.goal)}"

    # ------------------------------------------------------------------------------------ players

    @property
    def instruction(self) -> Message:
        *others, last = self.actions
        return Message("system", f"Reach the goal. Write one word: {', '.join(others)} or {last}.")

    def words(self) -> tuple[str, ...]:
        return listed(self.instruction.text, "you goal", INVALID)

    def expert(self, state: State) -> str:
        """The first action that comes closer."""

        def distance(cell: Cell) -> int:
            return abs(cell[0] - state.goal[0]) + abs(cell[1] - state.goal[1])

        return min(self.actions, key=lambda action: distance(self.move(state.at, action)))

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return one_of(rng, self.actions)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(self.instruction,),
                env=self.name,
                difficulty=sum(abs(a - b) for a, b in zip(start.at, start.goal, strict=True)),
                extras={"split": split, "index": index},
            )
            for index, start in enumerate(self.starts[split])
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes where the walk begins and ends."""
        split, index = place_of(self, task, {s: len(of) for s, of in self.starts.items()})
        state = self.starts[split][index]
        return Step(state, self.look(state))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        info = {"anchor": self.look(state), "valid": True}
        word = action_of(action).lower()
        if word not in self.actions:
            seen = f"{INVALID}. {info['anchor']}"
            return Step(state, seen, 0.0 - self.invalid, info={**info, "valid": False})
        cell = self.move(state.at, word)
        after = replace(state, at=cell, over=cell == state.goal)
        if after.over:
            return Step(after, self.look(after), self.success, End.SOLVED, info)
        return Step(after, self.look(after), info=info)

    async def fork(self, state: State) -> State:
        return state


# ---------------------------------------------------------------------------------------------- two grids


def grid(width: int = 4, height: int = 4, held_out: float = 0.2, seed: int = 0) -> Grid:
    """Every pair of different cells is a task, a share of them only in the test split (4 x 4: 192 and 48)."""
    if width < 2 or height < 2 or width > 10 or height > 10:
        raise ValueError(f"width={width}, height={height}; give 2 to 10, or corridor() for one row")
    cells = [(x, y) for y in range(height) for x in range(width)]
    pairs = [State(at, goal) for at in cells for goal in cells if at != goal]
    order = Key(seed, ("grid", "split")).generator().permutation(len(pairs))
    test = round(held_out * len(pairs))
    if not 0 < test < len(pairs):
        raise ValueError(
            f"held_out={held_out} of {len(pairs)} tasks leaves one split empty; give 0.2, say"
        )
    starts: dict[Split, list[State]] = {
        "test": [pairs[place] for place in order[:test]],
        "train": [pairs[place] for place in order[test:]],
    }
    return Grid(width, height, ("right", "left", "up", "down"), starts)


def corridor(cells: int = 6, start: int = 0) -> Grid:
    """One row, from cell `start` to the last; right, left or stay. One task, the same in both splits: what is measured
    is how many steps a policy still wastes, and there is nothing to generalise to."""
    if not 2 <= cells <= 10 or not 0 <= start < cells - 1:
        raise ValueError(
            f"cells={cells}, start={start}; give 2 to 10 cells, and a start before the last"
        )
    begin = (State((start, 0), (cells - 1, 0)),)
    starts: dict[Split, Sequence[State]] = {"train": begin, "test": begin}
    return Grid(cells, 1, ("right", "left", "stay"), starts, name="corridor")
