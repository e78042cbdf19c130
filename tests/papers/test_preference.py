"""Supervised and preference losses: every worked number of the family's cards, and the checks beside them.

Unless said otherwise: summed log-probabilities -10, -14 (policy), -12, -13 (reference), lengths 5 and 7, so delta = 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from ludus.losses.preference import (
    dpo,
    implicit_reward,
    ipo,
    kto,
    kto_baseline,
    kto_undesirable_weight,
    orpo,
    sequence_logp,
    simpo,
)
from ludus.losses.reward_model import bradley_terry
from ludus.losses.supervised import sft
from ludus.weights.average import average, token_weights


def t(*values: float) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


SUMS = (t(-10), t(-14), t(-12), t(-13))
COUNTS = (torch.tensor([5]), torch.tensor([7]))


def at(delta: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Sums whose delta is as given."""
    return t(delta - 10), t(-10), t(-10), t(-10)


def near(value: Tensor, *expected: float) -> None:
    torch.testing.assert_close(value, t(*expected), atol=1e-6, rtol=0)


# ------------------------------------------------------------------------------------------------ supervised


def plain_sft(logp: Tensor, mask: Tensor) -> Tensor:
    return sft(logp, torch.zeros_like(logp), torch.zeros_like(logp), mask)


def test_sft_masked_mean() -> None:
    logp = t(-0.1, -0.2, -2, -0.5, -1, -0.3, -0.7, -0.9)[None]
    mask = torch.tensor([[0, 0, 1, 1, 1, 0, 1, 1]]).bool()
    assert average(plain_sft(logp, mask), mask, over="tokens").item() == pytest.approx(1.02)
    everything = torch.ones_like(mask)
    assert average(plain_sft(logp, everything), everything, over="tokens").item() == pytest.approx(
        0.7125
    )


def test_sft_accumulation_divides_by_all_tokens() -> None:
    # Two sequences, token losses (1, 3) and six times 0.5.
    logp = torch.full((2, 6), -0.5)
    logp[0, :2] = torch.tensor([-1.0, -3.0])
    mask = torch.ones(2, 6, dtype=torch.bool)
    mask[0, 2:] = False
    value = plain_sft(logp, mask)
    weight = token_weights(mask, torch.arange(2), over="tokens")
    micro_batches = [(value[row] * weight[row]).sum() for row in range(2)]
    assert sum(micro_batches).item() == pytest.approx(0.875)  # type: ignore[union-attr]
    assert average(value, mask, over="answers").item() == pytest.approx(1.25)


def test_sft_ignores_what_is_masked() -> None:
    logp = torch.tensor([[-torch.inf, -1.0, torch.nan]], requires_grad=True)
    mask = torch.tensor([[False, True, False]])
    value = plain_sft(logp, mask)
    assert value.tolist() == [[0.0, 1.0, 0.0]]
    (grad,) = torch.autograd.grad(value.sum(), logp)
    assert grad.tolist() == [[0.0, -1.0, 0.0]]


# ------------------------------------------------------------------------------------------------ sums and counts


def test_sequence_logp_counts_the_answer_alone() -> None:
    logp = torch.tensor([[-9.0, -1.0, -2.0, -torch.inf], [-1.0, -1.0, -1.0, -1.0]])
    mask = torch.tensor([[False, True, True, False], [False] * 4])
    total, count = sequence_logp(logp, mask)
    assert total.tolist() == [-3.0, 0.0] and count.tolist() == [2, 0]


def test_sequence_logp_adds_up_in_float32() -> None:
    logp = torch.full((1, 4096), -1.0, dtype=torch.bfloat16)  # added in bfloat16 this stops at -256
    total, _ = sequence_logp(logp, torch.ones(1, 4096, dtype=torch.bool))
    assert total.dtype == torch.float32 and total.item() == -4096.0


# ------------------------------------------------------------------------------------------------ Bradley-Terry

CHOSEN, REJECTED = t(1.2, 0.3, 2.0), t(0.2, 0.8, -1.0)


def test_bradley_terry() -> None:
    loss = bradley_terry(CHOSEN, REJECTED)
    near(loss, 0.313262, 0.974077, 0.048587)
    assert loss.mean().item() == pytest.approx(0.445309, abs=1e-6)
    assert bradley_terry(CHOSEN, REJECTED, margin=0.5).mean().item() == pytest.approx(
        0.622076, abs=1e-6
    )
    assert bradley_terry(CHOSEN, REJECTED, margin=t(0.5, 0.5, 0.5)).mean().item() == pytest.approx(
        0.622076, abs=1e-6
    )
    centred = bradley_terry(CHOSEN, REJECTED, centring=0.01) - loss
    assert centred.mean().item() == pytest.approx(0.0139)


def test_only_centring_sees_a_constant_per_prompt() -> None:
    constant = t(5.0, -3.0, 0.7)
    moved = (CHOSEN + constant, REJECTED + constant)
    torch.testing.assert_close(bradley_terry(*moved), bradley_terry(CHOSEN, REJECTED))
    change = bradley_terry(*moved, centring=0.01) - bradley_terry(CHOSEN, REJECTED, centring=0.01)
    assert bool((change.abs() > 1e-3).all())


