"""How well something that is rare is found."""

from __future__ import annotations

from collections.abc import Sequence


def f1(said: Sequence[bool], truth: Sequence[bool]) -> float:
    """2 x found / (2 x found + falsely said + missed); 0 where there was nothing to find and nothing was said."""
    found = sum(s and t for s, t in zip(said, truth, strict=True))
    total = sum(said) + sum(truth)
    return 2 * found / total if total else 0.0
