"""ALFWorld: household tasks in text, from ALFRED's scenes (arXiv:2010.03768), on the package's games.

    homes = ALFWorld()                       # the games that `alfworld-download` put under ~/.cache/alfworld
    seen = ALFWorld(held_out="valid_seen")   # the same rooms with other arrangements

A game is won or goes on; the reward is 1 when it is won. Each session has a planner's library of its own, 33 MB, that
computes what can be done; it is used again after `close`. The library cannot be copied, so a fork plays the history
again.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import sys
import threading
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ludus.envs.adapters.live import Held, Live, forked, not_copied
from ludus.envs.world import Split, action_of, one_of
from ludus.types import End, Explained, Message, Step, Task

KINDS = (
    "pick_and_place_simple",
    "look_at_obj_in_light",
    "pick_clean_then_place_in_recep",
    "pick_heat_then_place_in_recep",
    "pick_cool_then_place_in_recep",
    "pick_two_obj_and_place",
)

INSTRUCTION = Message(
    "system",
    "You are in a household. Do the task you are given. Write one action per turn, after Action:\n"
    "go to fridge 1 | open fridge 1 | close fridge 1 | take apple 1 from countertop 1 | move apple 1 to fridge 1\n"
    "heat apple 1 with microwave 1 | cool apple 1 with fridge 1 | clean apple 1 with sinkbasin 1\n"
    "use desklamp 1 | slice apple 1 with knife 1 | examine fridge 1 | look | inventory",
)

PACKAGE = "pip install alfworld"
LEFT_OUT = ("movable", "Sliced")  # in a folder's name; the text games have no rules for these
NOT_THE_WORLD = ("checked", "examined")  # facts about what was looked at


@dataclass(frozen=True)
class ALFWorld:
    """data  the folder with json_2.1.1/train and the others; else $ALFWORLD_DATA, else ~/.cache/alfworld

    held_out  what the test split is: other rooms (134 games as downloaded), or those of training (140)
    kinds     of KINDS, all six or some
    listed    whether an observation ends with the actions that do something now; info["actions"] has them anyway
    """

    data: str = ""
    held_out: Literal["valid_unseen", "valid_seen"] = "valid_unseen"
    kinds: Sequence[str] = KINDS
    listed: bool = False
    name: str = field(default="alfworld", kw_only=True)

    def __post_init__(self) -> None:
        if wrong := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"no kinds {wrong}; give some of {', '.join(KINDS)}")
        if self.held_out not in ("valid_unseen", "valid_seen"):
            raise ValueError(f"held_out={self.held_out!r}; give 'valid_unseen' or 'valid_seen'")

    @cached_property
    def folder(self) -> Path:
        asked = self.data or os.environ.get("ALFWORLD_DATA") or "~/.cache/alfworld"
        return Path(asked).expanduser() / "json_2.1.1"

    @cached_property
    def games(self) -> dict[Split, dict[str, str]]:
        """Split -> folder of a game -> its kind. Reads every game once, as their solvability is noted in them."""
        return {"train": self._games("train"), "test": self._games(self.held_out)}

    def _games(self, part: str) -> dict[str, str]:
        found = dict[str, str]()
        for file in sorted((self.folder / part).rglob("game.tw-pddl")):
            place = file.parent.relative_to(self.folder).as_posix()
            kind = _read(file.with_name("traj_data.json")).get("task_type", "")
            wanted = kind in self.kinds and not any(word in place for word in LEFT_OUT)
            if wanted and _read(file).get("solvable"):
                found[place] = kind
        if not found:
            raise Explained(
                f"there are no games of ALFWorld in {self.folder / part}; type: {PACKAGE} && alfworld-download\n"
                "or, where they are elsewhere, set ALFWORLD_DATA to the folder that has json_2.1.1"
            )
        return found

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                f"{self.name}-{place}",
                (INSTRUCTION,),
                env=self.name,
                domain=kind,
                extras={"split": split, "game": place},
            )
            for place, kind in self.games[split].items()
        )

    def _place(self, task: Task) -> Path:
        match task.extras:
            case {"split": "train" | "test" as split, "game": str(place)} if (
                place in self.games[split] and task.env == self.name
            ):
                return self.folder / place / "game.tw-pddl"
        raise ValueError(
            f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
            "take tasks from env.tasks('train') or env.tasks('test')"
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the game fixes everything."""
        game = await asyncio.to_thread(_started, self._place(task))
        seen = self._shown(game.state)
        return Step(Live(task, seed, (), seen, held=Held(game)), seen, info=_info(game.state))

    async def step(self, state: Live, action: str) -> Step:
        game = state.enter()
        if game is None:
            raise ValueError("this state was closed; call reset for a new one")
        before = game.state
        said = action_of(action).lower()
        told, _, won = game.step(said)
        seen = self._shown(told)
        after = state.after(action, seen, won)
        info = {
            **_info(told),
            "anchor": _anchor(before),
            "valid": said in before.admissible_commands,
        }
        return Step(after, seen, float(won), End.SOLVED if won else None, info)

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, not_copied)

    async def close(self, state: Live) -> None:
        game, state.held.thing = state.held.thing, None
        if game is not None:
            _IDLE.append(game)

    def _shown(self, told: Any) -> str:
        text = told.feedback.strip()
        if not self.listed or told.won:
            return text
        return f"{text}\n\nYou can: {', '.join(told.admissible_commands)}"

    # ------------------------------------------------------------------------------------ players

    def expert(self, state: Live) -> str:
        """The next action of the planner's solution, which knows where everything is."""
        game = state.held.thing
        return next(iter(game._pddl_state.replan(game._entity_infos)), "look")

    def beginner(self, state: Live, rng: np.random.Generator) -> str:
        return one_of(rng, state.held.thing.state.admissible_commands)


def _read(file: Path) -> dict[str, Any]:
    """What a game's file says; nothing where it is not there or cut short, so that the game is left out."""
    try:
        return json.loads(file.read_text())
    except (FileNotFoundError, ValueError):
        return {}


def _info(told: Any) -> dict[str, Any]:
    return {"actions": tuple(told.admissible_commands)}


def _anchor(told: Any) -> str:
    """A short name of where everything is; looking changes nothing of it."""
    facts = sorted(str(fact) for fact in told["_facts"] if fact.name not in NOT_THE_WORLD)
    return hashlib.blake2b("\n".join(facts).encode(), digest_size=8).hexdigest()


# ---------------------------------------------------------------------------------------------- games

_ONE_AT_A_TIME = (
    threading.Lock()
)  # the translation of a game captures sys.stdout and sets options of its module
_IDLE: list[Any] = []  # games that were closed; another one is loaded into their library


def _started(file: Path) -> Any:
    try:
        import textworld
        from alfworld.agents.environment.alfred_tw_env import (  # pyright: ignore[reportMissingImports]
            AlfredDemangler,
        )
        from textworld.envs import PddlEnv
    except ImportError as error:
        raise Explained(f"ALFWorld is not installed ({error}); type: {PACKAGE}") from error

    with _ONE_AT_A_TIME:
        arguments = sys.argv  # the package's translator puts its own there
        try:
            infos = textworld.EnvInfos(won=True, admissible_commands=True)
            game = _IDLE.pop() if _IDLE else PddlEnv(infos)
            AlfredDemangler(game).load(str(file))  # names such as "apple 1"
            game.reset()
        except ImportError as error:
            raise Explained(f"ALFWorld lacks its planner ({error}); type: {PACKAGE}") from error
        finally:
            sys.argv = arguments
    return game
