"""How much the advantage of each token is amplified, as probes: by attention, by any measure, by chance.

    probes={"rhythm": Rhythm()}, credit=Scaled(GRPO(), "rhythm")

All of them rank the tokens of an answer among themselves, so they do not depend on how a batch is cut into passes.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from ludus.models.attention_maps import attention_maps
from ludus.types import Batch, Key, Probe
from ludus.weights.attention_rhythm import Heads, coupled, heads, middle_layers, rhythm, top


@dataclass(frozen=True)
class Rhythm:
    """(model, batch) -> [B,T]: gamma from WAAD and FAI, in an extra pass of the middle layers. arXiv:2510.13554.

    gamma   (waad [N], fai [N]) -> [N]: ludus.weights.attention_rhythm.coupled, or of one of the two alone
    window  beyond which distances count the same
    low, high  the distances at which later tokens are asked how much they look back at one
    layers  how many of the middle third are read, evenly spaced; fewer where there are not so many
    """

    gamma: Callable[[Tensor, Tensor], Tensor] = coupled
    window: int = 10
    low: int = 10
    high: int = 50
    layers: int = 5

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        if batch.inputs:
            raise NotImplementedError(
                "attention maps are read of tokens alone, and this batch has pictures or vectors in it; "
                "leave the probe out"
            )
        chosen = middle_layers(model.text.num_hidden_layers, self.layers)

        def read(row: int, maps: Tensor) -> Heads:
            response = batch.mask[row, : maps.shape[-1]]
            return heads(maps, response, window=self.window, low=self.low, high=self.high)

        out = torch.zeros(batch.mask.shape, device=batch.mask.device)
        for row, found in enumerate(attention_maps(model.module, batch.tokens, chosen, read)):
            if found:
                out[row, batch.mask[row]] = self.gamma(*rhythm(found)).float()
        return out


@dataclass(frozen=True)
class Highest:
    """(model, batch) -> [B,T]: gain at the ceil(q N) tokens of each answer at which `measure` is highest, else 1."""

    measure: Probe
    gain: float = 1.5
    q: float = 0.4

    def __call__(self, model: Any, batch: Batch) -> Tensor:
        measured = self.measure(model, batch)
        out = torch.zeros_like(measured)
        for row, mask in enumerate(batch.mask):
            out[row, mask] = 1 + (self.gain - 1) * top(measured[row, mask], self.q).float()
        return out


def chance(model: Any, batch: Batch) -> Tensor:
    """[B,T]: uniform in [0,1). What was sampled in the row is the seed, so a resumed run draws the same."""
    out = torch.zeros(batch.mask.shape)
    for row, mask in enumerate(batch.mask):
        sampled = (batch.tokens[row, mask], batch.logp[row, mask])
        told = b"".join(part.cpu().numpy().tobytes() for part in sampled)
        name = hashlib.blake2b(told, digest_size=8).hexdigest()
        drawn = Key(0, ("chance", name)).generator().random(int(mask.sum()))
        out[row, mask.cpu()] = torch.from_numpy(drawn).float()
    return out.to(batch.mask.device)
