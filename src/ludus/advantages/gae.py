"""Generalised advantage estimation over many turns. arXiv:1506.02438."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.advantages.compact import compact, discounted
from ludus.advantages.returns import check_reward
from ludus.tensors import check_tokens


def gae(
    reward: Tensor,
    value: Tensor,
    mask: Tensor,
    *,
    gamma: float = 1.0,
    lam: float | Tensor = 1.0,
    rollout: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Advantages and the critic's targets, over the tokens that the policy wrote.

        delta_t = r_t + gamma V_{t+1} - V_t
        A_t = delta_t + gamma lam A_{t+1}
        R_t = A_t + V_t

    t+1 is the next token that the policy wrote, in this context or the next of the same rollout;
    behind the last one V = A = 0. Values and discounts of observations and padding do not enter.
    Whitening comes after, and not into R.

    Args:     reward, value [B,T], mask [B,T] bool, gamma, lam in [0,1] (lam also [R], one per
              rollout), rollout [B] row -> rollout (left out: a row is a rollout).
    Returns:  advantage, returns [B,T], 0 where mask is False; no gradient flows into value.
    Raises:   ValueError if a reward other than 0 lies where mask is False, or a rollout has no lam.
    """
    check_reward(reward, mask)
    check_tokens(mask, value=value)
    tokens = compact(mask, rollout)
    if isinstance(lam, Tensor) and lam.dim():
        rollouts = tokens.dense[0]
        if lam.dim() != 1 or len(lam) < rollouts:
            raise ValueError(
                f"lam has shape {list(lam.shape)}, there are {rollouts} rollouts; give a number, or one per rollout"
            )
        lam = lam[:rollouts]  # rollouts that wrote no context come after, and have no row
    r, v = tokens.gather(reward), tokens.gather(value.detach())
    following = torch.nn.functional.pad(v[:, 1:], (0, 1)) if v.shape[1] else v
    advantage = discounted(r + gamma * following - v, gamma * lam)
    return tokens.scatter(advantage), tokens.scatter(advantage + v)


def gae_agentgym(
    reward: Tensor, value: Tensor, mask: Tensor, *, gamma: float = 1.0, lam: float = 1.0
) -> tuple[Tensor, Tensor]:
    """The recursion in the code released with AgentGym-RL, to compare with runs of that code.

    arXiv:2509.08755. It scans all tokens from the right. At a trainable one delta_t = r_t + gamma
    V_{t+1} - V_t and A_t = delta_t + gamma lam A; at any other A is carried on unchanged. V_{t+1}
    at the end of a turn is therefore the value of an observation token, which no critic loss ever
    touches. `gae` is what is meant.

    Args and returns as `gae`, one context per rollout.
    """
    check_reward(reward, mask)
    check_tokens(mask, value=value)
    value = value.detach()
    following = torch.nn.functional.pad(value[:, 1:], (0, 1))
    delta = reward + gamma * following - value
    advantage = torch.zeros_like(delta)
    running = delta.new_zeros(len(delta))
    for t in range(delta.shape[1] - 1, -1, -1):
        running = torch.where(mask[:, t], delta[:, t] + gamma * lam * running, running)
        advantage[:, t] = running
    advantage = advantage.masked_fill(~mask, 0.0)
    return advantage, (advantage + value).masked_fill(~mask, 0.0)
