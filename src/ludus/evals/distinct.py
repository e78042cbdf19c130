"""How varied some answers are. A policy that found one good answer and repeats it has little left to explore."""

from __future__ import annotations

from collections.abc import Iterable


def distinct(texts: Iterable[str], n: int = 2) -> float:
    """Different runs of n words, over all runs of n words, of the texts together. arXiv:1510.03055.

    Falls with the number and the length of the texts, so compare sets of equal size alone. Texts of fewer than n words
    have no run; where none has one the result is 0.
    """
    if n < 1:
        raise ValueError(f"n is {n}; give 1 or more words to a run")
    runs = [
        tuple(words[i : i + n])
        for words in (text.split() for text in texts)
        for i in range(len(words) - n + 1)
    ]
    return len(set(runs)) / len(runs) if runs else 0.0
