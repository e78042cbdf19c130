"""Questions and passages of open-domain question answering, and their files: JSON lines in the form of FlashRAG.

arXiv:2405.13576. A question is {"id", "question", "golden_answers"}; a passage of the wiki corpus {"id", "contents"},
where the first line of `contents` is its title, or {"id", "title", "text"}.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ludus.types import Explained

Split = Literal["train", "test"]


@dataclass(frozen=True)
class Passage:
    id: str
    title: str
    text: str


@dataclass(frozen=True)
class Question:
    """`answers` are equally right; `hops` is how many passages must be found, 0 where nobody says."""

    id: str
    text: str
    answers: tuple[str, ...]
    hops: int = 0
    extras: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def __post_init__(self) -> None:
        if not self.answers:
            raise ValueError(f"question {self.id!r} has no answer; give one or more")


SETS: Mapping[Split, Mapping[str, tuple[str, int]]] = {
    "test": {
        "nq": ("test", 3_610),
        "triviaqa": ("test", 11_313),
        "popqa": ("test", 14_267),
        "hotpotqa": ("dev", 7_405),
        "2wikimultihopqa": ("dev", 12_576),
        "musique": ("dev", 2_417),
        "bamboogle": ("test", 125),
    },
    "train": {"nq": ("train", 79_168), "hotpotqa": ("train", 90_447)},
}
"""Sets of AgentGym-RL's SearchQA (arXiv:2509.08755) in its order: name -> (file of FlashRAG, number of questions).

Its item numbers run through the test sets, 0 to 51,712, and on through the training sets, to 221,327.
"""


def read_questions(path: str | Path, name: str | None = None) -> list[Question]:
    """The questions of a file; their ids get the name of the set, by default that of the folder, in front."""
    path = Path(path)
    prefix = path.parent.name if name is None else name
    found = []
    for number, row in _rows(path):
        answers = row.get("golden_answers")
        if isinstance(answers, str):
            answers = [answers]
        if not isinstance(row.get("question"), str) or not isinstance(answers, list) or not answers:
            raise Explained(
                f"{path}:{number} has keys {sorted(row)}; wanted question (text) and golden_answers "
                "(a list with one text or more), as FlashRAG writes them"
            )
        made = Question(
            f"{prefix}/{row.get('id', number)}",
            row["question"].strip(),
            tuple(str(answer) for answer in answers),
            extras={"set": prefix},
        )
        found.append(made)
    return found


def searchqa(
    folder: str | Path, split: Split, sets: Sequence[str] | None = None, *, whole: bool = True
) -> list[Question]:
    """The questions of `folder`/SET/FILE.jsonl in the order of SearchQA's item numbers.

    sets   some of SETS[split]; None: all of them
    whole  refuse a set that has not the published number of questions, because item numbers would be others
    """
    known = SETS[split]
    unknown = sorted(set(sets or ()) - set(known))
    if unknown:
        raise Explained(f"no {split} set {unknown[0]!r}; there are {', '.join(known)}")
    found: list[Question] = []
    for name, (file, count) in known.items():
        if sets is not None and name not in sets:
            continue
        path = Path(folder) / name / f"{file}.jsonl"
        questions = read_questions(path, name)
        if whole and len(questions) != count:
            raise Explained(
                f"{path} has {len(questions):,} questions; {name} has {count:,}. Get the whole file, or give "
                "whole=False"
            )
        found += questions
    return found


def passage(row: Mapping[str, Any], number: int) -> Passage:
    """A passage of one line of a corpus, the `number`-th, which is its id if it says none."""
    match row:
        case {"contents": str(contents)}:
            title, _, text = contents.partition("\n")
        case {"title": str(title), "text": str(text)}:
            pass
        case _:
            raise Explained(
                f"passage {number} has keys {sorted(row)}; wanted contents (title, line break, text), or title and text"
            )
    title = title.strip()
    if len(title) > 1 and title[0] == title[-1] == '"':  # around it; others are its own
        title = title[1:-1]
    return Passage(str(row.get("id", number)), title, text.strip())


class PassageFile(Sequence[Passage]):
    """The passages of a file of JSON lines, read when asked for: in memory are 8 bytes for each.

    Finding where the lines begin takes one pass over the file. A file that changes afterwards gives nonsense.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self.starts = np.fromiter(_line_starts(self.path), np.int64)
        self._file = self.path.open("rb")
        self._size = os.fstat(self._file.fileno()).st_size

    def __len__(self) -> int:
        return len(self.starts)

    def __getitem__(self, place: int) -> Passage:  # type: ignore[override]
        place = range(len(self))[place]
        start = int(self.starts[place])
        end = int(self.starts[place + 1]) if place + 1 < len(self) else self._size
        # pread has no position that threads could share
        line = os.pread(self._file.fileno(), end - start, start)
        return passage(_object(line, self.path, place + 1), place)


def write_passages(passages: Iterable[Passage], path: str | Path) -> None:
    """In the form of the wiki corpus. A title of several lines could not be read back and is refused."""
    with Path(path).open("w", encoding="utf-8") as file:
        for one in passages:
            if "\n" in one.title:
                raise ValueError(
                    f"the title of passage {one.id!r} has a line break; give it on one line"
                )
            row = {"id": one.id, "contents": f'"{one.title}"\n{one.text}'}
            file.write(json.dumps(row, ensure_ascii=True) + "\n")


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    if not path.is_file():
        raise Explained(
            f"no file {path}; FlashRAG's sets are at huggingface.co/datasets/RUC-NLPIR/FlashRAG_datasets, "
            "one folder each"
        )
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if line.strip():
                yield number, _object(line, path, number)


def _object(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise Explained(f"{path}, line {number}: {error}; wanted one JSON object a line") from error
    if not isinstance(row, dict):
        raise Explained(
            f"{path}, line {number}: a {type(row).__name__}; wanted one JSON object a line"
        )
    return row


def _line_starts(path: Path) -> Iterator[int]:
    if not path.is_file():
        raise Explained(f"no file {path}; give a corpus of JSON lines with id and contents")
    at = 0
    with path.open("rb") as file:
        for line in file:
            if line.strip():
                yield at
            at += len(line)
