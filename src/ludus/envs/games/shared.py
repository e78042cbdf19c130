"""What the small games share: directions, the end of a player who gives up, lists of tasks, breadth-first search."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import replace
from typing import Any, TypeVar

from ludus.envs.world import Split
from ludus.types import End, Env, Message, Step, Task

Cell = tuple[int, int]
"""(row, column), counted from 0 at the top left."""

MOVES = {"up": (-1, 0), "down": (1, 0), "left": (0, -1), "right": (0, 1)}
GIVE_UP = "give up"
INVALID = "no such action"

S = TypeVar("S", bound=Hashable)


def after(cell: Cell, direction: str) -> Cell:
    """The neighbour in one of MOVES."""
    row, column = MOVES[direction]
    return cell[0] + row, cell[1] + column


def given_up(state: Any) -> Step:
    """The player's own end, kept apart from a lost game."""
    return Step(replace(state, over=True), "you gave up", 0.0, End.GAVE_UP)


def listed_tasks(
    env: Env, split: Split, instruction: Message, difficulties: Iterable[float]
) -> Sequence[Task]:
    """One task for each difficulty; `extras` name its place, as `world.place_of` reads it."""
    return [
        Task(
            id=f"{env.name}-{split}-{index}",
            prompt=(instruction,),
            env=env.name,
            difficulty=difficulty,
            extras={"split": split, "index": index},
        )
        for index, difficulty in enumerate(difficulties)
    ]


def shortest(
    start: S, moves: Callable[[S], Iterable[tuple[str, S]]], done: Callable[[S], bool]
) -> tuple[str, ...] | None:
    """The actions of a shortest way from `start` to a state that is done; None where there is no way.

    moves  state -> (action, the state that it leads to); the first of equals wins, so the way is always the same
    """
    came: dict[S, tuple[S, str] | None] = {start: None}
    waiting = deque([start])
    while waiting:
        state = waiting.popleft()
        if done(state):
            way: list[str] = []
            while (step := came[state]) is not None:
                state, action = step
                way.append(action)
            return tuple(reversed(way))
        for action, following in moves(state):
            if following not in came:
                came[following] = (state, action)
                waiting.append(following)
    return None