# ------------------------------------------------------------------------------------------------ DPO


def test_dpo() -> None:
    near(dpo(*SUMS), 0.554355)
    near(dpo(*SUMS, smoothing=0.1), 0.584355)
    near(dpo(*at(0)), math.log(2))
    near(implicit_reward(SUMS[0], SUMS[2]), 0.2)
    near(implicit_reward(SUMS[1], SUMS[3]), -0.1)


@pytest.mark.parametrize(("delta", "coefficient"), [(-3, 0.057444), (0, 0.05), (3, 0.042556)])
def test_dpo_gradient(delta: float, coefficient: float) -> None:
    chosen, rejected, *reference = at(delta)
    chosen.requires_grad_()
    rejected.requires_grad_()
    up, down = torch.autograd.grad(dpo(chosen, rejected, *reference).sum(), [chosen, rejected])
    near(up, -coefficient)
    near(down, coefficient)


def test_dpo_with_a_beta_for_each_pair() -> None:
    # MM-DPO's betas at reward gaps 0, 0.5, 2, 10.
    beta = t(0.1, 0.11106, 0.131606, 0.149663).requires_grad_()
    sums = [x.expand(4).clone().requires_grad_() for x in SUMS]
    loss = dpo(sums[0], sums[1], sums[2], sums[3], beta=beta)
    near(loss, 0.554355, 0.540370, 0.515098, 0.493643)
    assert torch.autograd.grad(loss.sum(), beta, allow_unused=True) == (None,)


def test_smoothing_has_a_finite_minimum() -> None:
    delta = math.log(0.9 / 0.1) / 0.1  # sigmoid(beta delta) = 0.9
    chosen, rejected, *reference = at(delta)
    chosen.requires_grad_()
    (grad,) = torch.autograd.grad(dpo(chosen, rejected, *reference, smoothing=0.1).sum(), chosen)
    near(grad, 0.0)


# ------------------------------------------------------------------------------------------------ IPO


def test_ipo() -> None:
    near(ipo(*SUMS), 4.0)
    near(ipo(*SUMS, counts=COUNTS), 19.866122)  # (2/5 + 1/7 - 5)^2


def test_ipo_rests_at_its_target() -> None:
    chosen, rejected, *reference = at(5)
    chosen.requires_grad_()
    (grad,) = torch.autograd.grad(ipo(chosen, rejected, *reference).sum(), chosen)
    near(grad, 0.0)
    (grad,) = torch.autograd.grad(dpo(chosen, rejected, *reference).sum(), chosen)
    assert grad.item() < -0.03  # DPO goes on


# ------------------------------------------------------------------------------------------------ SimPO


def test_simpo() -> None:
    near(simpo(SUMS[0], SUMS[1], COUNTS), 1.313262)
    near(simpo(t(-5), t(-14), COUNTS), 0.313262)  # means -1 and -2


def test_simpo_smoothing_is_that_of_dpo() -> None:
    # The argument is -1: 0.9 * 1.313262 + 0.1 * 0.313262.
    near(simpo(SUMS[0], SUMS[1], COUNTS, smoothing=0.1), 1.213262)


def test_simpo_does_not_see_length() -> None:
    twice = (COUNTS[0] * 2, COUNTS[1] * 2)
    torch.testing.assert_close(
        simpo(SUMS[0] * 2, SUMS[1] * 2, twice), simpo(SUMS[0], SUMS[1], COUNTS)
    )


# ------------------------------------------------------------------------------------------------ KTO


def test_kto() -> None:
    rho = t(2, -0.5, 1)
    desirable = torch.tensor([True, True, False])
    z = kto_baseline(t(0.6, -0.2, 0.5), t(0, 0, 0))
    assert z.item() == pytest.approx(0.3)
    loss = kto(rho, t(0, 0, 0), desirable, z)
    near(loss, 0.457602, 0.519989, 0.517493)
    assert loss.mean().item() == pytest.approx(0.498361, abs=1e-6)
    weighted = kto(rho, t(0, 0, 0), desirable, z, weight_desirable=2, weight_undesirable=3)
    torch.testing.assert_close(weighted, loss * t(2, 2, 3))


def test_kto_baseline_is_a_constant_and_never_negative() -> None:
    assert kto_baseline(t(-3, -1), t(0, 0)).item() == 0.0
    policy = t(0.6, 0.5).requires_grad_()
    z = kto_baseline(policy, t(0, 0))
    assert not z.requires_grad
    live = policy.mean()  # even a baseline that has a gradient gives none away
    loss = kto(t(1).requires_grad_(), t(0), torch.tensor([True]), live).sum()
    assert torch.autograd.grad(loss, policy, allow_unused=True) == (None,)
    with pytest.raises(ValueError, match="answer to the next one"):
        kto_baseline(t(), t())


