"""Turn rewards in one pool per group, then passed back along the rollout. IGPO, arXiv:2510.14967.

The paper and its release disagree. `pooled_turns` is the paper's; `per_position` is what the
released trainer computes, and compares tokens of different turns wherever turns differ in length.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.advantages.compact import discounted
from ludus.advantages.credit import Stateless
from ludus.advantages.place import place_turns
from ludus.advantages.relative import relative
from ludus.advantages.turns import turns
from ludus.tensors import check_tokens, total
from ludus.types import Batch, Credited


def pooled_turns(
    turn_reward: Tensor,
    written: Tensor,
    group: Tensor,
    *,
    gamma: float = 1.0,
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """Advantage of each turn: the discounted sum of the normalised rewards of it and later turns.

        z_ik = (r_ik - mean_g) / (std_g + eps) over all turns of all rollouts of the group
        A_ik = z_ik + gamma A_i,k+1

    Information gains and outcomes share the pool. With gamma 1 these are GRPO's process rewards;
    with one turn per rollout, GRPO.

    Args:     turn_reward [R,K], written [R,K] bool (turns that exist), group [R], scored [R] bool.
    Returns:  [R,K], 0 where no turn was written and for rollouts lost to faults; all 0 if every
              reward of the group is the same.
    """
    if turn_reward.shape != written.shape:
        raise ValueError(
            f"turn_reward has shape {list(turn_reward.shape)}, written has shape {list(written.shape)}; "
            "give one bool per turn"
        )
    if scored is not None:
        written = written & scored[:, None]
    owner = written.nonzero(as_tuple=True)[0]
    z = torch.zeros_like(turn_reward)
    z[written] = relative(
        turn_reward[written], group[owner], centre="group", scale="group", ddof=ddof, eps=eps
    )
    return discounted(z, gamma).masked_fill(~written, 0.0)


def per_position(
    reward: Tensor,
    mask: Tensor,
    rollout: Tensor,
    group: Tensor,
    *,
    scored: Tensor | None = None,
) -> Tensor:
    """The estimator in the code released with IGPO: returns, less their mean at the same position.

        R_t = sum_{s>=t} r_s                     observations are crossed at no discount
        A_t = R_t - mean of R at t over the group, a shorter rollout counting 0 behind its end

    Positions are counted from the first token that the policy wrote and include observations, so
    the baseline of a turn mixes whatever turns the others were in at that token. Not divided by a
    deviation, although the release computes one.

    Args:     reward [B,T] on tokens that the policy wrote, mask [B,T] bool, rollout [B], group [R],
              scored [R] bool.
    Returns:  [B,T], 0 where mask is False.
    Raises:   ValueError if a rollout has several contexts: it has no single position then.
    """
    check_tokens(mask, reward=reward)
    if len(rollout) != len(rollout.unique()):
        raise ValueError(
            "a rollout of several contexts has no position that others could be compared at; "
            "use pooled_turns, or a template that does not rewrite its past"
        )
    keep = mask.any(1) if scored is None else mask.any(1) & scored[rollout]
    if not keep.any():
        return torch.zeros_like(reward)
    width = mask.shape[1]
    start = mask.int().argmax(1)[:, None]
    place = torch.arange(width, device=mask.device) + start
    inside = (place < width) & keep[:, None]
    back = place.clamp(max=width - 1)
    returns = reward.masked_fill(~(mask & keep[:, None]), 0.0).flip(1).cumsum(1).flip(1)
    aligned = returns.gather(1, back).masked_fill(~inside, 0.0)
    _, member = group[rollout].unique(return_inverse=True)
    size = int(member.max()) + 1
    members = total(keep.to(reward.dtype), member, size).clamp(min=1)
    mean = reward.new_zeros(size, width).index_add(0, member, aligned) / members[:, None]
    advantage = torch.zeros_like(reward).scatter_add(
        1, back, (aligned - mean[member]).masked_fill(~inside, 0.0)
    )
    return advantage.masked_fill(~(mask & keep[:, None]), 0.0)


@dataclass(frozen=True)
class IGPO(Stateless):
    """`pooled_turns` as a credit; it reads the turns' own rewards."""

    gamma: float = 1.0
    ddof: int = 1
    eps: float = 1e-6
    needs: Sequence[str] = ("group", "turn_reward")

    def __call__(self, batch: Batch) -> Credited:
        at = turns(batch)
        advantage = pooled_turns(
            batch.turn_reward,
            at.written,
            batch.group,
            gamma=self.gamma,
            ddof=self.ddof,
            eps=self.eps,
            scored=batch.scored,
        )
        return Credited(at.spread(advantage))


@dataclass(frozen=True)
class IGPOReleased(Stateless):
    """`per_position` as a credit, each turn's reward on its last token."""

    needs: Sequence[str] = ("group", "turn_reward", "one context")

    def __call__(self, batch: Batch) -> Credited:
        earned = batch.turn_reward.masked_fill(~turns(batch).written, 0.0)
        reward = place_turns(
            earned.masked_fill(~batch.scored[:, None], 0.0), batch.turn, batch.mask, batch.rollout
        )
        return Credited(
            per_position(reward, batch.mask, batch.rollout, batch.group, scored=batch.scored)
        )
