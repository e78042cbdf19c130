"""One attention function for sampling and for learning, so that both see the same numbers.

transformers calls it by name (`attn_implementation="ludus"`) with the tokens of many sequences packed into one row,
[1, heads, N, dim]: no projection, norm or MLP ever touches padding. A *plan*, passed as a keyword through the model,
says which of these tokens may see which. Two plans exist: `Tree` here (learning) and `cache.Rows` (sampling).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface

NAME = "ludus"


class Plan(Protocol):
    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        """query [H,N,D], key and value [KV,N,D] of the packed tokens -> [H,N,D]."""
        ...


def attention(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    plan: Plan | None = None,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    **other: object,
) -> tuple[Tensor, None]:
    """The function that transformers calls: [1,H,N,D] -> ([1,N,H,D], no weights)."""
    if plan is None:
        raise ValueError(
            'a model loaded with attn_implementation="ludus" was called without a plan; call it through '
            'ludus.engines.local, or use model.set_attn_implementation("sdpa") for a plain forward'
        )
    unknown = [
        name for name in ("softcap", "s_aux", "position_bias") if other.get(name) is not None
    ]
    if unknown:
        raise NotImplementedError(
            f"{type(module).__name__} asks its attention for {', '.join(unknown)}, which the local engine does not "
            "compute; use --engine vllm for this model"
        )
    if dropout:
        raise ValueError(
            f"attention dropout is {dropout}; set attention_dropout to 0 in the model's config: sampler and learner "
            "must compute the same distribution"
        )
    scale = scaling if scaling is not None else query.shape[-1] ** -0.5
    layer: int = module.layer_idx  # type: ignore[assignment]
    out = plan.attend(layer, query[0], key[0], value[0], scale, sliding_window)
    return out.transpose(0, 1)[None], None


AttentionInterface.register(NAME, attention)
AttentionMaskInterface.register(NAME, lambda *args, **kwargs: None)  # the plan is the mask


@dataclass(frozen=True)
class Segment:
    """A run of packed tokens [start, stop) that continues `parent` (an index into the plan) at `position`."""

    start: int
    stop: int
    parent: int = -1
    position: int = 0


class Tree:
    """Learning: packed segments, each seeing its ancestors and, causally, itself.

    A segment shared by several sequences (the prompt of a group, the common moves of two branches) is packed once;
    its keys and values serve all of them, and its gradient is the sum of what they send back.
    """

    def __init__(self, segments: Sequence[Segment], device: torch.device) -> None:
        self.segments = segments
        self._masks: dict[tuple[int, int, int | None], Tensor] = {}
        self._device = device
        # on a CPU the gradient of attention computes what lies above the diagonal too, so there it is cut into blocks
        self._block = 128 if device.type == "cpu" else 1 << 30

    def _mask(self, new: int, seen: int, window: int | None, dtype: torch.dtype) -> Tensor:
        """[new, seen + new], 0 or -inf: token i of the segment sees everything before it and itself.

        As attention adds it, so that no layer makes, and keeps for its gradient, one of its own.
        """
        if (new, seen, window) not in self._masks:
            query = torch.arange(seen, seen + new, device=self._device)[:, None]
            key = torch.arange(seen + new, device=self._device)[None, :]
            hidden = key > query
            if window is not None:
                hidden |= key <= query - window
            mask = torch.zeros(hidden.shape, dtype=dtype, device=self._device)
            self._masks[new, seen, window] = mask.masked_fill_(hidden, -torch.inf)
        return self._masks[new, seen, window]

    def attend(
        self,
        layer: int,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        scale: float,
        window: int | None,
    ) -> Tensor:
        # split, not slices: the gradient of a slice is as large as the whole, for every segment
        sizes = [segment.stop - segment.start for segment in self.segments]
        pieces = zip(*(tensor.split(sizes, 1) for tensor in (query, key, value)), strict=True)
        past: list[tuple[Tensor, Tensor]] = []  # keys and values of each segment's whole context
        outs = []
        for segment, new, (q, k, v) in zip(self.segments, sizes, pieces, strict=True):
            if segment.parent >= 0:
                k = torch.cat([past[segment.parent][0], k], 1)
                v = torch.cat([past[segment.parent][1], v], 1)
            past.append((k, v))
            seen = k.shape[1] - new
            for part in q.split(self._block, 1):
                before, seen = seen, seen + part.shape[1]
                plain = before == 0 and (window is None or seen <= window)
                out = F.scaled_dot_product_attention(
                    part[None],
                    k[None, :, :seen],
                    v[None, :, :seen],
                    attn_mask=None if plain else self._mask(seen - before, before, window, q.dtype),
                    is_causal=plain,
                    scale=scale,
                    enable_gqa=query.shape[0] != key.shape[0],
                )
                outs.append(out[0])
        return torch.cat(outs, 1)
