"""TextWorld: generated text adventures with rooms, doors, containers and a quest (arXiv:1806.11532).

The games are made by the `textworld` package, compiled with the Inform 7 that it brings and run in its interpreter, so
what is read is what a player of interactive fiction reads. A game takes seconds to make and is kept under
~/.cache/ludus/textworld (LUDUS_CACHE). The interpreter's memory can be copied, so a state can be forked.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import tempfile
import threading
import warnings
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ludus.envs.world import Split, action_of, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Message, Step, Task

INSTRUCTION = Message(
    "system",
    "You play a text adventure. Do what it asks of you. Write one command per turn, after Action:, such as\n"
    "look | inventory | examine chest | go east | open chest | close chest | unlock door with key\n"
    "take apple from table | take apple | drop apple | put apple on table | insert apple into chest | eat apple",
)

VERBS = frozenset(
    "look l inventory i examine x go n s e w north south east west open close lock unlock take get pick drop "
    "put insert eat drink cook slice chop dice prepare read".split()
)
NO_COMMAND = "That is no command that you can give here."
ATTEMPTS = 20  # seeds tried for a game; not every map has a quest of every length


@dataclass(frozen=True)
class Size:
    """How hard a game is: rooms, things that lie about, and commands that its quest takes at least."""

    rooms: int = 3
    objects: int = 6
    quest: int = 3

    def __post_init__(self) -> None:
        if min(self.rooms, self.objects, self.quest) < 1:
            raise ValueError(f"{self}; give at least 1 of each")


@dataclass(eq=False)
class State:
    """A game under way. `game` is the package's environment, which changes in place; `told` is what it last said."""

    game: Any
    told: Any
    over: bool = False


@dataclass(frozen=True)
class TextWorld:
    """Games by seed: those of the two splits are generated from different ones.

    sizes   task i has the size i modulo their number
    train   games of the train split; likewise test
    listed  whether each observation ends with the commands that do something now; info["actions"] has them anyway
    """

    sizes: Sequence[Size] = (Size(),)
    train: int = 100
    test: int = 50
    listed: bool = False
    seed: int = 0
    name: str = field(default="textworld", kw_only=True)

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(INSTRUCTION,),
                env=self.name,
                difficulty=self._size(index).quest,
                extras={"split": split, "index": index},
            )
            for index in range(self.train if split == "train" else self.test)
        )

    def _size(self, index: int) -> Size:
        return self.sizes[index % len(self.sizes)]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the game."""
        split, index = place_of(self, task, {"train": self.train, "test": self.test})
        key = Key(self.seed, ("textworld", split, index))
        game = await asyncio.to_thread(lambda: started(made(self._size(index), key)))
        told = game.reset()
        state = State(game, told)
        return Step(state, self._shown(told, f"{told.objective}\n\n{told.description.strip()}"))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        before = state.told
        said = command(action_of(action))
        if said is None:
            info = {
                "anchor": _anchor(before),
                "valid": False,
                "actions": tuple(before.admissible_commands),
            }
            return Step(state, self._shown(before, NO_COMMAND), info=info)
        told, _, _ = state.game.step(said)
        state.told = told
        gained = (told.score - (before.score or 0)) / told.max_score
        end = End.SOLVED if told.won else End.FAILED if told.lost else None
        state.over = end is not None
        info = {
            "anchor": _anchor(before),
            "valid": said in {each.lower() for each in before.admissible_commands},
            "actions": tuple(told.admissible_commands),
        }
        return Step(state, self._shown(told, read(told.feedback)), gained, end, info)

    async def fork(self, state: State) -> State:
        game = await asyncio.to_thread(state.game.copy)
        return State(game, state.told.copy(), state.over)

    async def close(self, state: State) -> None:
        state.over = True
        state.game.close()

    def _shown(self, told: Any, text: str) -> str:
        if not self.listed or told.won or told.lost:
            return text
        return f"{text}\n\nYou can: {', '.join(told.admissible_commands)}"

    # ------------------------------------------------------------------------------------ players

    def expert(self, state: State) -> str:
        """The next command of a winning policy, found by the package; `look` where the game cannot be won any more."""
        return next(iter(state.told.policy_commands), "look")

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return one_of(rng, state.told.admissible_commands)


def command(action: str) -> str | None:
    """What may be typed into the interpreter, or None.

    Its other verbs write files (save, script), end or begin the program anew (quit, restart) or change how it prints;
    `then` would let one follow another. It reads ASCII alone.
    """
    said = " ".join(re.sub(r"[^a-z0-9 '-]+", " ", action.lower())[:100].split())
    words = said.split(" ")
    return said if words[0] in VERBS and "then" not in words else None


def read(feedback: str) -> str:
    """What the game said, without the status line and the questions after the end."""
    said = feedback.partition("*** The End ***")[0]
    lines = [line.strip() for line in said.splitlines() if not line.startswith(">")]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def _anchor(told: Any) -> str:
    return f"{told.description.strip()}\n{told.inventory.strip()}"


# ---------------------------------------------------------------------------------------------- games

_ONE_AT_A_TIME = threading.Lock()  # the package's grammars and parsers are shared by all games


def made(size: Size, key: Key) -> Path:
    """The compiled game of this key and size; the same for the same version of the package."""
    textworld = _package()
    parts = (textworld.__version__, key.seed, *key.path, *astuple(size))
    name = hashlib.blake2b(repr(parts).encode(), digest_size=12).hexdigest()
    parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "textworld"
    folder = parent / name
    if not folder.exists():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as making, _ONE_AT_A_TIME:
            _make(textworld, size, key, Path(making) / "game")
            try:
                (Path(making) / "game").rename(folder)
            except OSError:  # made by somebody else in the meantime: it is the same game
                if not folder.exists():
                    raise
    return folder / "game.z8"


def _make(textworld: Any, size: Size, key: Key, folder: Path) -> None:
    from textworld.generator import compile_game, make_game
    from textworld.generator.chaining import QuestGenerationError

    for attempt in range(ATTEMPTS):
        options = textworld.GameOptions()
        options.nb_rooms, options.nb_objects = size.rooms, size.objects
        options.chaining.min_length = options.chaining.max_length = size.quest
        options.chaining.max_depth = size.quest
        options.seeds = (key / attempt).integer() % 2**31
        options.path = str(folder / "game.z8")
        try:
            game = make_game(options)
        except QuestGenerationError:
            continue
        compile_game(game, options)
        return
    raise ValueError(
        f"{ATTEMPTS} maps of {size} had no quest of {size.quest} commands; give more rooms or a shorter quest"
    )


def started(path: Path) -> Any:
    textworld = _package()
    infos = textworld.EnvInfos(
        feedback=True,
        description=True,
        inventory=True,
        objective=True,
        admissible_commands=True,
        policy_commands=True,
        score=True,
        max_score=True,
        won=True,
        lost=True,
    )
    with _ONE_AT_A_TIME:
        return textworld.start(str(path), infos)


def _package() -> Any:
    try:
        import textworld
    except ImportError as error:
        raise ImportError(
            f"TextWorld needs its package ({error}); pip install textworld"
        ) from error
    # Its interpreter knows the scores of published games alone; the package counts those of its own games itself.
    warnings.filterwarnings("ignore", "Game .* is not fully supported", module="jericho")
    return textworld
