"""A model after supervised fine-tuning on written answers: where preference learning and PPO usually begin.

first, second = (Tuned(base, Lines(world), order=n) for n in (1, 2))      # two of one ancestor
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import ludus
from ludus.models import base
from ludus.types import Key, Optim, Task

if TYPE_CHECKING:
    from ludus.train.recipe import Made

Written = Callable[[Key], Sequence[tuple[Task, str]]]
"""key -> tasks with an answer each; a frozen dataclass with __call__, so that its settings are told."""


@dataclass(frozen=True)
class Tuned:
    """`base` after imitating `answers`; made where it is not there yet, anew for each seed of a run.

    draw    which answers: models of the same one imitate the same
    order   in which they come: ingredients of a soup differ in this, or in both
    epochs, size  times through the answers, and how many a step
    """

    base: str | Made
    answers: Written
    draw: int = 1
    order: int = 1
    epochs: int = 3
    size: int = 16
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-3, betas=(0.9, 0.999)))

    def folder(self, seed: int = 0) -> Path:
        parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "tuned"
        where = parent / f"{self.fingerprint}-{seed}"
        if not where.exists():
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent) as temporary:
                made = Path(temporary) / "model"
                self._make(made, seed)
                try:
                    made.rename(where)
                except OSError:
                    if not where.exists():
                        raise  # else another process has made the same meanwhile
        return where

    def _make(self, where: Path, seed: int) -> None:
        from ludus.data.written import written
        from ludus.engines.local.build import open_model
        from ludus.engines.local.learner import LocalLearner
        from ludus.train.offline import SUPERVISED, supervised

        model, renderer = open_model(self.base, device="cpu", seed=seed)
        answers = self.answers(Key(seed, ("tuned", "answers", self.draw)))
        rollouts = [written(renderer, task, said) for task, said in answers]
        learner = LocalLearner(model, SUPERVISED, self.optim, seed=seed)
        key = Key(seed, ("tuned", "order", self.order))
        for _ in supervised(learner, rollouts, epochs=self.epochs, size=self.size, key=key):
            pass
        model.save(where)
        renderer.tokenizer.save_pretrained(where)

    @property
    def fingerprint(self) -> str:
        """A hash of the settings, the code of the package and the versions: another of them is another model."""
        from ludus.train.recipe import describe

        told = json.dumps([describe(self), base.used()], sort_keys=True).encode()
        code = [file.read_bytes() for file in sorted(Path(ludus.__file__).parent.rglob("*.py"))]
        return hashlib.sha256(b"".join([told, *code])).hexdigest()[:16]
