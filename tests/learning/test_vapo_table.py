"""Why VAPO pre-trains its critic and decouples its lambdas: a chain of tokens of which only the first decides.

The first token is good (success 0.9) or bad (0.1); the policy starts at 0.27 good. The critic is a table V[decision,
token] whose start state is shared, and begins at a ramp from 0 to 0.3: an unfit critic, as after a reward model. Each
step: 64 samples, credit, V += 0.3 (target - V), logit += 0.3 (mean of A_0 d log pi). One update per batch, so that
the ratio is 1 and nothing is clipped; the likelihood term is left out, since its share of the first token is mu / T.

Probability of a good first token after so many steps, mean over 20 seeds (the tests take 4):

| tokens, steps | PPO   | decoupled | pre-trained | all parts |
| ------------- | ----- | --------- | ----------- | --------- |
| 256, 15       | 0.274 | 0.973     |             | 0.985     |
| 64, 4         | 0.293 | 0.385     | 0.682       | 0.856     |

Once the critic is fit, decoupling alone adds nothing here: 0.682 either way.
"""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from statistics import mean

import pytest
import torch
from torch import Tensor

from ludus.advantages.credit import Stateless
from ludus.advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from ludus.evals.explained_variance import explained_variance
from ludus.types import Batch

SAMPLES, RATE, START, SEEDS = 64, 0.3, 0.27, 4

PPO = DecoupledGAE(0.95, critic_lam=0.95)


def sample(chance: float, tokens: int, generator: torch.Generator) -> tuple[Tensor, Batch]:
    """Which answers began well, and the batch without values."""
    good = (torch.rand(SAMPLES, generator=generator) < chance).long()
    solved = torch.rand(SAMPLES, generator=generator) < torch.where(good == 1, 0.9, 0.1)
    mask = torch.ones(SAMPLES, tokens, dtype=torch.bool)
    batch = Batch(
        tokens=mask.long(),
        mask=mask,
        logp=torch.zeros(mask.shape),
        turn=torch.zeros_like(mask, dtype=torch.int64),
        rollout=torch.arange(SAMPLES),
        group=torch.zeros(SAMPLES, dtype=torch.int64),
        reward=solved.float(),
        scored=torch.ones(SAMPLES, dtype=torch.bool),
        turn_reward=solved.float()[:, None],
    )
    return good, batch


class Table:
    """V[decision, token]; nothing is decided yet in the state of the first token."""

    def __init__(self, tokens: int) -> None:
        self.of = torch.linspace(0, 0.3, tokens).repeat(2, 1)

    def fit(self, good: Tensor, target: Tensor) -> None:
        start = self.of[0, 0] + RATE * (target[:, 0].mean() - self.of[0, 0])
        for decision in (0, 1):
            mine = target[good == decision]
            if len(mine):
                self.of[decision] += RATE * (mine.mean(0) - self.of[decision])
        self.of[:, 0] = start


def train(credit: Stateless, tokens: int, steps: int, seed: int, pretrained: int) -> float:
    generator = torch.Generator().manual_seed(seed)
    table, logit = Table(tokens), torch.logit(torch.tensor(START))
    for _ in range(pretrained):  # on the return of every token, the policy frozen
        good, batch = sample(START, tokens, generator)
        table.fit(good, batch.spread(batch.reward))
    for _ in range(steps):
        chance = float(logit.sigmoid())
        good, batch = sample(chance, tokens, generator)
        _, (advantage, returns, _) = credit.assign((), replace(batch, value=table.of[good]))
        assert returns is not None
        table.fit(good, returns)
        logit = logit + RATE * (advantage[:, 0] * (good - chance)).mean()
    return float(logit.sigmoid())


@cache
def good_at_the_end(credit: Stateless, tokens: int, steps: int, pretrained: int = 0) -> float:
    return mean(train(credit, tokens, steps, seed, pretrained) for seed in range(SEEDS))


@pytest.mark.parametrize(("tokens", "steps"), [(256, 15), (64, 4)])
def test_all_parts_beat_one_lambda(tokens: int, steps: int) -> None:
    everything = good_at_the_end(LengthAdaptiveGAE(), tokens, steps, 50)
    assert everything >= good_at_the_end(PPO, tokens, steps) + 0.3


def test_the_parts_of_a_short_run() -> None:
    """From an unfit critic decoupling helps a little; a fit one helps more, and the length-adaptive lambda most."""
    ppo, decoupled = good_at_the_end(PPO, 64, 4), good_at_the_end(DecoupledGAE(), 64, 4)
    pretrained = good_at_the_end(PPO, 64, 4, 50)
    everything = good_at_the_end(LengthAdaptiveGAE(), 64, 4, 50)
    assert ppo < decoupled < pretrained < everything
    for got, want in zip(
        (ppo, decoupled, pretrained, everything), (0.293, 0.385, 0.682, 0.856), strict=True
    ):
        assert got == pytest.approx(want, abs=0.03)


def test_one_lambda_does_not_learn_over_a_long_chain() -> None:
    assert good_at_the_end(PPO, 256, 15) == pytest.approx(0.274, abs=0.01)


def test_pretraining_makes_the_critic_know() -> None:
    """The ramp explains nothing; after 50 steps the decision explains what it can, 1 - 0.09 / Var(R)."""
    generator = torch.Generator().manual_seed(0)
    table = Table(64)
    for step in range(51):
        good, batch = sample(START, 64, generator)
        returns = batch.spread(batch.reward)
        if step in (0, 50):
            known = explained_variance(table.of[good][:, 1:], returns[:, 1:], batch.mask[:, 1:])
            assert known < 0.05 if step == 0 else known >= 0.5
        table.fit(good, returns)
