"""A credit whose samples weigh by how rare their true class is: the verifier's in RL Tango, arXiv:2505.15034."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ludus.types import Batch, Credit, Credited
from ludus.weights.class_balance import ClassCounts, balanced_weights


@dataclass(frozen=True)
class Balanced:
    """`inner`, its advantages times 1 / sqrt(moving count of the rollout's class), scaled to mean 1 over rollouts.

    The weight comes after the comparison, so it changes no baseline. A clipped loss is linear in the advantage, so it
    is a weight of the sample's loss.

    term  that the rollouts of one class have (Rollout.terms), and those of the other not
    """

    inner: Credit
    term: str
    counts: ClassCounts = ClassCounts()  # noqa: RUF009

    @property
    def needs(self) -> Sequence[str]:
        return self.inner.needs

    def truth(self, batch: Batch) -> Tensor:
        """[R] bool: the class of each rollout."""
        none = torch.full_like(batch.reward, torch.nan)
        return ~batch.terms.get(self.term, none).isnan()

    def init(self) -> dict[str, Any]:
        return {"inner": self.inner.init(), "counts": self.counts.init()}

    def assign(self, state: Mapping[str, Any], batch: Batch) -> tuple[dict[str, Any], Credited]:
        inner, credited = self.inner.assign(state["inner"], batch)
        truth = self.truth(batch)[batch.scored]
        counts = self.counts.update(state["counts"], truth)
        weight = torch.zeros_like(batch.reward)
        weight[batch.scored] = balanced_weights(truth, **counts).to(weight.dtype)
        told = {f"classes/{name}": count for name, count in counts.items()}
        weighed = credited.advantage * batch.spread(weight)
        return {"inner": inner, "counts": counts}, Credited(
            weighed, credited.returns, {**credited.metrics, **told}
        )
