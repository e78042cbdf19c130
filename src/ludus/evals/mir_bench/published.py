"""The real data set, from a file of one's own: hub name kaiyan289/MIR-Bench, as parquet, JSON lines or JSON.

Its prompts are complete; only `prompt`, `answer`, `num_shots` and `ER_rate` are needed.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ludus.engines.local.build import open_model
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.sampler import LocalSampler
from ludus.evals.mir_bench.induction import answers
from ludus.evals.mir_bench.scores import lenient, strict
from ludus.train.recipe import Made
from ludus.train.study import Track
from ludus.types import Explained, Key

COLUMNS = (
    "prompt",
    "answer",
    "idx_train",
    "idx_test",
    "plen",
    "num_shots",
    "ER_rate",
    "tag",
    "difficulty",
)
TOGETHER = 10  # prompts; those of one function follow one another and share its shots
NEEDED = {"prompt", "answer", "num_shots"}


class NoSuchData(Explained, ValueError):
    """A file that is not there, or without the data set's columns."""


@dataclass(frozen=True)
class Row:
    """One prompt; `wrong` is the share of wrong shots in it, `tags` and `difficulty` as the data set has them."""

    prompt: str
    answer: str
    shots: int
    wrong: float = 0.0
    tags: tuple[str, ...] = ()
    difficulty: str = ""


def rows(file: str | Path) -> list[Row]:
    """All rows of a .parquet, .jsonl or .json file."""
    where = Path(file)
    if not where.is_file():
        raise NoSuchData(
            f"there is no file {str(file)!r}; download the data set and give --set file=PATH"
        )
    return [_row(each, where) for each in _read(where)]


def _read(where: Path) -> Iterator[Mapping[str, Any]]:
    if where.suffix == ".parquet":
        import pyarrow.parquet as parquet

        yield from parquet.read_table(where).to_pylist()
    elif where.suffix == ".jsonl":
        with where.open(encoding="utf-8") as lines:  # not splitlines: a text may hold U+2028
            yield from (json.loads(line) for line in lines if line.strip())
    elif where.suffix == ".json":
        yield from json.loads(where.read_text(encoding="utf-8"))
    else:
        raise NoSuchData(f"{where.name} is neither .parquet, .jsonl nor .json")


def _row(each: Mapping[str, Any], where: Path) -> Row:
    if missing := NEEDED - each.keys():
        raise NoSuchData(
            f"{where.name} has no column {sorted(missing)[0]!r}; it has {', '.join(each)}"
        )
    tag = each.get("tag") or ()
    return Row(
        prompt=str(each["prompt"]),
        answer=str(each["answer"]),
        shots=int(each["num_shots"]),
        wrong=float(each.get("ER_rate") or 0.0),
        tags=(tag,) if isinstance(tag, str) else tuple(map(str, tag)),
        difficulty=str(each.get("difficulty") or ""),
    )


@dataclass(frozen=True)
class Published:
    """A model on the prompts of a file; `most` of each level, 0 for all of them."""

    model: str | Made = ""
    file: str = ""
    most: int = 0
    max_tokens: int = 4096

    def measure(self, seed: int, folder: Path, track: Track) -> dict[str, float]:
        """ "accuracy/4 shots", "accuracy/64 shots, 25% wrong" .., and "lenient/..".  `seed` is not used: greedy."""
        levels: dict[str, list[Row]] = {}
        for row in rows(self.file):
            wrong = f", {row.wrong:.0%} wrong" if row.wrong else ""
            levels.setdefault(f"{row.shots} shots{wrong}", []).append(row)
        if not self.model:
            raise NoSuchData("no model is named; give --model DIR, any transformers folder")
        model, renderer = open_model(self.model, seed=seed)
        engine = LocalEngine(LocalSampler(model, renderer))
        told: dict[str, float] = {}
        for level in track(list(levels), "levels"):
            chosen = levels[level][: self.most or None]
            said = [
                text
                for start in range(0, len(chosen), TOGETHER)
                for text in answers(
                    engine,
                    [row.prompt for row in chosen[start : start + TOGETHER]],
                    self.max_tokens,
                    Key(seed) / level / start,
                )
            ]
            pairs = [(text, row.answer) for text, row in zip(said, chosen, strict=True)]
            told[f"accuracy/{level}"] = float(np.mean([strict(*pair) for pair in pairs]))
            told[f"lenient/{level}"] = float(np.mean([lenient(*pair) for pair in pairs]))
        engine.close()
        return told
