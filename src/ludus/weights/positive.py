"""The tokens of correct answers, for a likelihood term beside the policy loss."""

from __future__ import annotations

from torch import Tensor

from ludus.tensors import check_tokens


def of_correct(mask: Tensor, rollout: Tensor, correct: Tensor) -> Tensor:
    """A new mask: the trainable tokens of correct rollouts alone.

    VAPO's positive-example term, arXiv:2504.05118, with mu = 0.1:

        L = L_PPO + mu L_NLL,   L_NLL = - sum of l_t over these tokens / their number

    The value per token is `losses.supervised.sft` under this mask; there is no ratio and no
    advantage. Its denominator is its own, not the policy loss's:

        chosen = of_correct(mask, rollout, correct)
        (sft(logp, old_logp, advantage, chosen) * token_weights(chosen, rollout, over="tokens")).sum()

    counted over the whole update before it is cut, and 0 where no rollout is correct.

    Args:     mask [B,T] bool, rollout [B] row -> rollout, correct [R] bool (scored and right).
    Returns:  [B,T] bool.
    """
    check_tokens(mask)
    return mask & correct[rollout][:, None]
