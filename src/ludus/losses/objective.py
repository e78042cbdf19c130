"""What a policy update minimises: a loss per token, an anchor and an entropy bonus, under one averaging rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from ludus.tensors import blank
from ludus.types import Batch, Loss
from ludus.weights.average import Over


@dataclass(frozen=True)
class KL:
    """A pull towards a frozen copy of the first weights, added to each token's loss.

    estimator  (logp, ref_logp, mask) -> [B,T], from ludus.losses.kl: a loss wants k2, or k3 with k2's gradient.
               The KL in the *reward* is a matter of credit: see ludus.advantages.credit.Returns and GAE.
    """

    coef: float
    estimator: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Objective:
    """loss(logp, old_logp, advantage, mask) + kl.coef * KL - entropy * H, each a value per token [B,T].

    over  how the values become one number; see ludus.weights.average.token_weights
    """

    loss: Loss
    over: Over = "tokens"
    kl: KL | None = None
    entropy: float = 0.0

    def __call__(self, logp: Tensor, entropy: Tensor | None, batch: Batch) -> Tensor:
        """logp and entropy [B,T] of the weights in training -> [B,T] to be minimised, 0 where mask is False."""
        old = batch.logp if batch.old_logp is None else batch.old_logp
        assert batch.advantage is not None
        value = self.loss(logp, old, batch.advantage, batch.mask)
        if self.kl is not None:
            assert batch.ref_logp is not None
            value = value + self.kl.coef * self.kl.estimator(logp, batch.ref_logp, batch.mask)
        if self.entropy:
            assert entropy is not None
            value = value - self.entropy * blank(entropy, batch.mask)
        return value
