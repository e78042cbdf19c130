"""How many solutions survive: ROVER, GRPO and REINFORCE with softmax tables on the tree of test_rover.py.

Four of 64 leaves are good, one below each first letter. 64 samples a step, 4 updates of rate 0.5 on the token mean,
runs of 100 seeds side by side. Entropy in nats over the good leaves when success first reaches 0.9 (at most log 4 =
1.386), mean of 800 seeds, each +- 0.01:

| GRPO | REINFORCE with group mean, clipped | ROVER without next value | ROVER |
| ---- | ---------------------------------- | ------------------------ | ----- |
| 0.20 | 0.32                               | 0.34                     | 0.37  |

A seed varies by 0.25, so the mean of ten seeds moves by 0.08. Most of the difference to GRPO comes from leaving out the
standard deviation; the next value adds 0.03.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Literal

import torch
from torch import Tensor

from ludus.advantages.relative import dr_grpo, grpo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.rover import rover

SEEDS, SAMPLES, UPDATES, RATE = 100, 64, 4, 0.5
GOOD = torch.tensor([[0, 2, 3], [1, 3, 2], [2, 0, 1], [3, 1, 0]]) @ torch.tensor([16, 4, 1])
"""ACD, BDC, CAB, DBA; a leaf is a number of three digits to base 4."""

Method = Literal["grpo", "clipped", "no next value", "rover"]


def leaves(table: Tensor) -> Tensor:
    """Logits [S,21,4] of the states (the root, 4, 16) -> probability [S,64] of each leaf."""
    first, second, third = table.softmax(-1).split([1, 4, 16], 1)
    pairs = (first.transpose(1, 2) * second).flatten(1)
    return (pairs[:, :, None] * third).flatten(1)


@cache
def entropy_at(success: float, method: Method) -> float:
    """Of the good leaves when a seed first has this success, mean over seeds."""
    generator = torch.Generator().manual_seed(0)
    table = torch.zeros(SEEDS, 21, 4, requires_grad=True)
    found = torch.full((SEEDS,), torch.nan)
    owner = torch.arange(SEEDS).repeat_interleave(SAMPLES)
    mask = torch.ones(SEEDS * SAMPLES, 3, dtype=torch.bool)
    for _ in range(1000):
        with torch.no_grad():
            leaf = leaves(table)
            arrived = (leaf[:, GOOD].sum(1) >= success) & found.isnan()
            found[arrived] = torch.distributions.Categorical(leaf[arrived][:, GOOD]).entropy()
            if not found.isnan().any():
                return float(found.mean())
            chosen = torch.multinomial(leaf, SAMPLES, replacement=True, generator=generator)
            chosen = chosen.flatten()
            action = torch.stack([chosen // 16, chosen // 4 % 4, chosen % 4], 1)
            state = torch.stack([0 * chosen, 1 + chosen // 16, 5 + chosen // 4], 1)
            reward = torch.isin(chosen, GOOD).float()
            relative = (grpo if method == "grpo" else dr_grpo)(reward, owner)
            advantage = relative[:, None].expand(-1, 3)
            old, old_mean = _read(table, owner, state, action)
        for _ in range(UPDATES):
            logp, mean = _read(table, owner, state, action)
            if method in ("grpo", "clipped"):
                loss = clipped_ratio(logp, old, advantage, mask)
            else:
                value = partial(rover, beta=0.0 if method == "no next value" else 1.0)
                loss = value(logp, old, advantage, mask, mean, old_mean)
            each = loss.sum() / (SAMPLES * 3)  # the token mean of every seed, summed over seeds
            (gradient,) = torch.autograd.grad(each, table)
            with torch.no_grad():
                table -= RATE * gradient
    raise AssertionError(f"{int(found.isnan().sum())} seeds never reached {success}")


def _read(table: Tensor, owner: Tensor, state: Tensor, action: Tensor) -> tuple[Tensor, Tensor]:
    rows = table.log_softmax(-1)[owner[:, None], state]
    return rows.gather(2, action[..., None])[..., 0], rows.mean(-1)


def test_rover_keeps_more_solutions_than_grpo() -> None:
    assert entropy_at(0.9, "rover") >= entropy_at(0.9, "grpo") + 0.1


def test_most_of_it_is_the_missing_standard_deviation() -> None:
    """Reported with every comparison: without it the plain clipped loss keeps solutions too."""
    assert entropy_at(0.9, "clipped") > entropy_at(0.9, "grpo") + 0.05
    assert abs(entropy_at(0.9, "rover") - entropy_at(0.9, "no next value")) < 0.1
