"""The policy that another recipe trains: how stages follow one another, each with its own data, reward and anchor.

    first = Recipe(...)
    second = replace(first, reward=..., model=Trained(first), reference=True)   # anchored where the first ended

The earlier stage is trained where it is not there yet, with the seed of the run that asks for it, and kept beside the
bases (LUDUS_CACHE). Stopped, it resumes.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path

import ludus
from ludus.models import base
from ludus.train.recipe import Recipe, describe


@dataclass(frozen=True)
class Trained:
    """The weights at the end of a recipe; `policy` names one of several."""

    recipe: Recipe
    policy: str = "policy"

    def folder(self, seed: int = 0) -> Path:
        from ludus.engines.local.build import build
        from ludus.train.progress import progress
        from ludus.train.run import run

        parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "stages"
        where = parent / f"{self.fingerprint}-{seed}"
        if not (where / "summary.json").exists():
            run(
                self.recipe,
                lambda: build(self.recipe, seed=seed),
                where,
                name="an earlier stage",
                seed=seed,
                resume=where.exists(),
                progress=lambda total, done: progress(total, done=done),
            )
        return where / ("model" if self.policy == "policy" else f"model-{self.policy}")

    @property
    def fingerprint(self) -> str:
        """A hash of the recipe, the code of the package and the versions: another of them is another stage."""
        told = json.dumps([describe(self.recipe), base.used()], sort_keys=True).encode()
        package = Path(ludus.__file__).parent
        code = [file.read_bytes() for file in sorted(package.rglob("*.py"))]
        return hashlib.sha256(b"".join([told, *code])).hexdigest()[:16]
