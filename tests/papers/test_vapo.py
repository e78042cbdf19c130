"""VAPO, arXiv:2504.05118: two lambdas, one of them by length, and a likelihood term on correct answers."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages.credit import GAE
from ludus.advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE, length_adaptive
from ludus.advantages.gae import gae
from ludus.evals.explained_variance import explained_variance
from ludus.losses.clipped import clipped_ratio
from ludus.losses.supervised import sft
from ludus.types import Batch
from ludus.weights.average import average, token_weights
from ludus.weights.positive import of_correct


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def batch_of(mask: Tensor, value: Tensor, reward: Tensor, rollout: Tensor | None = None) -> Batch:
    rollouts = len(reward)
    return Batch(
        tokens=torch.zeros(mask.shape, dtype=torch.int64),
        mask=mask,
        logp=torch.zeros_like(value),
        turn=mask.long() - 1,
        rollout=torch.arange(len(mask)) if rollout is None else rollout,
        group=torch.zeros(rollouts, dtype=torch.int64),
        reward=reward,
        scored=torch.ones(rollouts, dtype=torch.bool),
        turn_reward=reward[:, None],
        value=value,
    )


# ---------------------------------------------------------------- lambda by length


def test_lambda_of_a_length() -> None:
    length = torch.tensor([0, 1, 20, 40, 100, 400, 1_000, 10_000])
    close(length_adaptive(length), [0, 0, 0, 0.5, 0.8, 0.95, 0.98, 0.998])
    # the weights of the temporal differences sum to a fixed share of the answer: 1 / (1 - lambda) = alpha l
    long = length[3:]
    close(1 / (1 - length_adaptive(long)), 0.05 * long, atol=1e-2)
    with pytest.raises(ValueError, match="alpha=0"):
        length_adaptive(length, alpha=0.0)


def test_four_tokens() -> None:
    mask = torch.ones(1, 4, dtype=torch.bool)
    batch = batch_of(mask, f(0.2, 0.4, 0.6, 0.7)[None], f(1))
    credit = replace(LengthAdaptiveGAE(alpha=0.5), whitened=False)  # alpha l = 2
    advantage, returns, _ = credit(batch)
    close(advantage, [[0.3625, 0.325, 0.25, 0.3]])
    assert returns is not None
    close(returns, [[1, 1, 1, 1]])
    # one lambda for both uses would give the critic targets that are not the return
    _, mixed = gae(f(0, 0, 0, 1)[None], f(0.2, 0.4, 0.6, 0.7)[None], mask, lam=0.95)
    assert (mixed[0, :3] < 0.999).all()


def test_forty_tokens() -> None:
    batch = batch_of(torch.ones(1, 40, dtype=torch.bool), torch.full((1, 40), 0.5), torch.ones(1))
    advantage, *_ = replace(LengthAdaptiveGAE(), whitened=False)(batch)
    close(advantage[0, -4:], [0.0625, 0.125, 0.25, 0.5])


def test_every_answer_has_its_own_lambda() -> None:
    """40 and 400 tokens use 0.5 and 0.95; the mean length would have given both 0.909."""
    mask = torch.arange(400) < torch.tensor([40, 400])[:, None]
    batch = batch_of(mask, torch.full((2, 400), 0.5), torch.ones(2))
    advantage, *_ = replace(LengthAdaptiveGAE(), whitened=False)(batch)
    close(advantage[0, 38] / advantage[0, 39], 0.5)
    close(advantage[1, 398] / advantage[1, 399], 0.95)


def test_length_is_what_the_policy_wrote_in_all_contexts() -> None:
    # rollout 0 wrote 30 and 10 tokens in two contexts, between observations; rollout 1 wrote 40 in one
    mask = torch.zeros(3, 60, dtype=torch.bool)
    mask[0, 5:35] = True
    mask[1, 20:30] = True
    mask[2, :40] = True
    batch = batch_of(mask, torch.full((3, 60), 0.5), torch.ones(2), torch.tensor([0, 0, 1]))
    advantage, *_ = replace(LengthAdaptiveGAE(), whitened=False)(batch)
    close(advantage[1, 28:30], [0.25, 0.5])
    close(advantage[:2][mask[:2]], advantage[2][mask[2]])


def test_a_lost_rollout_without_a_row() -> None:
    """An environment that crashed before the first token leaves a rollout that no row belongs to."""
    mask = torch.ones(1, 4, dtype=torch.bool)
    batch = batch_of(mask, f(0.2, 0.4, 0.6, 0.7)[None], f(1, 0), torch.tensor([0]))
    batch = replace(batch, scored=torch.tensor([True, False]))
    advantage, *_ = replace(LengthAdaptiveGAE(alpha=0.5), whitened=False)(batch)
    close(advantage, [[0.3625, 0.325, 0.25, 0.3]])
    with pytest.raises(ValueError, match=r"lam has shape \[1\], there are 2 rollouts"):
        gae(torch.zeros(2, 3), torch.zeros(2, 3), torch.ones(2, 3).bool(), lam=torch.ones(1))


def test_equal_lambdas_are_plain_gae() -> None:
    generator = torch.Generator().manual_seed(0)
    mask = torch.rand(6, 9, generator=generator) < 0.7
    batch = batch_of(mask, torch.randn(6, 9, generator=generator), torch.arange(6) / 6)
    for lam in (0.0, 0.95, 1.0):
        got, want = DecoupledGAE(lam, lam, gamma=0.9)(batch), GAE(0.9, lam)(batch)
        assert torch.equal(got.advantage, want.advantage)
        assert got.returns is not None and want.returns is not None
        assert torch.equal(got.returns, want.returns)


def test_the_critic_learns_the_return_whatever_the_policy_uses() -> None:
    generator = torch.Generator().manual_seed(1)
    mask = torch.rand(5, 30, generator=generator) < 0.8
    batch = batch_of(mask, torch.randn(5, 30, generator=generator), torch.tensor([1.0, 0, 1, 0, 1]))
    for credit in (DecoupledGAE(), DecoupledGAE(0.5), LengthAdaptiveGAE()):
        returns = credit(batch).returns
        assert returns is not None
        close(returns, batch.spread(batch.reward), atol=1e-5)
    # whitened advantages have mean 0 and variance 1 over the tokens; the targets are not touched
    advantage = LengthAdaptiveGAE()(batch).advantage[mask]
    close(advantage.mean(), 0.0)
    close(advantage.var(), 1.0, atol=1e-5)


def test_how_far_a_reward_reaches_with_one_lambda() -> None:
    reward = torch.zeros(1, 501, dtype=torch.float64)
    reward[0, -1] = 1
    advantage, _ = gae(reward, torch.zeros_like(reward), torch.ones(1, 501).bool(), lam=0.95)
    assert advantage[0, -101].item() == pytest.approx(0.0059, abs=5e-5)
    assert advantage[0, 0].item() == pytest.approx(7e-12, abs=5e-13)


def test_a_credit_says_what_is_missing() -> None:
    batch = batch_of(torch.ones(1, 2).bool(), torch.zeros(1, 2), torch.ones(1))
    with pytest.raises(ValueError, match=r"batch\.value, which is empty"):
        LengthAdaptiveGAE()(replace(batch, value=None))
    assert LengthAdaptiveGAE().needs == ("value",)


# ---------------------------------------------------------------- the likelihood of correct answers

MASK = torch.tensor([[True] * 4, [True, True, False, False]])
ADVANTAGE = torch.stack([f(0.3625, 0.325, 0.25, 0.3), f(-0.5, -0.5, 9, 9)])
RATIO = torch.stack([f(1.3, 1, 0.7, 1), f(0.9, 1.25, 9, 9)])
LOGP = torch.stack([f(-0.2, -0.1, -0.4, -0.3), f(-1.0, -2.0, torch.nan, torch.nan)])
ROWS = torch.arange(2)


def nll(chosen: Tensor) -> Tensor:
    value = sft(LOGP, LOGP, LOGP, chosen)
    return (value * token_weights(chosen, ROWS, over="tokens")).sum()


def test_policy_loss_and_likelihood() -> None:
    token = clipped_ratio(RATIO.log(), torch.zeros_like(RATIO), ADVANTAGE, MASK, high=0.28)
    close(-token[MASK], [0.464, 0.325, 0.175, 0.3, -0.45, -0.625])
    policy = average(token, MASK, over="tokens")
    close(policy, -0.0315)
    likelihood = nll(of_correct(MASK, ROWS, torch.tensor([True, False])))
    close(likelihood, 0.25)
    close(policy + 0.1 * likelihood, -0.0065)


def test_likelihood_of_all_and_of_none() -> None:
    everyone = of_correct(MASK, ROWS, torch.tensor([True, True]))
    assert torch.equal(everyone, MASK)
    close(nll(everyone), -LOGP[MASK].mean())
    nobody = of_correct(MASK, ROWS, torch.tensor([False, False]))
    assert not nobody.any() and nll(nobody) == 0


def test_correct_rollouts_of_several_contexts() -> None:
    chosen = of_correct(MASK, torch.tensor([1, 1]), torch.tensor([False, True]))
    assert torch.equal(chosen, MASK)


# ---------------------------------------------------------------- a critic fit to start with


def test_explained_variance() -> None:
    returns, every = f(0, 0, 1, 1)[None], torch.ones(1, 4, dtype=torch.bool)
    assert explained_variance(returns, returns, every) == 1.0
    assert explained_variance(f(3, 3, 3, 3)[None], returns, every) == 0.0
    # residuals [-0.25, -0.25, 0.25, 0.25]: a quarter of the variance is left
    assert explained_variance(f(0.25, 0.25, 0.75, 0.75)[None], returns, every) == pytest.approx(
        0.75
    )
    assert explained_variance(1 - returns, returns, every) == pytest.approx(-3.0)
    # what the policy did not write does not count
    some = torch.tensor([[True, False, True, True]])
    assert explained_variance(f(0, torch.nan, 1, 1)[None], returns, some) == 1.0


def test_nothing_to_explain() -> None:
    ones = torch.ones(1, 3)
    for mask in (torch.ones(1, 3).bool(), torch.zeros(1, 3).bool()):
        assert explained_variance(ones, ones, mask) == 0.0
    assert explained_variance(ones, torch.rand(1, 3), torch.tensor([[True, False, False]])) == 0.0
