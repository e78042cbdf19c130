"""Packing: the numbers of its card, and what must hold for any lengths."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ludus.train.packing import (
    Oversize,
    Piece,
    attention_cost,
    best_fit_decreasing,
    cut,
    first_fit_decreasing,
    karmarkar_karp,
    padding_waste,
)

LENGTHS = [900, 700, 600, 500, 400, 300, 200, 100, 100, 100]


def sums(sizes: list[int] | list[float], bins: list[list[int]]) -> list[float]:
    return [sum(sizes[i] for i in b) for b in bins]


def test_first_fit_decreasing_fills_four_bins() -> None:
    bins = first_fit_decreasing(LENGTHS, 1000)
    assert sums(LENGTHS, bins) == [1000, 1000, 1000, 900]
    assert sum(LENGTHS) / (1000 * len(bins)) == 0.975


def test_what_padding_would_waste() -> None:
    everything = [list(range(10))]
    in_order = [[i, i + 1] for i in range(0, 10, 2)]
    assert padding_waste(LENGTHS, everything) == pytest.approx(0.567, abs=5e-4)  # 1 - 3900/9000
    assert padding_waste(LENGTHS, in_order) == pytest.approx(0.114, abs=5e-4)  # 1 - 3900/4400
    assert padding_waste([], []) == 0.0


def test_karmarkar_karp_against_round_robin() -> None:
    balanced = sums(LENGTHS, karmarkar_karp(LENGTHS, 4))
    assert (max(balanced), min(balanced)) == (1000, 900)
    round_robin = [[i for i in range(10) if i % 4 == part] for part in range(4)]
    assert sums(LENGTHS, round_robin) == [1400, 1100, 800, 600]


def test_karmarkar_karp_is_not_optimal() -> None:
    # By hand: 8-7=1, 6-5=1, 4-1=3, 3-1=2: difference 2, where 8+7 | 6+5+4 has none.
    assert sums([8, 7, 6, 5, 4], karmarkar_karp([8, 7, 6, 5, 4], 2)) == [16, 14]


def test_cost_grows_with_the_square() -> None:
    assert attention_cost(16384) / (2 * attention_cost(8192)) == 1.25


def test_ranks_are_balanced_by_cost_and_not_by_tokens() -> None:
    lengths = [16384, 8192, 4096, 4096, 2048, 2048, 1024, 1024]
    costs = [attention_cost(length) for length in lengths]
    by_tokens = karmarkar_karp(lengths, 2)
    assert sums(lengths, by_tokens) == [19456, 19456]
    assert sorted(sums(costs, by_tokens)) == pytest.approx([0.584e9, 0.752e9], abs=5e5)
    by_cost = karmarkar_karp(costs, 2)
    assert sums(costs, by_cost) == pytest.approx([0.671e9, 0.665e9], abs=5e5)


@pytest.mark.parametrize(
    ("rest", "expected"),
    [
        ("drop", [[(0, 0, 4)], [(2, 0, 3), (3, 0, 1)], [(1, 0, 2)]]),
        ("keep", [[(0, 0, 4)], [(2, 0, 3), (0, 4, 5)], [(1, 0, 2), (3, 0, 1)]]),
    ],
)
def test_supervised_packing_to_four_tokens(
    rest: Literal["drop", "keep"], expected: list[list[tuple[int, int, int]]]
) -> None:
    pieces = cut([5, 2, 3, 1], 4, rest=rest)
    bins = best_fit_decreasing([len(piece) for piece in pieces], 4)
    assert [[pieces[i] for i in b] for b in bins] == [[Piece(*p) for p in b] for b in expected]


def test_best_fit_takes_the_fullest_bin_and_first_fit_the_first() -> None:
    # 7 | 5 4 leave room for 3 and 1; the 1 goes to the first, or to the fullest.
    assert first_fit_decreasing([7, 5, 4, 1], 10) == [[0, 3], [1, 2]]
    assert best_fit_decreasing([7, 5, 4, 1], 10) == [[0], [1, 2, 3]]


def test_ties_keep_their_order() -> None:
    assert first_fit_decreasing([5, 5, 5, 5], 10) == [[0, 1], [2, 3]]
    assert best_fit_decreasing([3, 3, 3, 3], 3) == [[0], [1], [2], [3]]
    assert karmarkar_karp([4], 3) == [[0], [], []]
    assert karmarkar_karp([], 2) == [[], []]


@pytest.mark.parametrize("pack", [first_fit_decreasing, best_fit_decreasing])
def test_longer_than_a_bin(pack: Callable[..., list[list[int]]]) -> None:
    with pytest.raises(
        ValueError, match=r'sequence 1 has 9 tokens, a bin holds 4; .*oversize="alone"'
    ):
        pack([2, 9, 3, 2], 4)
    assert pack([2, 9, 3, 2], 4, oversize="alone") == [[1], [2], [0, 3]]


def test_bad_sizes_are_told() -> None:
    with pytest.raises(ValueError, match="sequences without tokens"):
        first_fit_decreasing([3, 0], 4)
    with pytest.raises(ValueError, match="capacity is 0"):
        best_fit_decreasing([3], 0)
    with pytest.raises(ValueError, match="k is 0"):
        karmarkar_karp([1], 0)
    with pytest.raises(ValueError, match="0 or more"):
        karmarkar_karp([1.0, float("nan")], 2)


@given(
    lengths=st.lists(st.integers(1, 50), max_size=40),
    capacity=st.integers(1, 60),
    oversize=st.sampled_from(["raise", "alone"]),
)
def test_every_sequence_is_packed_once(
    lengths: list[int], capacity: int, oversize: Oversize
) -> None:
    for pack in (first_fit_decreasing, best_fit_decreasing):
        if oversize == "raise" and max(lengths, default=0) > capacity:
            with pytest.raises(ValueError, match="a bin holds"):
                pack(lengths, capacity, oversize=oversize)
            continue
        bins = pack(lengths, capacity, oversize=oversize)
        assert sorted(i for b in bins for i in b) == list(range(len(lengths)))
        assert all(sum(lengths[i] for i in b) <= capacity or len(b) == 1 for b in bins)
        # No two bins would fit into one: the members of the later one would have gone to the earlier.
        emptiest = sorted(sum(lengths[i] for i in b) for b in bins)[:2]
        assert len(emptiest) < 2 or sum(emptiest) > capacity


@given(lengths=st.lists(st.integers(1, 50), max_size=30), capacity=st.integers(1, 20))
def test_cutting_keeps_every_token_in_order(lengths: list[int], capacity: int) -> None:
    pieces = cut(lengths, capacity, rest="keep")
    tokens = [(piece.index, t) for piece in pieces for t in range(piece.start, piece.stop)]
    assert tokens == [(i, t) for i, length in enumerate(lengths) for t in range(length)]
    assert all(1 <= len(piece) <= capacity for piece in pieces)
    short = cut(lengths, capacity, rest="drop")
    assert [len(piece) for piece in short] == [min(length, capacity) for length in lengths]


@given(sizes=st.lists(st.integers(0, 1000), max_size=40), k=st.integers(1, 6))
def test_karmarkar_karp_partitions_evenly(sizes: list[int], k: int) -> None:
    bins = karmarkar_karp(sizes, k)
    assert len(bins) == k
    assert sorted(i for b in bins for i in b) == list(range(len(sizes)))
    totals = sums(sizes, bins)
    assert totals == sorted(totals, reverse=True)
    # No part is above another by more than the largest size.
    assert max(totals) - min(totals) <= max(sizes, default=0)
