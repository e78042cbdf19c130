"""Pinned numbers of Critique-RL, arXiv:2510.24320: the critic's rewards in both stages, and its estimator."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from ludus.advantages.relative import rloo
from ludus.advantages.rloo_kl import RLOOThenKL
from ludus.rewards.critique import (
    Verdict,
    corrected,
    delta,
    judged_rightly,
    refine,
    stage_one,
    stage_two,
    verdict,
)
from ludus.types import Batch

FOUR: list[Verdict | None] = ["wrong", "correct", "wrong", None]
REFINED = [True, True, False, False]
GROUP = torch.zeros(4, dtype=torch.int64)


def advantages(rewards: list[float]) -> list[float]:
    return rloo(torch.tensor(rewards, dtype=torch.float64), GROUP, alone="refuse").tolist()


def test_stage_one_of_a_wrong_answer() -> None:
    rewards = [stage_one(said, False, mode="released") for said in FOUR]
    assert rewards == [1, -1, 1, -1]
    assert advantages(rewards) == pytest.approx([4 / 3, -4 / 3, 4 / 3, -4 / 3])
    assert [stage_one(said, False) for said in FOUR] == [1, 0, 1, 0]


def test_stage_two_as_a_gate_and_as_a_sum() -> None:
    def rewards(mode: str) -> list[float]:
        pairs = zip(FOUR, REFINED, strict=True)
        return [stage_two(f, False, refine(False, y), mode=mode) for f, y in pairs]  # type: ignore[arg-type]

    assert rewards("released") == pytest.approx([1.2, -1, 0.2, -1])
    assert advantages(rewards("released")) == pytest.approx(
        [1.8, -1.1333, 0.4667, -1.1333], abs=5e-5
    )
    assert rewards("paper") == pytest.approx([1.2, 1.0, 0.2, 0.0])
    # the second critique, a wrong verdict whose advice helped, changes sign
    assert advantages(rewards("paper")) == pytest.approx([0.8, 0.5333, -0.5333, -0.8], abs=5e-5)


def test_without_the_verdict_it_is_the_second_attempt() -> None:
    for said in (*FOUR, "correct"):
        for correct in (True, False):
            for refined in (True, False):
                got = stage_two(said, correct, refine(correct, refined), weight=0.0)
                assert got == float(refined)


def test_indirect_rewards() -> None:
    # (first right, second right): wrong -> right, right -> right, right -> wrong, wrong -> wrong
    cases = [(False, True), (True, True), (True, False), (False, False)]
    assert [refine(*case) for case in cases] == [1, 1, 0, 0]
    assert [delta(*case) for case in cases] == [1, 0, -1, 0]
    assert [corrected(*case) for case in cases] == [1.0, 0.2, 0.0, 0.0]


def test_judging() -> None:
    assert judged_rightly("correct", True) and judged_rightly("wrong", False)
    assert not judged_rightly("correct", False) and not judged_rightly("wrong", True)
    assert not judged_rightly(None, True) and not judged_rightly(
        None, False
    )  # absent is never right


@pytest.mark.parametrize(
    ("critique", "found"),
    [
        ("Step 1 is fine.\nCorrectness of the final answer: Wrong", "wrong"),
        ("**Correctness of the final answer:** Correct.\n", "correct"),
        ("Correctness of the final answer: Correct or Wrong", None),  # the instruction, repeated
        ("Say 'Correctness of the final answer: Wrong' if so.", None),
        ("Correctness of the final answer: Incorrect", None),
        ("Correctness of the final answer:", None),
        ("Correctness of the final answer: Correct\nCorrectness of the final answer: Wrong", None),
        (
            "Correctness of the final answer: Wrong\n\ncorrectness of the final answer: wrong",
            "wrong",
        ),
        ("", None),
        ("Step 1: corr", None),  # cut off
    ],
)
def test_verdict(critique: str, found: str | None) -> None:
    assert verdict(critique) == found


# ------------------------------------------------------------------ the estimator


def batch(rewards: list[float], gap: float, lengths: tuple[int, ...] = (2, 2, 2, 2)) -> Batch:
    """One prompt token, then what was written; log pi - log ref is `gap` on each written token."""
    size = len(lengths)
    mask = torch.arange(1 + max(lengths)) < 1 + torch.tensor(lengths)[:, None]
    mask[:, 0] = False
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Batch(
        tokens=zeros.long(),
        mask=mask,
        logp=zeros,
        turn=mask.long() - 1,
        rollout=torch.arange(size),
        group=torch.zeros(size, dtype=torch.int64),
        reward=torch.tensor(rewards, dtype=torch.float64),
        scored=torch.ones(size, dtype=torch.bool),
        turn_reward=torch.zeros(size, 1),
        ref_logp=zeros - gap,
    )


def test_the_kl_is_not_compared_with_that_of_the_others() -> None:
    rewards = [1.2, -1.0, 0.2, -1.0]
    raw = RLOOThenKL(kl=0.01, whitened=False)
    got = raw(batch(rewards, gap=0.5)).advantage
    want = torch.tensor([1.8, -3.4 / 3, 1.4 / 3, -3.4 / 3], dtype=torch.float64)
    torch.testing.assert_close(got[:, 1], want - 2 * 0.01 * 0.5)  # two tokens still to come
    torch.testing.assert_close(got[:, 2], want - 1 * 0.01 * 0.5)
    # inside the reward and before the baseline, an equal KL would vanish; here it stays
    assert raw(batch([1.0] * 4, gap=0.5)).advantage[:, 1].tolist() == pytest.approx([-0.01] * 4)
    assert (raw(batch([1.0] * 4, gap=0.0)).advantage == 0).all()
    # whitened over all the tokens of the buffer
    white = RLOOThenKL(kl=0.01)(batch(rewards, gap=0.5)).advantage[:, 1:]
    torch.testing.assert_close(
        white, (got[:, 1:] - got[:, 1:].mean()) / (got[:, 1:].var() + 1e-8).sqrt()
    )


def test_without_kl_it_is_leave_one_out() -> None:
    rewards = [1.2, 1.0, 0.2, 0.0]
    got = RLOOThenKL(kl=0.0, whitened=False)(
        batch(rewards, gap=3.0, lengths=(1, 3, 2, 2))
    ).advantage
    want = rloo(torch.tensor(rewards, dtype=torch.float64), GROUP)
    torch.testing.assert_close(got, want[:, None] * batch(rewards, 0.0, (1, 3, 2, 2)).mask)


def test_one_critique_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare it with"):
        RLOOThenKL()(batch([1.0], gap=0.0, lengths=(2,)))
    # one that is left of four is no mistake of the recipe
    thinned = replace(
        batch([1.0, math.nan, math.nan, math.nan], 0.5), scored=torch.tensor([True] + [False] * 3)
    )
    got = RLOOThenKL(whitened=False)(thinned).advantage
    assert got[0, 1:].tolist() == pytest.approx([-0.01, -0.005]) and (got[1:] == 0).all()
