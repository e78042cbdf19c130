"""Pinned numbers of importance weights, rejection, mismatch, filters and the overlong penalty."""

from __future__ import annotations

import math
from math import comb

import pytest
import torch
from torch import Tensor

from ludus.losses.clipped import clipped_ratio
from ludus.rewards.overlong import overlong_filter, overlong_penalty
from ludus.weights.groups import mixed
from ludus.weights.importance import (
    divided_by_mean,
    importance,
    masked,
    truncated,
    within_geometric,
    within_k3,
)
from ludus.weights.mismatch import mismatch
from ludus.weights.proximal import interpolated


def f(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def close(got: Tensor, want: list[float], atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.tensor([want], dtype=got.dtype), atol=atol, rtol=0)


THREE = torch.ones(1, 3, dtype=torch.bool)
RHO = (f(0.5, 4.0, 1.1).log(), f(1, 1, 1).log(), THREE)  # learner, sampler, mask


def test_three_tokens() -> None:
    close(truncated(*RHO, high=2.0), [0.5, 2, 1.1])
    close(importance(*RHO, level="sequence"), [2.2] * 3)
    close(truncated(*RHO, high=2.0, level="sequence"), [2.0] * 3)
    close(importance(*RHO, level="geometric"), [1.300591] * 3)
    close(masked(*RHO, low=0.5, high=2.0), [0.5, 0, 1.1])
    close(masked(*RHO, low=0.5, high=2.0, level="sequence"), [0] * 3)
    close(divided_by_mean(truncated(*RHO), THREE), [0.416667, 1.666667, 0.916667])
    assert mismatch(*RHO)["k3"] == pytest.approx(0.603848, abs=1e-6)
    assert within_k3(*RHO, high=0.6039).all() and not within_k3(*RHO, high=0.6038).any()
    assert within_geometric(*RHO, low=1.3, high=1.301).all()
    assert not within_geometric(*RHO).any()


def test_four_tokens() -> None:
    args = (f(0.5, 0.3, 0.05, 0.8).log(), f(0.5, 0.2, 0.2, 0.9).log(), torch.ones(1, 4).bool())
    close(importance(*args), [1, 1.5, 0.25, 0.888889])
    close(importance(*args, level="sequence"), [0.333333] * 4)
    close(importance(*args, level="geometric"), [0.759836] * 4)
    close(truncated(*args, high=1.2), [1, 1.2, 0.25, 0.888889])
    close(masked(*args, low=0.5, high=2.0), [1, 1.5, 0, 0.888889])
    got = mismatch(*args)
    assert got["k1"] == pytest.approx(0.274653, abs=1e-6)
    assert got["k2"] == pytest.approx(0.262511, abs=1e-6)
    assert got["k3"] == pytest.approx(0.184375, abs=1e-6)
    assert got["max"] == pytest.approx(math.log(4))
    # (1 + 1.5 + 0.25 + 0.888889)^2 / (4 (1 + 2.25 + 0.0625 + 0.790123)) = 13.241512 / 16.410494
    assert got["ess"] == pytest.approx(0.806893, abs=1e-6)
    assert within_geometric(*args, low=0.7, high=1.3).all()
    assert not within_geometric(*args, low=0.99, high=1.01).any()


def test_a_small_bias_adds_up_over_a_row() -> None:
    q = torch.full((1, 100), 0.012, dtype=torch.float64)
    args = (q, torch.zeros_like(q), torch.ones(1, 100).bool())
    assert importance(*args, level="sequence")[0, 0].item() == pytest.approx(3.32, abs=1e-3)
    assert importance(*args, level="geometric")[0, 0].item() == pytest.approx(math.exp(0.012))


def test_causes_show_in_the_mismatch() -> None:
    p = f(0.5, 0.3, 0.15, 0.05)
    # the sampler keeps the top two and renormalises: log 0.8 per token
    two = torch.tensor([[True, True, False, False]])
    sampler = (p / 0.8).log()
    assert mismatch(p.log(), sampler, two)["k1"] == pytest.approx(-math.log(0.8))
    assert math.log(0.8) == pytest.approx(-0.223144, abs=1e-6)
    # the sampler used T = 0.6, the learner forgot it
    sampler = (p.log() / 0.6).log_softmax(-1)
    close(sampler.exp(), [0.631786, 0.269664, 0.084939, 0.013611])
    q = importance(p.log(), sampler, torch.ones(1, 4).bool())
    close(q, [0.7914, 1.1125, 1.766, 3.6734], atol=5.1e-5)


def test_decoupled_bypass_and_uncorrected() -> None:
    one = torch.tensor([[True]])
    mu, old, pi, advantage = f(0.2).log(), f(0.25).log(), f(0.35).log(), f(1.0)
    surrogate = -clipped_ratio(pi, old, advantage, one)
    assert (truncated(old, mu, one) * surrogate).item() == pytest.approx(1.5)
    assert -clipped_ratio(pi, mu, advantage, one).item() == pytest.approx(1.2)
    assert surrogate.item() == pytest.approx(1.2)


def test_exact_weights_have_mean_one() -> None:
    """Over an enumeration of four tokens sampled from mu; no bound is exact importance sampling."""
    mu, pi = f(0.1, 0.2, 0.3, 0.4), f(0.4, 0.3, 0.2, 0.1)
    mask = torch.ones(1, 4).bool()
    for weight in (
        importance(pi.log(), mu.log(), mask),
        truncated(pi.log(), mu.log(), mask, high=math.inf),
        masked(pi.log(), mu.log(), mask, low=0.0, high=math.inf),
    ):
        assert (mu * weight).sum().item() == pytest.approx(1.0)


def test_interpolated_proximal_policy() -> None:
    mu, pi = f(0.2, 0.2, 0.2, 0.2).log(), f(0.35, 0.35, 0.35, 0.35).log()
    version = torch.tensor([[3, 7, 0, 8]])
    got = interpolated(pi, mu, torch.ones(1, 4).bool(), version, old=7, now=8).exp()
    close(got, [0.312940, 0.2, 0.326354, 0.2])
    with pytest.raises(ValueError, match="swap old and now"):
        interpolated(pi, mu, torch.ones(1, 4).bool(), version, old=9, now=8)


def test_all_weights_rejected() -> None:
    zero = torch.zeros(1, 3, dtype=torch.float64)
    assert not divided_by_mean(zero, THREE).any()
    none = torch.zeros(1, 3, dtype=torch.bool)
    assert not divided_by_mean(zero, none).any()
    assert mismatch(zero, zero, none) == {"k1": 0.0, "k2": 0.0, "k3": 0.0, "max": 0.0, "ess": 1.0}


# ---------------------------------------------------------------- DAPO


def test_overlong_penalty() -> None:
    length = torch.tensor([100, 16_384, 18_432, 20_480, 30_000])
    got = overlong_penalty(length, limit=20_480, buffer=4_096)
    torch.testing.assert_close(got, torch.tensor([0.0, 0.0, -0.5, -1.0, -1.0]))
    with pytest.raises(ValueError, match="must lie in 1 to limit"):
        overlong_penalty(length, limit=100, buffer=200)


def test_overlong_filter() -> None:
    mask = torch.tensor([[True, False], [True, True], [True, True]])
    got = overlong_filter(mask, torch.tensor([0, 1, 1]), torch.tensor([False, True]))
    assert got.tolist() == [[True, False], [False, False], [False, False]]


def test_share_of_groups_that_teach() -> None:
    # all seventeen numbers of right answers in a group of 16, weighed by the binomial distribution
    right = torch.arange(17)
    accuracy = (torch.arange(16) < right[:, None]).float().flatten()
    kept = mixed(accuracy, right.repeat_interleave(16))[::16]
    assert kept.tolist() == [False] + [True] * 15 + [False]
    for rate, share in [(0.05, 0.55987), (0.95, 0.55987), (0.5, 0.99997)]:
        odds = [comb(16, k) * rate**k * (1 - rate) ** (16 - k) for k in range(17)]
        assert sum(o for o, k in zip(odds, kept.tolist(), strict=True) if k) == pytest.approx(
            share, abs=1e-5
        )


def test_groups_are_filtered_by_accuracy_without_the_lost() -> None:
    accuracy, group = torch.tensor([0.0, 0.0, 1.0, 0.0]), torch.tensor([4, 4, 9, 9])
    assert mixed(accuracy, group).tolist() == [False, False, True, True]
    # two wrong answers of different lengths differ in the shaped reward alone
    assert mixed(accuracy - torch.tensor([0, 0.5, 0, 0]), group)[:2].all()
    # the right one of the second group was lost: nothing is left to compare
    scored = torch.tensor([True, True, False, True])
    assert not mixed(accuracy, group, scored=scored).any()
