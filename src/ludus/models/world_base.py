"""A base model for a small world: it follows the world's rules and has little idea of what to do.

Made from random weights on games of a player who knows what to do in a share of its turns, and kept under
~/.cache/ludus (LUDUS_CACHE), so that a recipe can name it as its model and the first run makes it:

    Recipe(env=grid(4, 4), model=WorldBase(grid(4, 4), share=0.2), ...)
"""

from __future__ import annotations

import asyncio
import dataclasses
import hashlib
import inspect
import json
import os
import re
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ludus.envs.world import World, mixed, play
from ludus.models import base, tiny
from ludus.types import Key


@dataclass(frozen=True)
class Stage:
    """So many steps of games in which the player knows what to do in this share of its turns."""

    steps: int
    share: float


@dataclass(frozen=True)
class WorldBase:
    """How a base is made.

    world   its training tasks are played; held-out ones are not
    share   of turns in which the player knows what to do
    steps   of training, `games` games each
    turns   most turns of a game
    shown   weight of a token that the world writes, against one of the player's
    adam    peak rate of AdamW, reached after `warmup` steps and falling to 0 over the last third
    first   stages before that one, such as Stage(800, 0.9): what must be copied out of the context is learnt from many
            good games; a few poor ones then make habits for reinforcement learning to break
    muon    rate of Muon for the matrices of the body; 0 leaves them to AdamW, which learns to copy names out of the
            context from many more games
    """

    world: World
    share: float = 0.2
    steps: int = 300
    games: int = 32
    turns: int = 20
    shown: float = 0.1
    adam: float = 4e-3
    warmup: int = 30
    first: tuple[Stage, ...] = ()
    muon: float = 0.0
    size: tiny.Size = dataclasses.field(
        default_factory=lambda: tiny.Size(
            hidden=64, layers=2, heads=4, shared=2, head=16, inner=192
        )
    )
    seed: int = 1

    @property
    def fingerprint(self) -> str:
        """A hash of all that the weights depend on: settings, world, the code of both, versions."""
        told = json.dumps([_told(self), base.used()], sort_keys=True).encode()
        code = [
            Path(inspect.getfile(c)).read_bytes()
            for c in (type(self), WorldBase, type(self.world), tiny.Size)
        ]
        return hashlib.sha256(b"".join([told, *code])).hexdigest()[:16]

    def folder(self, seed: int = 0, *, show: bool = True) -> Path:
        """The folder of the base, one for all seeds of a run; made where it is not there yet."""
        parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "bases"
        where = parent / self.fingerprint
        if not where.exists():
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent) as temporary:
                made = Path(temporary) / "base"
                made.mkdir()
                model, tokenizer = self.build(show)
                model.save_pretrained(made)
                tokenizer.save_pretrained(made)
                (made / "base.json").write_text(json.dumps(_told(self), indent=1) + "\n")
                made.rename(where)
        return where

    def texts(self) -> Iterator[list[list[str]]]:
        """The games of each step as pieces of text: prompt, said, shown, said ... said."""
        tasks = self.world.tasks("train")
        shares = [s.share for s in self.first for _ in range(s.steps)] + [self.share] * self.steps
        for step, share in enumerate(shares):
            player = mixed(self.world, share)
            rng = (Key(self.seed) / "world base" / step).generator()
            games = [
                play(self.world, tasks[int(i)], int(rng.integers(2**31)), player, rng, self.turns)
                for i in rng.integers(len(tasks), size=self.games)
            ]
            yield [pieces(game) for game in asyncio.run(_in_turn(games))]

    def build(self, show: bool = False) -> tuple[PreTrainedModel, Any]:
        """Train it; deterministic for one number of threads, which is set to 1 here."""
        from rich.progress import track

        from ludus.engines.local.model import CausalModel

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            tokenizer = tiny.tokenizer(self.world.words())
            model = CausalModel(tiny.model(self.size, len(tokenizer), self.seed))
            movers = self._optimisers(model.module)
            steps = self.steps + sum(stage.steps for stage in self.first)
            work = track(self.texts(), f"base of {self.world.name}", steps, disable=not show)
            for step, texts in enumerate(work):
                rate = min(1.0, (step + 1) / self.warmup, 3 * (steps - step) / steps)
                base.loss_of(model, *self._encoded(texts, tokenizer)).backward()
                torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
                for mover, peak in movers:
                    mover.param_groups[0]["lr"] = peak * rate
                    mover.step()
                    mover.zero_grad()
            return model.module, tokenizer
        finally:
            torch.set_num_threads(threads)

    def _optimisers(self, model: PreTrainedModel) -> list[tuple[torch.optim.Optimizer, float]]:
        """Each with its peak rate."""
        if not self.muon:
            adam = torch.optim.AdamW(
                model.parameters(), self.adam, betas=(0.9, 0.98), weight_decay=0.0
            )
            return [(adam, self.adam)]
        settings = base.Settings(muon=self.muon, adam=self.adam)
        return list(zip(base.optimisers(model, settings), (self.muon, self.adam), strict=True))

    def _encoded(
        self, texts: list[list[str]], tokenizer: Any
    ) -> tuple[list[np.ndarray], list[np.ndarray]]:
        return base.encode([(text, (1.0, self.shown)) for text in texts], tokenizer)


async def _in_turn(games: list[Any]) -> list[Any]:
    return [await game for game in games]


def pieces(game: Any) -> list[str]:
    """A game of `envs.world.play` in the template of tiny tokenizers."""
    opening = "".join(f"<|{m.role}|>{m.text}{tiny.END}" for m in game.opening)
    told = [f"{opening}<|assistant|>"]
    for action, step in game.turns:
        told += [f"{action}{tiny.END}", f"<|user|>{step.observation}{tiny.END}<|assistant|>"]
    return told[:-1]


def _told(made: WorldBase) -> dict[str, Any]:
    plain = {f.name: getattr(made, f.name) for f in dataclasses.fields(made)}
    # a function in a world is told by its name; where it lies in memory is no setting
    world = re.sub(r" at 0x[0-9a-f]+", "", repr(made.world))
    first = [asdict(stage) for stage in made.first]
    return {**plain, "world": world, "size": asdict(made.size), "first": first}
