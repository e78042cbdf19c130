"""A base whose player forgets: how many games of which kind it sees."""

from __future__ import annotations

from dataclasses import replace

from ludus.envs.boxed_sums import boxed
from ludus.envs.chains import Chains
from ludus.models.fading_base import FadingBase

BASE = FadingBase(Chains(terms=(4, 4)), share=0.0, first=1.0, lasts=0.6, steps=5, games=20, turns=1)


def solved(base: FadingBase) -> list[float]:
    """Of each step, the share of games that were won."""

    def right(prompt: str, said: str) -> bool:
        terms = [int(c) for c in prompt.rpartition("<|user|>")[2] if c.isdigit()]
        return boxed(said) == str(sum(terms) % 10)

    return [sum(right(*game) for game in games) / len(games) for games in base.texts()]


def test_the_player_knows_and_then_does_not() -> None:
    shares = solved(BASE)
    assert len(shares) == 5 and shares[:3] == [1.0] * 3
    assert max(shares[3:]) < 0.5
    assert solved(replace(BASE, lasts=1.0)) == [1.0] * 5
    assert max(solved(replace(BASE, lasts=0.0))) < 0.5


def test_no_games_come_twice() -> None:
    texts = [str(games) for games in replace(BASE, share=1.0).texts()]
    assert len(set(texts)) == 5
    assert BASE.fingerprint != replace(BASE, lasts=0.5).fingerprint
