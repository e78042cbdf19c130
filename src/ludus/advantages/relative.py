"""Advantage of a rollout relative to others: GRPO and its relatives are settings of one estimator.

    A_i = (r_i - centre) / (scale + eps)

| name         | centre        | scale         | paper                            |
| ------------ | ------------- | ------------- | -------------------------------- |
| reinforce    | none          | none          |                                  |
| grpo         | group         | group         | arXiv:2402.03300                 |
| dr_grpo      | group         | none          | arXiv:2503.20783                 |
| rloo         | leave-one-out | none          | arXiv:2402.14740                 |
| lite_ppo     | group         | batch         | arXiv:2508.08221                 |
| gpg          | group         | none or group | arXiv:2504.02546, times an alpha |
| gpg_released | group         | none          | its alpha as in verl             |

Trainers disagree on ddof and eps: verl and ROLL use 1 and 1e-6 (the default here), TRL 1 and 1e-4,
OpenRLHF 1 and 1e-9, the Dr. GRPO authors 1 and 1e-8, Trinity 0 and 1e-6. A recipe that follows one
names it.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ludus.tensors import check_vectors, constant, total

Alone = Literal["zero", "reward", "refuse"]


def relative(
    reward: Tensor,
    group: Tensor,
    *,
    centre: Literal["none", "group", "batch", "leave-one-out"],
    scale: Literal["none", "group", "batch"],
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
    alone: Alone = "zero",
) -> Tensor:
    """Advantage of each rollout over its group or over the batch.

    Args:
        reward  [R] of whole rollouts
        group   [R] integers, any ids
        centre  subtracted: nothing, the mean of the group or of the batch, the mean of the *other*
                members
        scale   divided by: nothing, the standard deviation of the group or of the batch, `eps`
                added to it
        ddof    1 for the unbiased standard deviation, 0 for that of the population
        scored  [R] bool; a rollout lost to a fault is left out of every statistic and gets 0
        alone   what a rollout gets whose group has nobody to compare it with:
                "zero"    0
                "reward"  mean 0 and standard deviation 1 for that group, as the common trainers do:
                          the advantage is the reward itself, r / (1 + eps) where scale is "group"
                "refuse"  ValueError; a group that only faults have thinned to one still gets 0

    Returns:
        [R] of the dtype of reward; exactly 0 where all rewards that are compared are equal.
    """
    check_vectors("reward", reward, group=group)
    if (
        not reward.is_floating_point()
    ):  # the result has the dtype of reward, and would be cut to integers
        raise TypeError(
            f"reward has dtype {reward.dtype}; give floats, for instance reward.float()"
        )
    if scored is None:
        scored = torch.ones_like(group, dtype=torch.bool)
    check_vectors("reward", reward, scored=scored)
    _, member, asked = group.unique(return_inverse=True, return_counts=True)
    groups = len(asked)
    by_group = centre in ("group", "leave-one-out") or scale == "group"
    if alone == "refuse" and by_group and bool((asked == 1).any()):
        first = group[(asked == 1)[member]][0].item()
        raise ValueError(
            f"group {first} has one rollout and nothing to compare it with; ask for two or more answers, "
            'or choose alone="zero" or alone="reward"'
        )

    keep = scored.nonzero().squeeze(1)
    r, g = reward[keep].double(), member[keep]
    everyone = torch.zeros_like(g)
    count, mean, deviation = _moments(r, g, groups, ddof)
    _, mean_all, deviation_all = _moments(r, everyone, 1, ddof)
    lone = (count == 1) & (alone == "reward")
    mean, deviation = mean.masked_fill(lone, 0.0), deviation.masked_fill(lone, 1.0)

    advantage = r
    if centre == "group":
        advantage = r - mean[g]
    elif centre == "leave-one-out":
        advantage = (r - mean[g]) * (count / (count - 1).clamp(min=1))[g]
    elif centre == "batch":
        advantage = r - mean_all
    if scale == "group":
        advantage = advantage / (deviation[g] + eps)
    elif scale == "batch":
        advantage = advantage / (deviation_all + eps)

    if by_group:
        advantage = advantage.masked_fill((constant(r, g, groups) & ~lone)[g], 0.0)
    if "batch" in (centre, scale):
        advantage = advantage.masked_fill(constant(r, everyone, 1), 0.0)
    return torch.zeros_like(reward).index_copy(0, keep, advantage.to(reward.dtype))


def _moments(value: Tensor, index: Tensor, size: int, ddof: int) -> tuple[Tensor, Tensor, Tensor]:
    """Count, mean and standard deviation of the values of each index, [size] each; 0 for none."""
    count = total(torch.ones_like(value), index, size)
    mean = total(value, index, size) / count.clamp(min=1)
    square = total((value - mean[index]) ** 2, index, size)
    return count, mean, (square / (count - ddof).clamp(min=1)).sqrt()


def reinforce(reward: Tensor, group: Tensor, *, scored: Tensor | None = None) -> Tensor:
    """A = r. No baseline: unbiased, and the noisiest."""
    return relative(reward, group, centre="none", scale="none", scored=scored)


def grpo(
    reward: Tensor,
    group: Tensor,
    *,
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
    alone: Alone = "zero",
) -> Tensor:
    """A = (r - mean_g) / (std_g + eps); |A| <= (G-1)/sqrt(G) with ddof 1. arXiv:2402.03300."""
    return relative(
        reward, group, centre="group", scale="group", ddof=ddof, eps=eps, scored=scored, alone=alone
    )


def dr_grpo(
    reward: Tensor, group: Tensor, *, scored: Tensor | None = None, alone: Alone = "zero"
) -> Tensor:
    """A = r - mean_g: easy and hard prompts are not blown up. arXiv:2503.20783."""
    return relative(reward, group, centre="group", scale="none", scored=scored, alone=alone)


def rloo(
    reward: Tensor, group: Tensor, *, scored: Tensor | None = None, alone: Alone = "zero"
) -> Tensor:
    """A = r - mean of the others = G/(G-1) (r - mean_g). arXiv:2402.14740.

    A penalty such as the KL belongs inside r, before the baseline is made.
    """
    return relative(reward, group, centre="leave-one-out", scale="none", scored=scored, alone=alone)


def lite_ppo(
    reward: Tensor, group: Tensor, *, ddof: int = 1, eps: float = 1e-6, scored: Tensor | None = None
) -> Tensor:
    """A = (r - mean_g) / (std of the rewards of the batch + eps). arXiv:2508.08221."""
    return relative(reward, group, centre="group", scale="batch", ddof=ddof, eps=eps, scored=scored)


def gpg(
    reward: Tensor,
    group: Tensor,
    *,
    scale: Literal["none", "group"] = "none",
    scored: Tensor | None = None,
) -> Tensor:
    """A = alpha (r - mean_g) / F, F = 1 or std_g. arXiv:2504.02546.

    alpha = R / (R - number of rollouts in groups of equal rewards) makes up for the groups that
    teach nothing; a batch of nothing else gets 0.
    """
    advantage = relative(reward, group, centre="group", scale=scale, scored=scored)
    keep = torch.ones_like(group, dtype=torch.bool) if scored is None else scored
    names, member = group[keep].unique(return_inverse=True)
    alive = ~constant(reward[keep], member, len(names))[member]
    return advantage * (len(alive) / alive.sum().clamp(min=1))


def gpg_released(reward: Tensor, group: Tensor, *, scored: Tensor | None = None) -> Tensor:
    """A = alpha (r - mean_g), alpha = R / number of rewards that are not 0: GPG in verl.

    This alpha follows the success rate and not the groups of equal rewards; `gpg` is the paper's.
    """
    advantage = relative(reward, group, centre="group", scale="none", scored=scored)
    kept = reward if scored is None else reward[scored]
    return advantage * (len(kept) / (kept != 0).sum().clamp(min=1))
