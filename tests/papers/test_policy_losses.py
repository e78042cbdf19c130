"""Pinned numbers of the policy-gradient losses, KL estimators, entropy and the critic's loss, in float64."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.losses import kl, objective
from ludus.losses.cispo import cispo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.entropy import entropy
from ludus.losses.gspo import gspo
from ludus.losses.one_side import one_side
from ludus.losses.reinforce import reinforce
from ludus.losses.supervised import sft
from ludus.losses.topr import topr
from ludus.losses.value import clipped_value
from ludus.weights.average import average


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


# T0: response 1 has A = 1.5 and ratios 1.5, 0.9; response 2 has A = -0.5 and ratios 1.0, 0.5, 1.3, 5.0
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])
RATIO = torch.stack([f(1.5, 0.9, 7, 7), f(1.0, 0.5, 1.3, 5.0)])
ADVANTAGE = torch.stack([f(1.5, 1.5, 9, 9), f(-0.5, -0.5, -0.5, -0.5)])
OLD = torch.full((2, 4), -2.0, dtype=torch.float64)

PPO = [[0, 1.35], [-0.5, 0, -0.65, -2.5]]
# name, loss, coefficient of grad log pi in the ascent direction
T0 = [
    ("REINFORCE", reinforce, [[1.5, 1.5], [-0.5, -0.5, -0.5, -0.5]]),
    ("PPO", clipped_ratio, PPO),
    ("PPO, dual clip", partial(clipped_ratio, dual=3.0), [[0, 1.35], [-0.5, 0, -0.65, 0]]),
    ("DAPO", partial(clipped_ratio, low=0.2, high=0.28), PPO),
    ("REC one-side", one_side, [[0, 1.5], [-0.5, 0, -0.5, -0.5]]),
    ("CISPO upper 3", partial(cispo, upper=3.0), [[2.25, 1.35], [-0.5, -0.25, -0.65, -1.5]]),
    ("CISPO upper 1.28", partial(cispo, upper=1.28), [[1.92, 1.35], [-0.5, -0.25, -0.64, -0.64]]),
    ("CISPO, PPO's mask", partial(cispo, upper=math.inf, stop=(0.2, 0.2)), PPO),
    ("TOPR token", partial(topr, level="token"), [[1.5, 1.5], [-0.5, -0.25, -0.5, -0.5]]),
    ("TOPR sequence", topr, [[1.5, 1.5], [-0.5, -0.5, -0.5, -0.5]]),
    # s = 1.161895 stops the first; 1.342675 * 0.5 = 0.671337 on each of the four, a quarter of it per token of the mean
    ("GSPO", gspo, [[0, 0], [-0.671337] * 4]),
]


def run(loss: Callable[..., Tensor], ratio: Tensor = RATIO) -> tuple[Tensor, Tensor]:
    logp = (OLD[: len(ratio), : ratio.shape[1]] + ratio.log()).requires_grad_()
    shape = (slice(len(ratio)), slice(ratio.shape[1]))
    value = loss(logp, OLD[shape], ADVANTAGE[shape], MASK[shape])
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    return value.detach(), -gradient


@pytest.mark.parametrize(("loss", "want"), [row[1:] for row in T0], ids=[row[0] for row in T0])
def test_gradient_on_t0(loss: Callable[..., Tensor], want: list[list[float]]) -> None:
    _, coefficient = run(loss)
    close(coefficient[0, :2], want[0])
    close(coefficient[1], want[1])
    assert (coefficient[~MASK] == 0).all()


def test_values_of_ppo_on_t0() -> None:
    close(run(clipped_ratio)[0], [[-1.8, -1.35, 0, 0], [0.5, 0.4, 0.65, 2.5]])
    close(run(partial(clipped_ratio, dual=3.0))[0], [[-1.8, -1.35, 0, 0], [0.5, 0.4, 0.65, 1.5]])
    with pytest.raises(ValueError, match="above 1"):
        run(partial(clipped_ratio, dual=0.9))


def test_values_of_gspo_on_t0() -> None:
    value, coefficient = run(gspo)
    s = (RATIO.log() * MASK).sum(1).div(MASK.sum(1)).exp()
    close(s, [1.161895, 1.342675])
    close(value[:, 0], [-1.5006, 0.671337])
    close(average(value, MASK, over="answers"), -0.414631)
    close(coefficient[1] / 4, [-0.167834] * 4)


def test_gspo_of_one_token_is_ppo() -> None:
    for ratio in (RATIO[:, :1], RATIO[:, 1:2]):
        for ours, theirs in zip(
            run(partial(gspo, low=0.2, high=0.2), ratio), run(clipped_ratio, ratio), strict=True
        ):
            close(ours, theirs, atol=1e-12)


def test_topr_tapers_bad_answers() -> None:
    # a bad answer with ratios 0.5, 0.8: the sequence weighs 0.4, the tokens 0.5 and 0.8; a good one always 1
    old, mask = OLD[:1, :2], MASK[:1, :2]
    logp = old + f(0.5, 0.8).log()
    for sign, level, want in [
        (-1, "sequence", [0.4, 0.4]),
        (-1, "token", [0.5, 0.8]),
        (1, "token", [1, 1]),
    ]:
        advantage = torch.full_like(old, sign)
        logp = logp.detach().requires_grad_()
        topr(logp, old, advantage, mask, level=level).sum().backward()
        assert logp.grad is not None
        close(-logp.grad, [[sign * w for w in want]])


def test_reinforce_does_not_depend_on_length() -> None:
    # rewards 1 and 0, lengths 2 and 4: 1/2 on each rewarded token, whatever the lengths
    logp = torch.zeros(2, 4, dtype=torch.float64, requires_grad=True)
    advantage = f(1, 0)[:, None].expand(2, 4)
    loss = average(reinforce(logp, logp.detach(), advantage, MASK), MASK, over="answer sums")
    (gradient,) = torch.autograd.grad(loss, logp)
    close(gradient, [[-0.5, -0.5, 0, 0], [0, 0, 0, 0]])


# ---------------------------------------------------------------- the critic


def test_value_loss() -> None:
    args = (f(0.9)[None], f(0.5)[None], f(1.0)[None], torch.tensor([[True]]))
    close(clipped_value(*args, clip=0.2), [[0.045]])  # and not 0.005, the unclipped one
    close(clipped_value(*args, clip=None), [[0.005]])
    close(clipped_value(*args), [[0.005]])  # 0.9 is within 0.5 of 0.5
    value = args[0].clone().requires_grad_()
    clipped_value(value, *args[1:], clip=0.2).sum().backward()
    assert value.grad is not None and value.grad.item() == 0


# ---------------------------------------------------------------- KL


TOKEN = torch.tensor([[True]])


@pytest.mark.parametrize(
    ("estimator", "value", "slope"),
    [
        (kl.k1, 0.5, 1.0),
        (kl.k2, 0.125, 0.5),
        (kl.k3, 0.106531, 0.393469),
        (kl.k3_straight, 0.106531, 0.5),
    ],
)
def test_kl_of_one_token(estimator: Callable[..., Tensor], value: float, slope: float) -> None:
    logp = f(-1)[None].requires_grad_()
    got = estimator(logp, f(-1.5)[None], TOKEN)
    (gradient,) = torch.autograd.grad(got.sum(), logp)
    close(got, [[value]])
    close(gradient, [[slope]])


def test_kl_is_clamped() -> None:
    # d = -25 is taken as -20; cap 10 cuts exp(20) - 21, and with it the gradient
    logp = f(-25)[None].requires_grad_()
    close(kl.k1(logp, f(0)[None], TOKEN), [[-20]])
    close(kl.k3(logp, f(0)[None], TOKEN), [[math.exp(20) - 21]])
    near = f(-5)[None].requires_grad_()
    capped = kl.k3(near, f(0)[None], TOKEN, cap=10)  # exp(5) - 6 = 142
    close(capped, [[10]])
    close(torch.autograd.grad(capped.sum(), near)[0], [[0]])


# exact expectations for pi = (0.7, 0.3), ref = (0.5, 0.5), the two outcomes as two rows, one logit
KL = 0.0822829
FORWARD, REVERSE = 0.2, 0.1779326  # gradients of KL(ref, pi) = pi - ref, and of KL(pi, ref)


def expected(estimate: Callable[[Tensor, Tensor, Tensor], Tensor]) -> tuple[float, float]:
    """Mean under pi of estimate(logp, ref, mask), and of its gradient in the logit."""
    logit = f(math.log(0.7 / 0.3)).requires_grad_()
    p = torch.cat([logit.sigmoid(), 1 - logit.sigmoid()])
    ref, mask = f(0.5, 0.5).log()[:, None], torch.ones(2, 1, dtype=torch.bool)
    mean = (p.detach() * estimate(p.log()[:, None], ref, mask)[:, 0]).sum()
    (gradient,) = torch.autograd.grad(mean, logit)
    return mean.item(), gradient.item()


def in_reward(logp: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    return kl.k1(logp, ref, mask).detach() * logp


def weighted(logp: Tensor, ref: Tensor, mask: Tensor) -> Tensor:
    return kl.k3_weighted(logp, logp, ref, mask)


@pytest.mark.parametrize(
    ("estimate", "mean", "gradient"),
    [
        (kl.k1, KL, 0.0),
        (kl.k2, 0.0787662, REVERSE),
        (kl.k3, KL, FORWARD),
        (kl.k3_straight, KL, REVERSE),
        (weighted, KL, REVERSE),
        (in_reward, None, REVERSE),
    ],
)
def test_what_a_kl_estimator_does_as_a_loss(
    estimate: Callable[..., Tensor], mean: float | None, gradient: float
) -> None:
    got = expected(estimate)
    assert mean is None or got[0] == pytest.approx(mean, abs=1e-7)
    assert got[1] == pytest.approx(gradient, abs=1e-7)


def test_weighted_k3_off_policy() -> None:
    """Tokens sampled by (0.4, 0.6): the weight makes both the mean and the gradient those of KL(pi, ref)."""
    logit = f(math.log(0.7 / 0.3)).requires_grad_()
    logp = torch.cat([logit.sigmoid(), 1 - logit.sigmoid()]).log()[:, None]
    old, ref = f(0.4, 0.6).log()[:, None], f(0.5, 0.5).log()[:, None]
    each = kl.k3_weighted(logp, old, ref, torch.ones(2, 1, dtype=torch.bool))
    mean = (old.exp() * each).sum()
    assert mean.item() == pytest.approx(KL, abs=1e-7)
    assert torch.autograd.grad(mean, logit)[0].item() == pytest.approx(REVERSE, abs=1e-7)


def test_adaptive_coefficient() -> None:
    knobs = {"target": 0.1, "count": 256, "horizon": 10_000}
    assert kl.adapted(0.001, 0.3, **knobs) == pytest.approx(0.00100512, abs=1e-10)
    assert kl.adapted(0.001, 0.05, **knobs) == pytest.approx(0.00099488, abs=1e-10)
    assert kl.adapted(0.001, 0.1, **knobs) == 0.001
    with pytest.raises(ValueError, match="above 0"):
        kl.adapted(0.001, 0.1, target=0.0, count=1, horizon=1)
    with pytest.raises(ValueError, match="give one well above 20"):  # would be -0.001
        kl.adapted(0.001, 0.0, target=0.1, count=100, horizon=10)
    assert kl.adapted(0.001, 0.0, target=0.1, count=100, horizon=25) == pytest.approx(0.0002)


# ---------------------------------------------------------------- what is left out where nothing is to compare


@pytest.mark.parametrize(
    "loss", [reinforce, clipped_ratio, gspo, one_side, topr, partial(cispo, upper=2.0)]
)
def test_a_policy_loss_has_nothing_to_say_without_an_advantage(loss: Callable[..., Tensor]) -> None:
    assert not objective.Objective(loss).teaches_all
    assert objective.Objective(loss, entropy=0.1).teaches_all
    assert objective.Objective(loss, kl=objective.KL(0.1, kl.k2)).teaches_all


def test_fine_tuning_and_regression_teach_without_an_advantage() -> None:
    def regressed(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        return (logp - old_logp - advantage) ** 2 * mask

    assert objective.Objective(sft).teaches_all and objective.Objective(regressed).teaches_all
    with torch.no_grad():
        assert objective.Objective(sft).teaches_all


# ---------------------------------------------------------------- entropy


def test_entropy() -> None:
    logits = f(0.7, 0.2, 0.1).log()[None, None].requires_grad_()
    h = entropy(logits, TOKEN)
    close(h, [[0.801819]])
    (gradient,) = torch.autograd.grad(h.sum(), logits)
    close(gradient[0, 0], [-0.311600, 0.161523, 0.150078])
    # after temperature: logits twice as large at temperature 2 are the same distribution
    close(entropy(2 * logits, TOKEN, temperature=2.0), [[0.801819]])
    with pytest.raises(ValueError, match="above 0"):
        entropy(logits, TOKEN, temperature=0.0)


def test_entropy_of_what_cannot_be_sampled() -> None:
    # half, half, impossible: log 2, and no NaN in the gradient
    logits = f(1.0, 1.0, -math.inf)[None, None].requires_grad_()
    h = entropy(logits, TOKEN)
    close(h, [[math.log(2)]])
    (gradient,) = torch.autograd.grad(h.sum(), logits)
    close(gradient, [[[0, 0, 0]]])


def test_minus_log_probability_is_no_entropy_bonus() -> None:
    """Its mean is the entropy, its expected gradient is 0: the same fact as for k1."""
    mean, gradient = expected(lambda logp, ref, mask: -logp)
    assert mean == pytest.approx(-(0.7 * math.log(0.7) + 0.3 * math.log(0.3)))
    assert gradient == pytest.approx(0.0, abs=1e-12)
