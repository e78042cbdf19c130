"""From one value per token to one number: each token's share, counted over the whole step.

    loss = (value * token_weights(mask, rollout, over=...)).sum()

The shares are made before the batch is cut into micro-batches, ranks or packs, and cut with it;
sums of pieces are then the sum of the whole. Dividing inside a piece, `loss.mean()` per
micro-batch, silently changes the algorithm.

| over          | each of these counts the same                         | used by                         |
| ------------- | ----------------------------------------------------- | ------------------------------- |
| "tokens"      | token: 1 / N_tokens                                   | DAPO, CISPO, PPO                |
| "answers"     | rollout, and inside it token                          | GRPO, GSPO                      |
| "turns"       | turn, and inside it token                             | turn-level methods              |
| "groups"      | group, and inside it token                            | prompt-level averages           |
| "answer sums" | token: 1 / N_rollouts, so a rollout counts its length | REINFORCE, RLOO                 |
| an int L      | token: 1 / (L N_rollouts)                             | Dr. GRPO, L the longest allowed |
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from ludus.tensors import check_tokens

Over = Literal["tokens", "answers", "turns", "groups", "answer sums"] | int


def token_weights(
    mask: Tensor,
    rollout: Tensor,
    *,
    over: Over,
    turn: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """Each token's share of the loss.

    Args:     mask [B,T] bool: the tokens that count. Rollouts lost to faults are left out by
              mask & scored[rollout][:, None]. rollout [B] row -> rollout: a rollout of several
              contexts counts once. turn [B,T] for "turns", group [R] for "groups".
    Returns:  [B,T] float32, 0 where mask is False. It sums to 1, or over "answer sums" and an int
              to tokens a rollout and that over L. Rollouts, turns and groups without tokens are not
              counted; no tokens at all give zeros.
    """
    check_tokens(mask)
    if len(rollout) != len(mask):
        raise ValueError(
            f"rollout has {len(rollout)} entries, mask has {len(mask)} rows; give one per row"
        )
    row, column = mask.nonzero(as_tuple=True)
    owner = rollout[row]
    if over == "tokens":
        key = torch.zeros_like(owner)
    elif over == "turns":
        if turn is None:
            raise ValueError('over="turns" needs turn [B,T]; give turn=batch.turn')
        check_tokens(mask, turn=turn)
        key = torch.stack([owner, turn[row, column]])
    elif over == "groups":
        if group is None:
            raise ValueError('over="groups" needs group [R]; give group=batch.group')
        key = group[owner]
    elif over in ("answers", "answer sums") or (isinstance(over, int) and over > 0):
        key = owner
    else:
        raise ValueError(
            f"over={over!r} is not known; give tokens, answers, turns, groups, answer sums or a length"
        )
    columns = -1 if key.dim() > 1 else None  # plain numbers need no comparison column by column
    _, member, count = key.unique(dim=columns, return_inverse=True, return_counts=True)
    within = torch.ones_like(member) if over == "answer sums" else count[member]
    if isinstance(over, int):
        within = torch.full_like(member, over)
    share = 1.0 / (within * len(count))
    return torch.zeros(mask.shape, device=mask.device).index_put((row, column), share)


def average(
    value: Tensor,
    mask: Tensor,
    rollout: Tensor | None = None,
    *,
    over: Over,
    turn: Tensor | None = None,
    group: Tensor | None = None,
) -> Tensor:
    """value [B,T] to one number, for a batch that is not cut.

    Arguments as `token_weights`; with rollout left out a row is a rollout.
    """
    check_tokens(mask, value=value)
    if rollout is None:
        rollout = torch.arange(len(mask), device=mask.device)
    weight = token_weights(mask, rollout, over=over, turn=turn, group=group)
    return (value.masked_fill(~mask, 0.0) * weight).sum()
