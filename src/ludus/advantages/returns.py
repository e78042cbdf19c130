"""Reward-to-go over the tokens that the policy wrote; less a greedy answer's reward in ReMax."""

from __future__ import annotations

from torch import Tensor

from ludus.advantages.compact import compact, discounted
from ludus.tensors import check_tokens


def reward_to_go(
    reward: Tensor, mask: Tensor, *, gamma: float = 1.0, rollout: Tensor | None = None
) -> Tensor:
    """R_t = r_t + gamma R_{t+1}, where t+1 is the next token that the policy wrote.

    Crossing an observation costs no discount. Used by REINFORCE and REINFORCE++ (arXiv:2501.03262).
    For rewards that belong to no token yet, see place.py.

    Args:     reward [B,T] per token, mask [B,T] bool, rollout [B] row -> rollout (left out: a row
              is a rollout); the contexts of one rollout are one sequence, in the order of their
              rows.
    Returns:  [B,T], 0 where mask is False.
    Raises:   ValueError if a reward other than 0 lies where mask is False: nobody would see it.
    """
    check_reward(reward, mask)
    tokens = compact(mask, rollout)
    return tokens.scatter(discounted(tokens.gather(reward), gamma))


def remax(
    reward: Tensor,
    mask: Tensor,
    baseline: Tensor,
    *,
    gamma: float = 1.0,
    rollout: Tensor | None = None,
) -> Tensor:
    """A_t = R_t - reward of a greedy answer to the same task. arXiv:2310.10505.

    Args:     as `reward_to_go`, and baseline [R] (one per row if rollout is left out), from the
              weights that sampled the rollout; the greedy answer itself is never trained on.
    Returns:  [B,T], 0 where mask is False. Equal rewards in a group still teach where the greedy
              twin differs.
    """
    returns = reward_to_go(reward, mask, gamma=gamma, rollout=rollout)
    per_row = baseline if rollout is None else baseline[rollout]
    return (returns - per_row[:, None]).masked_fill(~mask, 0.0)


def check_reward(reward: Tensor, mask: Tensor) -> None:
    """Raise where a reward lies on a token that the policy did not write."""
    check_tokens(mask, reward=reward)
    lost = ((reward != 0) & ~mask).nonzero()
    if len(lost):
        b, t = lost[0].tolist()
        raise ValueError(
            f"reward {reward[b, t].item():g} lies on token {t} of row {b}, which the policy did not write, so no "
            "estimator would see it; put it on the last trainable token with place_terminal or place_turns"
        )
