"""Supervised fine-tuning: raise the probability of given tokens."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import blank, check_tokens


def sft(logp: Tensor, old_logp: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
    """-log pi of each token that is to be learnt.

    The mask decides what is learnt. True: every token of an answer, the end-of-turn token included (without it the
    model never learns to stop). False: prompts, templates, tool output, observations, padding, and the first token of
    a packed segment, which nothing predicts. Masked by `blank`: an impossible token (-inf) outside counts 0.

    Averaged over="tokens" of the global batch this is the usual loss; a mean of micro-batch means is another one.

    Args:     logp [B,T], old_logp and advantage [B,T] (unused: all losses are called alike), mask [B,T] bool.
    Returns:  [B,T] to be minimised, 0 where mask is False; never averaged.
    """
    check_tokens(mask, logp=logp, old_logp=old_logp, advantage=advantage)
    return -blank(logp, mask)
