"""Rollouts that ran out of turns or of tokens: they are compared with, and not learnt from.

Punishing an episode because it was cut off teaches to act less and to write shorter summaries, not
to do better. So its reward stays in the statistics of its group, and its weight is 0: assign credit
first, then mask with `overlong_filter(mask, rollout, ~finished(groups))` of rewards.overlong. What
is averaged are then the tokens of the others alone. SUPO, arXiv:2510.06727.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ludus.types import End, Group


def finished(groups: Sequence[Group]) -> Tensor:
    """[R] bool, rollouts in the order of the groups: False for those cut off by turns or tokens."""
    ends = [rollout.end for group in groups for rollout in group.rollouts]
    return torch.tensor(
        [end not in {End.OUT_OF_TURNS, End.OUT_OF_TOKENS} for end in ends], dtype=torch.bool
    )
