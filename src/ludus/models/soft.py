"""Soft tokens: a position that is read as a noisy mixture of embeddings, and its density. arXiv:2509.19170

    p = softmax(logits / temperature),   h0 = p E,   h = h0 + sigma N(0, I)
    log pi(h) = -|h - h0|^2 / (2 sigma^2) + constant,   d log pi / d h0 = (h - h0) / sigma^2

The noise makes a policy of it: h has a density whose score is an unbiased direction, so whatever learns from
log-probabilities learns from it too. When learning, h0 is made anew from the stored h of the positions before, which
are constants: no gradient flows from one position into another's input, and without noise there is none at all.

Legend: N positions, V vocabulary, H numbers of an embedding. E and h are in the units of the embedding table.
"""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from torch import Tensor

BEYOND = 1 << 40  # no vocabulary is as large


def mixture(logits: Tensor, table: Tensor, temperature: float | Tensor) -> Tensor:
    """h0: the embeddings, weighted by their tokens' probabilities.

    Args:     logits [N,V], table [V,H], temperature > 0 (one, or [N]).
    Returns:  [N,H], differentiable in logits and table. Towards temperature 0, the likeliest token's embedding.
    """
    if logits.dim() != 2 or table.dim() != 2 or logits.shape[1] != len(table):
        raise ValueError(
            f"logits have shape {list(logits.shape)}, the table {list(table.shape)}; give [N,V] and [V,H]: a model "
            "whose head and embeddings have different vocabularies cannot read mixtures"
        )
    if isinstance(temperature, Tensor):
        temperature = temperature[:, None]
    return (logits / temperature).softmax(-1) @ table


def log_density(read: Tensor, centre: Tensor, sigma: float | Tensor) -> Tensor:
    """-|h - h0|^2 / (2 sigma^2): the log-density of h without its constant, which ratios at one sigma do not need.

    Args:     read [N,H] (h, a constant), centre [N,H] (h0), sigma > 0 (one, or [N]).
    Returns:  [N], in nats but for the constant; differentiable in centre alone.
    """
    if read.shape != centre.shape:
        raise ValueError(
            f"read has shape {list(read.shape)}, centre {list(centre.shape)}; give the same"
        )
    return -(read.detach() - centre).square().sum(-1) / (2 * sigma**2)


def root_mean_square(table: Tensor) -> float:
    """sqrt(mean of E_ij^2), the unit of `Soft.noise`.

    Over single numbers, so that the noise is about a third of an embedding in length at 0.33; over the lengths of
    whole embeddings it would be sqrt(H) times that.
    """
    return float(table.detach().float().square().mean().sqrt())


def embeddings(model: Any) -> Tensor:
    """[V,H]: what the body of a transformers model reads for each token; no copy, so gradients reach the weights."""
    table = model.get_input_embeddings()
    scale = getattr(table, "embed_scale", None)  # Gemma
    return table.weight if scale is None else table.weight * scale


def vocabulary(model: Any) -> int:
    """How many tokens a transformers model knows; numbers from here on are no tokens (types.Inputs)."""
    return int(model.get_input_embeddings().weight.shape[0])


def number_of(vector: np.ndarray) -> int:
    """What stands in Node.tokens for a vector: beyond every vocabulary, below 2^62, and the same for the same vector.

    Made from the vector itself, so two different ones share a number with probability 2^-61.
    """
    told = np.ascontiguousarray(vector, np.float32).tobytes()
    digest = hashlib.blake2b(told, digest_size=8).digest()
    return BEYOND + (int.from_bytes(digest, "little") >> 3)
