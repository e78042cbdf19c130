"""A probe: KL to frozen weights over the whole vocabulary, at each token. See ludus.losses.exact_kl for why."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ludus.losses.exact_kl import exact_kl
from ludus.types import Batch

if TYPE_CHECKING:
    from ludus.train.recipe import Made

CHUNK = 1024  # tokens at a time, so that no logits of a whole batch exist


@dataclass(frozen=True)
class FullKL:
    """KL(policy || reference) in nats, both reading the same context, before the first update of a step.

    reference  named as a recipe's `model` is; a model that is made anew for each seed is that of seed 0. Its weights
               are loaded when they are first asked for, beside those of the learner's own reference, if it keeps one
    """

    reference: str | Made

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        from ludus.engines.local.packed import hidden_before, scatter

        with torch.no_grad():
            mine, _ = hidden_before(model, batch)
            theirs, _ = hidden_before(self._model, batch)
            parts = [
                exact_kl(
                    (model.logits(one) / batch.temperature)[None],
                    (self._model.logits(other) / batch.temperature)[None],
                    torch.ones(1, len(one), dtype=torch.bool, device=one.device),
                )[0]
                for one, other in zip(mine.split(CHUNK), theirs.split(CHUNK), strict=True)
            ]
        return scatter(torch.cat(parts), batch.mask)

    @cached_property
    def _model(self) -> Any:
        from ludus.engines.local.build import open_model

        return open_model(self.reference)[0]
