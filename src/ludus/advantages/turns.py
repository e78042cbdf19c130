"""Between turns and tokens: which turns were written, and a number per turn on each of its tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.advantages.place import turn_of_tokens
from ludus.types import Batch


@dataclass(frozen=True, eq=False)
class Turns:
    """The M tokens that the policy wrote, in the order of mask.nonzero(): whose they are, in which turn.

    written  [R,K] bool: turns of which the policy wrote a token
    """

    mask: Tensor  # [B,T]
    owner: Tensor  # [M]
    turn: Tensor  # [M]
    written: Tensor

    def spread(self, per_turn: Tensor) -> Tensor:
        """[R,K] -> [B,T]: the turn's number on each of its tokens, 0 where the policy wrote nothing."""
        out = per_turn.new_zeros(self.mask.shape)
        out[self.mask] = per_turn[self.owner, self.turn]
        return out


def turns(batch: Batch) -> Turns:
    """The turns of a batch; ValueError where a token lies in a turn that batch.turn_reward lacks."""
    turn = turn_of_tokens(batch.turn, batch.mask, batch.turn_reward.shape[1])
    owner = batch.rollout[batch.mask.nonzero(as_tuple=True)[0]]
    written = torch.zeros_like(batch.turn_reward, dtype=torch.bool)
    written[owner, turn] = True
    return Turns(batch.mask, owner, turn, written)
