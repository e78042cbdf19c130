"""How far the sampler is from the learner, at what should be the same weights."""

from __future__ import annotations

from torch import Tensor

from ludus.losses.kl import k1, k2, k3
from ludus.weights.importance import importance


def mismatch(logp: Tensor, sampler_logp: Tensor, mask: Tensor) -> dict[str, float]:
    """Estimates of KL(sampler, learner), and what the importance weights are worth.

        q   = exp(logp - sampler_logp)
        k1  = mean of -log q      k2 = mean of (log q)^2 / 2      k3 = mean of q - 1 - log q
        max = largest |log q|     ess = (sum q)^2 / (n sum q^2), effective share of the n tokens

    Always measured: k3 at ten times its running median means a wrong temperature, stale weights or
    a stale cache. Correcting is for what remains (importance.py).

    Args: logp, sampler_logp [B,T], mask [B,T] bool. No tokens: all 0, and ess 1.
    """
    sampler, logp = sampler_logp.detach(), logp.detach()
    count = mask.sum().clamp(min=1)
    log_q = k1(sampler, logp, mask)
    q = importance(logp, sampler, mask)
    square = (q**2).sum()
    return {
        "k1": (log_q.sum() / count).item(),
        "k2": (k2(sampler, logp, mask).sum() / count).item(),
        "k3": (k3(sampler, logp, mask).sum() / count).item(),
        "max": log_q.abs().max().item() if mask.numel() else 0.0,
        "ess": (q.sum() ** 2 / (count * square)).item() if bool(mask.any()) else 1.0,
    }
