"""Where a reward is put: on the last token that the policy wrote, of the rollout or of the turn.

A reward on an observation that happens to come last is seen by no estimator that skips
observations: the return is zero everywhere and nothing is learnt. So placing goes by the mask, and
reward that finds no token is an error.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.tensors import check_tokens


def place_terminal(reward: Tensor, mask: Tensor, rollout: Tensor | None = None) -> Tensor:
    """Each rollout's reward on its last trainable token, in its last context that has one.

    Args:     reward [R], mask [B,T] bool, rollout [B] row -> rollout (left out: a row is a
              rollout).
    Returns:  [B,T] of the dtype of reward, 0 elsewhere.
    Raises:   ValueError if a rollout without trainable tokens has a reward other than 0.
    """
    check_tokens(mask)
    if rollout is None:
        rollout = torch.arange(len(mask), device=mask.device)
    row, column = mask.nonzero(as_tuple=True)
    placed, missed = _on_last(reward, rollout[row], row, column, mask)
    if len(missed):
        r = int(missed[0])
        raise ValueError(
            f"rollout {r} has reward {reward[r].item():g} and no token that the policy wrote; "
            "leave it out of the batch, or set its reward to 0"
        )
    return placed


def place_turns(
    turn_reward: Tensor, turn: Tensor, mask: Tensor, rollout: Tensor | None = None
) -> Tensor:
    """Each turn's reward on the last trainable token of that turn, 0 elsewhere.

    Args:     turn_reward [R,K], turn [B,T] index of the turn, mask [B,T] bool, rollout [B] as in
              `place_terminal`.
    Returns:  [B,T] of the dtype of turn_reward.
    Raises:   ValueError if a turn without trainable tokens has a reward other than 0, or a token
              has no turn.
    """
    if rollout is None:
        rollout = torch.arange(len(mask), device=mask.device)
    turns = turn_reward.shape[1]
    row, column = mask.nonzero(as_tuple=True)
    key = rollout[row] * turns + turn_of_tokens(turn, mask, turns)
    placed, missed = _on_last(turn_reward.flatten(), key, row, column, mask)
    if len(missed):
        r, k = divmod(int(missed[0]), turns)
        raise ValueError(
            f"turn {k} of rollout {r} has reward {turn_reward[r, k].item():g} and no token that the policy "
            "wrote; put the reward on a turn that was written, or set it to 0"
        )
    return placed


def turn_of_tokens(turn: Tensor, mask: Tensor, turns: int) -> Tensor:
    """[M]: the turn of each trainable token, in the order of mask.nonzero(); ValueError unless in 0 to turns-1."""
    check_tokens(mask, turn=turn)
    written = turn[mask]
    if bool(((written < 0) | (written >= turns)).any()):
        raise ValueError(
            f"trainable tokens belong to turns {int(written.min())} to {int(written.max())}, turn_reward has "
            f"{turns} columns; give one column per turn, and every trainable token a turn from 0"
        )
    return written


def _on_last(
    amount: Tensor, key: Tensor, row: Tensor, column: Tensor, mask: Tensor
) -> tuple[Tensor, Tensor]:
    """amount [S] onto the last of the tokens [M] of each key, and the keys that found no token."""
    position = torch.arange(len(key), device=key.device)
    last = position.new_full((len(amount),), -1).scatter_reduce(0, key, position, "amax")
    found = last >= 0
    placed = amount.new_zeros(mask.shape)
    placed[row[last[found]], column[last[found]]] = amount[found]
    return placed, (~found & (amount != 0)).nonzero().squeeze(1)
