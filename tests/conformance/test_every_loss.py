"""Every loss per token, correction weight and average, through one suite. A new member adds a row and nothing else."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial

import pytest
import torch
from policy_cases import CASES, build, by_attempt, named, one_context_a_turn, same, shuffled
from torch import Tensor

from ludus.losses import kl
from ludus.losses.cispo import cispo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.entropy import entropy
from ludus.losses.exact_kl import exact_kl
from ludus.losses.gspo import gspo
from ludus.losses.mixture_ratio import foreign
from ludus.losses.one_side import one_side
from ludus.losses.reinforce import reinforce
from ludus.losses.rover import rover
from ludus.losses.shaped import shaped
from ludus.losses.topr import topr
from ludus.losses.value import clipped_value
from ludus.types import Batch
from ludus.weights.average import Over, average, token_weights
from ludus.weights.importance import (
    divided_by_mean,
    importance,
    masked,
    truncated,
    within_geometric,
    within_k3,
)

# ------------------------------------------------------------------ losses

# loss(logp, old_logp, advantage, mask) -> [B,T]
LOSSES: dict[str, Callable[..., Tensor]] = {
    "reinforce": reinforce,
    "clipped_ratio": clipped_ratio,
    "clipped_ratio, DAPO": partial(clipped_ratio, low=0.2, high=0.28),
    "clipped_ratio, dual": partial(clipped_ratio, dual=3.0),
    "gspo": gspo,
    "cispo": partial(cispo, upper=1.28),
    "cispo, stop": partial(cispo, upper=3.0, stop=(0.2, 0.2)),
    "topr": topr,
    "topr, token": partial(topr, level="token"),
    "one_side": one_side,
}


def _weighted_k3(logp: Tensor, old: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    return kl.k3_weighted(logp, old, old + other, mask)


def _entropy(logp: Tensor, old: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    return entropy(torch.stack([logp, old.detach(), other], dim=-1), mask, chunk=3)


def _exact_kl(logp: Tensor, ref: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    return exact_kl(torch.stack([logp, other], -1), torch.stack([ref, other], -1), mask)


def _rover(logp: Tensor, old: Tensor, other: Tensor, mask: Tensor) -> Tensor:
    return rover(logp, old, other, mask, mean_logp=old - other, old_mean_logp=old)


# other values per token that are added to a loss: term(first, second, third, mask) -> [B,T], gradient in the first
TERMS: dict[str, Callable[..., Tensor]] = {
    "k1": lambda logp, ref, _, mask: kl.k1(logp, ref, mask),
    "k2": lambda logp, ref, _, mask: kl.k2(logp, ref, mask),
    "k3": lambda logp, ref, _, mask: kl.k3(logp, ref, mask),
    "k3, capped": lambda logp, ref, _, mask: kl.k3(logp, ref, mask, cap=10),
    "k3_straight": lambda logp, ref, _, mask: kl.k3_straight(logp, ref, mask),
    "k3_weighted": _weighted_k3,
    "clipped_value": clipped_value,
    "value, not clipped": partial(clipped_value, clip=None),
    "entropy": _entropy,
    "exact_kl": _exact_kl,
    # losses whose on-policy gradient is not -A: external answers, and a regression
    "foreign": foreign,
    "foreign, vocab": partial(foreign, uniform="vocab", vocabulary=1000),
    "shaped": shaped,
    "rover": _rover,
}
losses = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES.keys())
everything = pytest.mark.parametrize("loss", (LOSSES | TERMS).values(), ids=(LOSSES | TERMS).keys())
cases = pytest.mark.parametrize("case", CASES)


def inputs(batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
    """logp (a leaf), old_logp, and advantages of both signs: the values of the critic less its mean."""
    assert batch.old_logp is not None and batch.value is not None
    return batch.logp.clone().requires_grad_(), batch.old_logp, batch.value - 0.5


def value_and_gradient(
    loss: Callable[..., Tensor], logp: Tensor, old: Tensor, advantage: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    value = loss(logp, old, advantage, mask)
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    return value.detach(), gradient


@everything
@cases
def test_loss_of_a_batch(loss: Callable[..., Tensor], case: str) -> None:
    batch = build(CASES[case])
    if not batch.mask.any():
        logp, old, advantage = inputs(batch)
        assert (loss(logp, old, advantage, batch.mask) == 0).all()
        return
    value, gradient = value_and_gradient(loss, *inputs(batch), batch.mask)
    for got in (value, gradient):
        assert got.shape == batch.mask.shape and got.isfinite().all()
        assert (got[~batch.mask] == 0).all()
    assert gradient.any()
    # what stands where the policy wrote nothing, and more padding, change neither value nor gradient
    for garbage, columns in ((0.0, 0), (123.0, 0), (math.inf, 0), (math.nan, 3)):
        other = build(CASES[case], garbage=garbage, columns=columns)
        for got, want in zip(
            value_and_gradient(loss, *inputs(other), other.mask), (value, gradient), strict=True
        ):
            torch.testing.assert_close(got[:, : want.shape[1]], want)
            assert (got[:, want.shape[1] :] == 0).all()
    # the order of the rollouts means nothing
    members = shuffled(CASES[case])
    other = build(members)
    for got, want in zip(
        value_and_gradient(loss, *inputs(other), other.mask), (value, gradient), strict=True
    ):
        same(by_attempt(members, other, got), by_attempt(CASES[case], batch, want))


@losses
@cases
def test_on_policy_every_loss_is_the_policy_gradient(
    loss: Callable[..., Tensor], case: str
) -> None:
    batch = build(CASES[case])
    logp, _, advantage = inputs(batch)
    value = loss(logp, logp.detach(), advantage, batch.mask)
    if not batch.mask.any():
        return
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    torch.testing.assert_close(gradient[batch.mask], -advantage[batch.mask])
    # and nothing is learnt from nothing
    logp, old, advantage = inputs(batch)
    _, still = value_and_gradient(loss, logp, old, advantage * 0, batch.mask)
    assert (still == 0).all()


@everything
def test_extreme_log_probabilities_make_no_nan(loss: Callable[..., Tensor]) -> None:
    extreme = torch.tensor([0.0, -1e-8, -20.0, -1e4, -1e30])
    logp, old = (x.reshape(1, -1) for x in torch.meshgrid(extreme, extreme, indexing="ij"))
    mask = torch.ones_like(logp, dtype=torch.bool)
    for sign in (1.0, -1.0):
        advantage = torch.full_like(logp, sign)
        for got in value_and_gradient(loss, logp.clone().requires_grad_(), old, advantage, mask):
            assert not got.isnan().any()


# ------------------------------------------------------------------ averages, and cutting a batch

# over, and the thing that each counts the same: a name for every token from (row, rollout, turn, group)
AVERAGES: list[tuple[Over, Callable[[int, int, int, int], object]]] = [
    ("tokens", lambda token, rollout, turn, group: token),
    ("answers", lambda token, rollout, turn, group: rollout),
    ("turns", lambda token, rollout, turn, group: (rollout, turn)),
    ("groups", lambda token, rollout, turn, group: group),
]
OVERS: list[Over] = [*(row[0] for row in AVERAGES), "answer sums", 16]
overs = pytest.mark.parametrize("over", OVERS)


def weights(batch: Batch, over: Over) -> Tensor:
    mask = batch.mask & batch.scored[batch.rollout][:, None]
    return token_weights(mask, batch.rollout, over=over, turn=batch.turn, group=batch.group)


@overs
@cases
def test_average_of_a_batch(over: Over, case: str) -> None:
    members = CASES[case]
    batch = build(members)
    weight = weights(batch, over)
    counted = batch.mask & batch.scored[batch.rollout][:, None]
    assert weight.shape == batch.mask.shape and weight.dtype == torch.float32
    assert weight.isfinite().all()
    assert ((weight > 0) == counted).all()
    torch.testing.assert_close(weights(build(members, columns=3), over)[:, :-3], weight)
    # order, and how many contexts a rollout was written in, change nothing
    for change in (shuffled, one_context_a_turn):
        changed = change(members)
        other = build(changed)
        same(by_attempt(changed, other, weights(other, over)), by_attempt(members, batch, weight))
    # `average` is the sum with these shares
    value = torch.where(counted, batch.logp, torch.nan)
    got = average(value, counted, batch.rollout, over=over, turn=batch.turn, group=batch.group)
    torch.testing.assert_close(got, (value[counted] * weight[counted]).sum())


@pytest.mark.parametrize(("over", "name"), AVERAGES, ids=[str(row[0]) for row in AVERAGES])
@cases
def test_each_counts_the_same(
    over: Over, name: Callable[[int, int, int, int], object], case: str
) -> None:
    batch = build(CASES[case])
    weight = weights(batch, over)
    shares: dict[object, float] = {}
    for n, (b, t) in enumerate(weight.nonzero().tolist()):
        r = int(batch.rollout[b])
        key = name(n, r, int(batch.turn[b, t]), int(batch.group[r]))
        shares[key] = shares.get(key, 0.0) + weight[b, t].item()
    assert list(shares.values()) == pytest.approx([1 / len(shares)] * len(shares) if shares else [])


@losses
@overs
def test_micro_batches_have_the_gradient_of_the_whole(
    loss: Callable[..., Tensor], over: Over
) -> None:
    """The gradient in shared parameters, with shares counted once and rows dealt into passes in any way."""
    for case, members in CASES.items():
        batch = build(members, garbage=0.0)
        weight = weights(batch, over)
        torch.manual_seed(0)
        features = torch.randn(*batch.mask.shape, 5)
        theta = (0.1 * torch.randn(5)).requires_grad_()
        gradient = partial(_gradient, loss, batch, weight, features, theta)
        whole = gradient(torch.arange(len(batch)))
        order = torch.randperm(len(batch))
        for size in (1, 3):
            cut = torch.stack([gradient(rows) for rows in order.split(size)]).sum(0)
            with named(case):
                torch.testing.assert_close(cut, whole, atol=1e-6, rtol=1e-5)


def _gradient(
    loss: Callable[..., Tensor],
    batch: Batch,
    weight: Tensor,
    features: Tensor,
    theta: Tensor,
    rows: Tensor,
) -> Tensor:
    part = batch.rows(rows)
    _, old, advantage = inputs(part)
    logp = part.logp + features[rows][:, : part.mask.shape[1]] @ theta
    value = loss(logp, old, advantage, part.mask)
    (gradient,) = torch.autograd.grad((value * weight[rows][:, : part.mask.shape[1]]).sum(), theta)
    return gradient


# ------------------------------------------------------------------ corrections for the sampler

# weight(logp, sampler_logp, mask) -> [B,T]; a new mask is a weight of 0 and 1
CORRECTIONS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "importance": importance,
    "importance, sequence": partial(importance, level="sequence"),
    "importance, geometric": partial(importance, level="geometric"),
    "truncated": truncated,
    "truncated, sequence": partial(truncated, level="sequence"),
    "truncated, both sides": partial(truncated, low=0.9, high=1.1),
    "masked": masked,
    "masked, tight": partial(masked, low=0.9, high=1.1),
    "masked, sequence": partial(masked, level="sequence"),
    "over its mean": lambda p, q, mask: divided_by_mean(truncated(p, q, mask), mask),
    "within_geometric": lambda p, q, mask: within_geometric(p, q, mask).float(),
    "within_k3": lambda p, q, mask: within_k3(p, q, mask, high=0.01).float(),
}
corrections = pytest.mark.parametrize("weigh", CORRECTIONS.values(), ids=CORRECTIONS.keys())


@corrections
@cases
def test_correction_of_a_batch(weigh: Callable[..., Tensor], case: str) -> None:
    batch = build(CASES[case])
    logp, sampler, _ = inputs(batch)
    weight = weigh(logp, sampler, batch.mask)
    assert weight.shape == batch.mask.shape and weight.isfinite().all() and (weight >= 0).all()
    assert not weight.requires_grad
    assert (weight[~batch.mask] == 0).all()
    # equal log-probabilities need no correction
    torch.testing.assert_close(weigh(logp, logp, batch.mask), batch.mask.float())
    for garbage, columns in ((0.0, 0), (math.inf, 0), (math.nan, 3)):
        other = build(CASES[case], garbage=garbage, columns=columns)
        got = weigh(*inputs(other)[:2], other.mask)
        torch.testing.assert_close(got[:, : weight.shape[1]], weight)
    members = shuffled(CASES[case])
    other = build(members)
    got = weigh(*inputs(other)[:2], other.mask)
    same(by_attempt(members, other, got), by_attempt(CASES[case], batch, weight))


@corrections
def test_extreme_corrections_stay_finite(weigh: Callable[..., Tensor]) -> None:
    extreme = torch.tensor([0.0, -20.0, -1e4, -1e30])
    logp, sampler = (x.reshape(1, -1) for x in torch.meshgrid(extreme, extreme, indexing="ij"))
    weight = weigh(logp, sampler, torch.ones_like(logp, dtype=torch.bool))
    assert weight.isfinite().all()
