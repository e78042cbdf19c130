"""Turn limits by step (ScalingInter-RL)."""

from __future__ import annotations

import pytest

from ludus.curricula.horizon import fixed, staged


def test_stages() -> None:
    limit = staged([10, 20, 30], every=100)
    steps = [1, 100, 101, 200, 201, 1000]
    assert [limit(step) for step in steps] == [10, 10, 20, 20, 30, 30]
    assert [fixed(7)(step) for step in steps] == [7] * 6


@pytest.mark.parametrize("stopped", [50, 100, 150])
def test_stopping_and_resuming_changes_nothing(stopped: int) -> None:
    """A counter kept in the trainer restarts wrongly here; a fresh schedule asked by step number cannot."""
    through = [staged([10, 20, 30], every=100)(step) for step in range(1, 301)]
    before = [staged([10, 20, 30], every=100)(step) for step in range(1, stopped + 1)]
    after = [staged([10, 20, 30], every=100)(step) for step in range(stopped + 1, 301)]
    assert before + after == through
    assert through.index(20) == 100 and through.index(30) == 200


def test_it_is_a_plain_value() -> None:
    limit = staged([10, 20, 30], every=100)
    assert limit == staged((10, 20, 30), every=100)
    assert repr(limit) == "Staged(limits=(10, 20, 30), every=100)"


def test_what_is_refused() -> None:
    for limits, message in [([], "at least one turn limit"), ([10, 0], "at least 1")]:
        with pytest.raises(ValueError, match=message):
            staged(limits, every=100)
    with pytest.raises(ValueError, match="at least 1"):
        fixed(0)
    with pytest.raises(ValueError, match="every 0 steps"):
        staged([10], every=0)
    with pytest.raises(ValueError, match="counted from 1"):
        fixed(10)(0)
