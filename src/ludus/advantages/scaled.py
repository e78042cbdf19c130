"""Another credit, made larger at tokens that a probe names: Scaled(GRPO(), "rhythm"). arXiv:2510.13554."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.tensors import blank
from ludus.types import Batch, Credit, Credited
from ludus.weights.attention_rhythm import amplified


@dataclass(frozen=True)
class Scaled:
    """gamma A where A >= 0, A where it is negative; gamma is the probe of that name (`Recipe.probes`).

    A critic's targets stay as the inner credit made them. `scaled/gamma` is the mean of gamma over trained tokens.
    """

    credit: Credit
    probe: str

    @property
    def needs(self) -> Sequence[str]:
        return self.credit.needs

    def init(self) -> Any:
        return self.credit.init()

    def assign(self, state: Any, batch: Batch) -> tuple[Any, Credited]:
        if self.probe not in batch.probes:
            raise ValueError(
                f"Scaled reads the probe {self.probe!r}, and there is {', '.join(batch.probes) or 'none'}; "
                f"give the recipe probes={{{self.probe!r}: ...}}, such as ludus.models.rhythm.Rhythm()"
            )
        gamma = blank(batch.probes[self.probe], batch.mask)
        state, inner = self.credit.assign(state, batch)
        told = float(gamma[batch.mask].mean()) if bool(batch.mask.any()) else 1.0
        metrics = {**inner.metrics, "scaled/gamma": told}
        return state, Credited(amplified(inner.advantage, gamma), inner.returns, metrics)
