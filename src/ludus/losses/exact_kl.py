"""KL(policy || reference) over the whole vocabulary, where the sampled token's log-ratio is too noisy.

Used as a penalty in the reward by CORY (arXiv:2410.06101): its spread is zero for given
distributions, while single log-ratios of (.5, .3, .2) to (.6, .3, .1) are -.18, 0 and .69.
"""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import check_tokens


def exact_kl(logits: Tensor, ref_logits: Tensor, mask: Tensor) -> Tensor:
    """sum_v p_v (log p_v - log q_v), in nats.

    Args:     logits, ref_logits [B,T,V] of the same context at position t (the token t is chosen
              from them), mask [B,T] bool. A reference that read another context shows as KL > 0
              before the first update.
    Returns:  [B,T], 0 where mask is False; infinite where the reference rules a token out that the
              policy does not. The gradient flows into logits alone.
    """
    check_tokens(mask)
    if logits.shape != ref_logits.shape or logits.shape[:-1] != mask.shape:
        raise ValueError(
            f"logits have shape {list(logits.shape)}, ref_logits {list(ref_logits.shape)}, mask {list(mask.shape)}; "
            "give [B,T,V] twice and [B,T]"
        )
    logp, ref = logits[mask].log_softmax(-1), ref_logits[mask].detach().log_softmax(-1)
    p = logp.exp()
    never = p == 0
    terms = p * (logp.masked_fill(never, 0.0) - ref.masked_fill(never, 0.0))
    return logits.new_zeros(mask.shape).masked_scatter(mask, terms.sum(-1))
