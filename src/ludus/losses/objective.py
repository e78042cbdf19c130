"""What a policy update minimises: a loss per token, an anchor, an entropy bonus, and whatever terms a recipe adds."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.tensors import blank
from ludus.types import Batch, Explained, Loss
from ludus.weights.average import Over, token_weights

NOW = ("entropy", "mean_logp")  # what the weights in training can be asked for, besides logp


@dataclass(frozen=True)
class KL:
    """A pull towards a frozen copy of the first weights, added to each token's loss.

    estimator  (logp, ref_logp, mask) -> [B,T], from ludus.losses.kl: a loss wants k2, or k3 with k2's gradient.
               The KL in the *reward* is a matter of credit: see ludus.advantages.credit.Returns and GAE.
    """

    coef: float
    estimator: Callable[[Tensor, Tensor, Tensor], Tensor]


@dataclass(frozen=True)
class Term:
    """A further loss on tokens of its own, with a denominator of its own.

    tokens  batch -> [B,T] bool, the tokens that it counts; they must be in batch.mask
    """

    loss: Loss
    tokens: Callable[[Batch], Tensor]
    coef: float = 1.0
    over: Over = "tokens"


class Missing(Explained, ValueError):
    """A loss asks for something that nothing provides."""


def reads(loss: Loss) -> tuple[str, ...]:
    """The names of what a loss wants beyond (logp, old_logp, advantage, mask): its parameters without a default."""
    parameters = list(inspect.signature(loss).parameters.values())
    return tuple(
        p.name
        for p in parameters[4:]
        if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
    )


def _pulls(loss: Loss) -> bool:
    """Whether a loss has a gradient where the advantage is 0, as fine-tuning and regressions have: tried on a token."""
    with torch.enable_grad():
        logp = torch.tensor([[-1.0]], requires_grad=True)
        zero, chosen = torch.zeros(1, 1), torch.ones(1, 1, dtype=torch.bool)
        value = loss(logp, torch.tensor([[-1.1]]), zero, chosen).sum()
        if not value.requires_grad:
            return False
        (slope,) = torch.autograd.grad(value, logp, allow_unused=True)
    return slope is not None and bool(slope.any())


@dataclass(frozen=True)
class Objective:
    """loss(logp, old_logp, advantage, mask) + kl.coef * KL - entropy * H, each a value per token [B,T], and terms.

    over  how the values become one number; see ludus.weights.average.token_weights
    """

    loss: Loss
    over: Over = "tokens"
    kl: KL | None = None
    entropy: float = 0.0
    terms: tuple[Term, ...] = ()

    @property
    def now(self) -> frozenset[str]:
        """What the losses want of the weights in training, besides logp."""
        wanted = {name for loss in self.losses for name in reads(loss)} & set(NOW)
        return frozenset(wanted | ({"entropy"} if self.entropy else set()))

    @property
    def losses(self) -> tuple[Loss, ...]:
        return (self.loss, *(term.loss for term in self.terms))

    @property
    def teaches_all(self) -> bool:
        """Whether a token with advantage 0 can still send a gradient."""
        more = self.kl or self.entropy or self.terms or reads(self.loss)
        return bool(more) or _pulls(self.loss)

    def weights(self, batch: Batch) -> tuple[Tensor, ...]:
        """Each token's share [B,T] in the loss and in each term, counted over the whole batch."""
        scored = batch.scored[batch.rollout][:, None]

        def shares(mask: Tensor, over: Over) -> Tensor:
            return token_weights(
                mask & scored, batch.rollout, over=over, turn=batch.turn, group=batch.group
            )

        terms = (shares(batch.mask & t.tokens(batch), t.over) for t in self.terms)
        return (shares(batch.mask, self.over), *terms)

    def __call__(
        self, logp: Tensor, now: Mapping[str, Tensor], batch: Batch, weights: tuple[Tensor, ...]
    ) -> Tensor:
        """The part of the loss that these rows make.

        Args:  logp [B,T] of the weights in training, and `now`, what else was asked of them, each [B,T];
               weights as from `weights`, cut to the same rows.
        """
        old = batch.logp if batch.old_logp is None else batch.old_logp
        assert batch.advantage is not None

        def value(loss: Loss) -> Tensor:
            more = {name: find(name, now, batch) for name in reads(loss)}
            return loss(logp, old, batch.advantage, batch.mask, **more)

        each = value(self.loss)
        if self.kl is not None:
            assert batch.ref_logp is not None
            each = each + self.kl.coef * self.kl.estimator(logp, batch.ref_logp, batch.mask)
        if self.entropy:
            each = each - self.entropy * blank(now["entropy"], batch.mask)
        total = (each * weights[0]).sum()
        for term, weight in zip(self.terms, weights[1:], strict=True):
            total = total + term.coef * (value(term.loss) * weight).sum()
        return total


def find(name: str, now: Mapping[str, Tensor], batch: Batch) -> Tensor:
    """What a loss asks for by name: of the weights in training, of the probes, of the batch."""
    if name in now:
        return now[name]
    found = batch.probes.get(name, getattr(batch, name, None))
    if found is None:
        have = sorted({*now, *batch.probes})
        raise Missing(
            f"a loss wants {name!r}, and there is no such probe, and the batch's field is empty (probes here: "
            f"{', '.join(have) or 'none'}); give the recipe probes={{{name!r}: ...}} from ludus.models.probes"
        )
    return found
