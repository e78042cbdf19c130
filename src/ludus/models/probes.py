"""Measures of each token, taken with the weights before the first update of a step: `Recipe.probes` names them.

    probes={"old_entropy": entropy, "old_mean_logp": mean_logp}

A probe is (model, batch) -> [B,T], 0 where mask is False; the learner calls it pass by pass, without gradient.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor

from ludus.types import Batch


def entropy(model: Any, batch: Batch) -> Tensor:
    """Of the distribution that each masked token was chosen from, in nats, at the batch's temperature."""
    return model.measure(batch, ("entropy",))[1]["entropy"]


def mean_logp(model: Any, batch: Batch) -> Tensor:
    """Mean log-probability over the vocabulary of the distribution that each masked token was chosen from."""
    return model.measure(batch, ("mean_logp",))[1]["mean_logp"]