def test_kto_weights_for_uneven_data() -> None:
    # 300 good, 100 bad: 300 / (100 w) in [1, 4/3] is w in [2.25, 3]. (The card's 2.256 divides by 1.33.)
    assert kto_undesirable_weight(300, 100) == pytest.approx((2.25, 3.0))
    assert kto_undesirable_weight(100, 100, weight_desirable=2) == pytest.approx((1.5, 2.0))


# ------------------------------------------------------------------------------------------------ ORPO


def test_orpo() -> None:
    near(orpo(t(-5), t(-14), COUNTS), 1.023818)  # means -1 and -2
    near((orpo(t(-5), t(-14), COUNTS, weight=1.0) - 1.0), 0.238183)
    assert -math.log(1 / (1 + math.exp(-1.313262))) == pytest.approx(0.238183, abs=1e-6)
    near(orpo(SUMS[0], SUMS[1], COUNTS), 2.069315)  # both means -2: 2 + 0.1 log 2
    near(orpo(SUMS[0], SUMS[1], COUNTS, weight=1.0) - 2.0, 0.693147)
    near(orpo(SUMS[0], SUMS[1], COUNTS, weight=0.0), 2.0)  # supervised fine-tuning


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("mean", [0.0, -1e-9, -1e-6, -1e-3, -0.6931, -0.6932, -30.0, -1000.0])
def test_orpo_is_finite_at_both_ends(mean: float, dtype: torch.dtype) -> None:
    one = torch.ones(1, dtype=torch.int64)
    for other in (0.0, -1.0, -1000.0):
        chosen = torch.tensor([mean], dtype=dtype, requires_grad=True)
        rejected = torch.tensor([other], dtype=dtype, requires_grad=True)
        loss = orpo(chosen, rejected, (one, one))
        grads = torch.autograd.grad(loss.sum(), [chosen, rejected])
        assert all(bool(x.isfinite().all()) for x in (loss, *grads))


def test_orpo_gradient_is_that_of_the_plain_formula() -> None:
    chosen, rejected = t(-5, -0.4).requires_grad_(), t(-14, -0.9).requires_grad_()
    counts = (torch.tensor([5, 1]), torch.tensor([7, 2]))

    def plain(p: Tensor) -> Tensor:
        return torch.log(p.exp() / (1 - p.exp()))

    won, lost = chosen / counts[0], rejected / counts[1]
    expected = -won - 0.1 * torch.log(torch.sigmoid(plain(won) - plain(lost)))
    ours = torch.autograd.grad(orpo(chosen, rejected, counts).sum(), [chosen, rejected])
    theirs = torch.autograd.grad(expected.sum(), [chosen, rejected])
    torch.testing.assert_close(ours, theirs)


# ------------------------------------------------------------------------------------------------ all


@pytest.mark.parametrize(
    "loss",
    [
        dpo,
        ipo,
        lambda *sums: ipo(*sums, counts=(COUNTS[0].expand(3), COUNTS[1].expand(3))),
        lambda w, r, *_: simpo(w, r, (COUNTS[0].expand(3), COUNTS[1].expand(3))),
        lambda w, r, *_: orpo(w, r, (COUNTS[0].expand(3), COUNTS[1].expand(3))),
    ],
    ids=["dpo", "ipo", "ipo means", "simpo", "orpo"],
)
def test_more_for_the_chosen_is_never_worse(loss: Callable[..., Tensor]) -> None:
    """The direction, below every target: raising log pi_w or lowering log pi_l lowers each loss; one value a pair."""
    base = [x.expand(3) for x in (t(-10), t(-14), t(-12), t(-13))]
    step = t(0, 0.5, 1.0)
    better = loss(base[0] + step, base[1], base[2], base[3])
    assert better.shape == (3,)
    assert bool((better.diff() < 0).all())
    worse = loss(base[0], base[1] + step, base[2], base[3])
    assert bool((worse.diff() > 0).all())


def test_no_pairs() -> None:
    none = t()
    count = torch.zeros(0, dtype=torch.int64)
    for loss in (
        dpo(none, none, none, none),
        ipo(none, none, none, none),
        simpo(none, none, (count, count)),
        orpo(none, none, (count, count)),
        bradley_terry(none, none),
        kto(none, none, count.bool(), torch.tensor(0.0)),
    ):
        assert loss.shape == (0,)


def test_errors_teach() -> None:
    with pytest.raises(ValueError, match=r"rejected has shape \[2\], chosen has shape \[1\]"):
        dpo(t(1), t(1, 2), t(1), t(1))
    with pytest.raises(ValueError, match="beta is 0; give a number above 0"):
        dpo(*SUMS, beta=0)
    with pytest.raises(ValueError, match=r"smoothing is 0\.5"):
        simpo(SUMS[0], SUMS[1], COUNTS, smoothing=0.5)
    with pytest.raises(ValueError, match="count has shape"):
        ipo(*SUMS, counts=(torch.tensor([5, 5]), torch.tensor([7])))
    with pytest.raises(TypeError, match=r"give torch\.bool"):
        kto(t(1), t(1), t(1), t(0)[0])
    with pytest.raises(ValueError, match="some of both"):
        kto_undesirable_weight(3, 0)
