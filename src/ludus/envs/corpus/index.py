"""An index over passages: a query in, places of passages out, best first.

`BM25` counts words (bm25s, arXiv:2407.03618); `Dense` compares vectors of an embedding model that is given to it, flat
and exact. Both are an `Index`, which is all that the search environments ask for. Equal scores stand in the order of
the corpus, so the same query always gives the same list.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np

from ludus.data.questions import Passage, PassageFile, write_passages
from ludus.types import Explained

QUERY_WORDS = 64  # of a query; what comes behind is not looked at, so a long query costs no more


class Hit(NamedTuple):
    place: int
    score: float


class Index(Protocol):
    """`top` gives up to `k` hits, best first; what has nothing to do with the query is left out."""

    @property
    def passages(self) -> Sequence[Passage]: ...
    def top(self, query: str, k: int) -> Sequence[Hit]: ...


def words(text: str) -> list[str]:
    """The words of a text as they are indexed: without case, accents and punctuation; none is left out or stemmed."""
    plain = unicodedata.normalize("NFKD", text.casefold())
    return re.findall(r"\w+", "".join(c for c in plain if unicodedata.category(c) != "Mn"))


def best(scores: np.ndarray, k: int, least: float = -np.inf) -> tuple[Hit, ...]:
    """The `k` largest of scores [N] above `least`, equal ones by place."""
    _refuse_count(k)
    last = np.partition(scores, -k)[-k] if k < len(scores) else -np.inf
    places = np.flatnonzero((scores >= last) & (scores > least))
    order = np.lexsort((places, -scores[places]))[:k]
    return tuple(Hit(int(place), float(scores[place])) for place in places[order])


# ---------------------------------------------------------------------------------------------- words


@dataclass(frozen=True, eq=False)
class BM25:
    """score(q, d) = sum over the words of q of idf * tf / (tf + k1 (1 - b + b |d| / mean |d|)), idf as in Lucene.

    k1 = 1.5, b = 0.75. A word of the title counts like one of the text. Made with `BM25.over(passages)`.
    """

    passages: Sequence[Passage]
    ranker: Any = field(repr=False)

    @classmethod
    def over(cls, passages: Sequence[Passage]) -> BM25:
        bm25s = _bm25s()
        known: dict[str, int] = {}
        ids = [
            [known.setdefault(word, len(known)) for word in words(f"{one.title} {one.text}")]
            for one in (passages[place] for place in range(len(passages)))
        ]
        if not known:
            raise ValueError(f"{len(passages)} passages without a word; give some with text")
        ranker = bm25s.BM25(backend="numpy")
        ranker.index((ids, known), show_progress=False)
        return cls(passages, ranker)

    def top(self, query: str, k: int) -> tuple[Hit, ...]:
        _refuse_count(k)
        asked = self.ranker.get_tokens_ids(words(query)[:QUERY_WORDS])
        if not asked:
            return ()
        return best(self.ranker.get_scores_from_ids(asked), k, least=0.0)

    def save(self, folder: str | Path) -> None:
        """The index and its passages, as files that `load` reads."""
        folder = Path(folder)
        self.ranker.save(folder, show_progress=False)
        write_passages(self.passages, folder / "passages.jsonl")

    @classmethod
    def load(cls, folder: str | Path, *, mapped: bool = False) -> BM25:
        """`mapped` leaves the numbers on disk until they are needed, for a corpus that memory does not hold."""
        folder = Path(folder)
        passages = _saved_passages(folder, "params.index.json", "BM25")
        ranker = _bm25s().BM25.load(folder, mmap=mapped, show_progress=False)
        _refuse_another(folder, int(ranker.scores["num_docs"]), len(passages))
        return cls(passages, ranker)


def _bm25s() -> Any:
    try:
        import bm25s
    except ImportError as error:
        raise Explained("bm25s is not installed; type: pip install bm25s") from error
    return bm25s


# ---------------------------------------------------------------------------------------------- vectors


@dataclass(frozen=True, eq=False)
class Dense:
    """score(q, d) = embed(q) . vector of d, over all passages: exact, and linear in their number.

    vectors  [N,H] float32, one for each passage, by the same model as `embed`
    embed    query -> [H]; what the model wants in front ("query: " for E5) is added there
    """

    passages: Sequence[Passage]
    vectors: np.ndarray = field(repr=False)
    embed: Callable[[str], np.ndarray] = field(repr=False)

    def __post_init__(self) -> None:
        if self.vectors.ndim != 2 or len(self.vectors) != len(self.passages):
            raise ValueError(
                f"vectors of shape {self.vectors.shape} for {len(self.passages)} passages; give [N,H], one for each"
            )

    def top(self, query: str, k: int) -> tuple[Hit, ...]:
        _refuse_count(k)
        if not query.strip():
            return ()
        return best(self.vectors @ np.asarray(self.embed(query), np.float32), k)

    def save(self, folder: str | Path) -> None:
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "vectors.npy", self.vectors.astype(np.float32))
        write_passages(self.passages, folder / "passages.jsonl")

    @classmethod
    def load(
        cls, folder: str | Path, embed: Callable[[str], np.ndarray], *, mapped: bool = False
    ) -> Dense:
        folder = Path(folder)
        passages = _saved_passages(folder, "vectors.npy", "Dense")
        vectors = np.load(folder / "vectors.npy", mmap_mode="r" if mapped else None)
        _refuse_another(folder, len(vectors), len(passages))
        return cls(passages, vectors, embed)


def _saved_passages(folder: Path, name: str, kind: str) -> PassageFile:
    if not (folder / name).is_file():
        raise Explained(f"no index in {folder}; make one with {kind}(...).save({str(folder)!r})")
    return PassageFile(folder / "passages.jsonl")


def _refuse_another(folder: Path, indexed: int, there: int) -> None:
    if indexed != there:
        raise Explained(
            f"the index in {folder} was made of {indexed} passages, and passages.jsonl has {there}; make it again"
        )


def _refuse_count(k: int) -> None:
    if k < 1:
        raise ValueError(f"k={k}; give how many hits, from 1")
