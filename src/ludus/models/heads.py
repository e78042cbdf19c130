"""A scalar on top of a language model: the value of a state for critics, the reward of an answer for reward models."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ScalarHead(nn.Module):
    """One number per position: hidden . w + b.

    It starts at zero by default. A critic then says 0 everywhere, so that the first advantages are plain returns and
    not noise; a reward model says that all answers are equal, the loss starts at log 2, and w has a gradient at once
    (the body has one from the second step on). A small std, 0.02 say, starts the body too from the first step.

    Args:
        hidden_size:  H of the hidden states.
        dtype:        of the head and its result; float32 also on a bfloat16 body, whose steps near a return of 100
                      would be 0.5.
        std:          standard deviation of the first w.
    """

    def __init__(
        self, hidden_size: int, dtype: torch.dtype = torch.float32, *, std: float = 0.0
    ) -> None:
        super().__init__()
        if std < 0:
            raise ValueError(f"std is {std:g}; give 0 or more")
        self.linear = nn.Linear(hidden_size, 1, dtype=dtype)
        nn.init.normal_(self.linear.weight, std=std)
        nn.init.zeros_(self.linear.bias)

    def forward(self, hidden: Tensor) -> Tensor:
        """[..., H] -> [...], in the head's dtype."""
        return self.linear(hidden.to(self.linear.weight.dtype)).squeeze(-1)


def at_last(values: Tensor, mask: Tensor) -> Tensor:
    """The value at the last token of each row: a reward model's reward of a whole text.

    Found by the mask and not by the width, so the reward of a text does not depend on how it was padded, right or left.

    Args:     values [B,T], mask [B,T] bool: True on real tokens (an attention mask; Batch.lengths_mask()).
    Returns:  [B].   Raises:  ValueError for a row without tokens.
    """
    if mask.dtype != torch.bool or mask.dim() != 2 or values.shape != mask.shape:
        raise ValueError(
            f"values has shape {list(values.shape)}, mask has shape {list(mask.shape)} and dtype {mask.dtype}; "
            "give [B,T] both, the mask as torch.bool"
        )
    if not bool(mask.any(1).all()):
        row = int((~mask.any(1)).nonzero()[0, 0])
        raise ValueError(f"row {row} has no tokens, so no last one; leave empty texts out")
    place = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    return values.gather(1, (mask * place).argmax(1, keepdim=True))[:, 0]
