"""What the small worlds share: their protocol, held-out splits, the reading of an action, and scripted play.

A small world is an environment that brings its own players (one who knows what to do, one who does not) and the list
of its words, so that a tokenizer can be made for it and a base model can be trained on its games:

    game = asyncio.run(play(world, task, seed=0, player=mixed(world, 0.3), rng=rng))
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import numpy as np

from ludus.types import End, Env, Key, Message, Step, Task

T = TypeVar("T")
Split = Literal["train", "test"]


@runtime_checkable
class World(Env, Protocol):
    """An environment with players.

    words     every word that the world writes or understands, without digits and common punctuation; what is said after
              the last action is no part of a context and may have other words
    expert    an action that leads to success; where things come to light by and by, it is chosen by what was shown
    beginner  an action that follows the rules and serves no purpose
    """

    def words(self) -> tuple[str, ...]: ...
    def expert(self, state: Any) -> str: ...
    def beginner(self, state: Any, rng: np.random.Generator) -> str: ...


def listed(*texts: str) -> tuple[str, ...]:
    """The different words of some texts, sorted, without digits and the punctuation around them."""
    kept = "".join(letter if letter.isalpha() else " " for letter in " ".join(texts))
    return tuple(sorted(set(kept.split())))


def one_of(rng: np.random.Generator, things: Sequence[T]) -> T:
    return things[int(rng.integers(len(things)))]


# ---------------------------------------------------------------------------------------------- held-out tasks


def side(identity: object) -> Split:
    """The split that a thing belongs to, by a hash of its repr: nothing that is drawn twice is in both."""
    digest = hashlib.blake2b(repr(identity).encode(), digest_size=8).digest()
    return "test" if digest[0] % 2 == 0 else "train"


ATTEMPTS = 200  # two on average; more are only needed where hardly anything different can be drawn


def draw_for(
    split: Split,
    key: Key,
    draw: Callable[[np.random.Generator], T | None],
    identity: Callable[[T], object],
) -> T:
    """The first draw that belongs to `split`; a draw of None did not succeed and is made again."""
    for attempt in range(ATTEMPTS):
        made = draw((key / attempt).generator())
        if made is not None and side(identity(made)) == split:
            return made
    raise ValueError(
        f"{ATTEMPTS} draws at {key.path} gave nothing for the {split} split; make the world larger, "
        "so that more different tasks exist"
    )


def place_of(env: Env, task: Task, counts: Mapping[Split, int]) -> tuple[Split, int]:
    """Split and index of a task whose `extras` name them; an error for the task of another environment."""
    match task.extras:
        case {"split": "train" | "test" as split, "index": int(index)} if (
            0 <= index < counts[split] and task.env == env.name
        ):
            return split, index
    raise ValueError(
        f"task {task.id!r} with extras {dict(task.extras)} is none of {env.name}; "
        "take tasks from env.tasks('train') or env.tasks('test')"
    )


# ---------------------------------------------------------------------------------------------- actions

LONGEST = 1000  # characters of an action; what the small worlds understand has a few dozen


def action_of(message: str) -> str:
    """The action of a message: what follows its last `Action:`, or else all of it, on one line without a full stop."""
    said = message.rpartition("Action:")[2][: LONGEST + 1]
    return " ".join(said.split()).rstrip(".")[:LONGEST]


def refuse_if_over(over: bool) -> None:
    if over:
        raise ValueError("this episode is over; call reset for a new one")


# ---------------------------------------------------------------------------------------------- scripted play

Player = Callable[[Any, np.random.Generator], str]
"""(state, rng) -> action"""


def mixed(world: World, share: float) -> Player:
    """A player who does what the expert does in this share of its turns, and else what the beginner does."""

    def player(state: Any, rng: np.random.Generator) -> str:
        return world.expert(state) if rng.random() < share else world.beginner(state, rng)

    return player


@dataclass(frozen=True)
class Game:
    """One scripted attempt: the messages before the first action, then each action and what it led to."""

    task: Task
    opening: tuple[Message, ...]
    turns: tuple[tuple[str, Step], ...]
    end: End

    @property
    def reward(self) -> float:
        return sum(step.reward for _, step in self.turns)


async def play(
    env: Env, task: Task, seed: int, player: Player, rng: np.random.Generator, max_turns: int = 100
) -> Game:
    """Play until the world ends the game or the turns run out."""
    step = await env.reset(task, seed)
    opening = (*task.prompt, Message("user", step.observation))
    turns: list[tuple[str, Step]] = []
    while step.end is None and len(turns) < max_turns:
        action = player(step.state, rng)
        step = await env.step(step.state, action)
        turns.append((action, step))
    return Game(task, opening, tuple(turns), step.end or End.OUT_OF_TURNS)
