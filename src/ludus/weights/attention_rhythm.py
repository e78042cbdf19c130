"""Which tokens of an answer plan and which anchor it, read off the model's own attention. arXiv:2510.13554.

Two numbers a token: how far back the local heads look when it is written (WAAD; a peak opens a new
chunk), and how much later tokens look at it through the global heads (FAI; an anchor). Advantages
that are not negative are multiplied by gamma >= 1 at the tokens that these select.

Shapes: H heads (of all chosen layers), T tokens of the row (its prompt included), N tokens of the
answer: where `response` [T] is True, in order. maps [..., T, T] hold A[t, s], the weight that token
t gives to s <= t; rows sum to 1. Everything is within one row, and nothing carries a gradient.
`heads` reduces the maps of one layer, so that they need not be kept: the maps of a set of heads are
averaged, and WAAD and FAI are linear in them.

For one row (models.attention_maps makes the maps):

    waad, fai = rhythm([heads(maps, response) for maps in layers])
    gamma = coupled(waad, fai)
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


def middle_layers(layers: int, count: int = 5) -> list[int]:
    """`count` evenly spaced layers from layers // 3 to 2 layers // 3, fewer where there are not so many."""
    first, last = layers // 3, 2 * layers // 3
    steps = torch.linspace(first, last, count).round().long().tolist()
    return sorted({min(step, layers - 1) for step in steps})


# ------------------------------------------------------------------ from maps to numbers


def head_span(maps: Tensor, response: Tensor) -> Tensor:
    """[..., T, T] -> [...]: how many tokens back a head looks, as a mean over the answer's tokens."""
    rows = _rows(maps, response)
    back = _back(response).to(maps.dtype)[response]
    return (rows * back).sum(-1).sum(-1) / max(rows.shape[-2], 1)


def waad(maps: Tensor, response: Tensor, *, window: int = 10) -> Tensor:
    """[..., T, T] -> [..., N]: sum_s A[t, s] min(t - s, window), the windowed average attention distance."""
    rows = _rows(maps, response)
    return (rows * _back(response).clamp(max=window).to(maps.dtype)[response]).sum(-1)


def fai(maps: Tensor, response: Tensor, *, low: int = 10, high: int = 50) -> Tensor:
    """[..., T, T] -> [..., N]: mean of A[t, s] over the answer's t with s + low <= t <= s + high; 0 if none.

    The future attention influence of s. Tokens nearer than `low` would measure chunks and not
    anchors; high=T takes all later ones, as the paper's figures do.
    """
    if not 0 < low <= high:
        raise ValueError(f"low={low}, high={high}; give distances with 0 < low <= high")
    rows = _rows(maps, response)[..., response]
    back = _back(response)[response][:, response]
    near = (back >= low) & (back <= high)
    return (rows * near).sum(-2) / near.sum(0).clamp(min=1)


def local_and_global(span: Tensor, *, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """Indices of the `share` of the heads [H] that look least far back, and of the share that look farthest.

    Rounded up, so that neither is empty; with ties, the earlier heads are the more local.
    """
    count = _count(share, len(span))
    order = span.argsort(stable=True)
    return order[:count], order[len(span) - count :]


class Heads(NamedTuple):
    """What is kept of the maps of some heads: span [H], waad [H,N], fai [H,N]."""

    span: Tensor
    waad: Tensor
    fai: Tensor


def heads(
    maps: Tensor, response: Tensor, *, window: int = 10, low: int = 10, high: int = 50
) -> Heads:
    """maps [H,T,T] and response [T] bool -> the three numbers of every head."""
    return Heads(
        head_span(maps, response),
        waad(maps, response, window=window),
        fai(maps, response, low=low, high=high),
    )


def rhythm(layers: Sequence[Heads], *, share: float = 0.3) -> tuple[Tensor, Tensor]:
    """WAAD of the local heads and FAI of the global ones, [N] each; the heads of all layers are ranked together."""
    span, near, far = (torch.cat(parts) for parts in zip(*layers, strict=True))
    local, distant = local_and_global(span, share=share)
    return near[local].mean(0), far[distant].mean(0)


# ------------------------------------------------------------------ from numbers to gamma


def change(waad: Tensor) -> Tensor:
    """[N]: |WAAD_t - WAAD_{t+1}|, 0 at the last token."""
    return F.pad(waad.diff().abs(), (0, 1)) if len(waad) else waad


def top(value: Tensor, q: float) -> Tensor:
    """[N] bool: the ceil(q N) largest; with ties the earlier ones."""
    chosen = torch.zeros_like(value, dtype=torch.bool)
    chosen[value.argsort(descending=True, stable=True)[: _count(q, len(value))]] = True
    return chosen


def local_chunk(waad: Tensor, *, gain: float = 1.5, q: float = 0.4) -> Tensor:
    """[N]: gamma = gain where WAAD changes most, else 1."""
    return 1 + (gain - 1) * top(change(waad), q).to(waad.dtype)


def global_anchor(fai: Tensor, *, gain: float = 1.5, q: float = 0.4) -> Tensor:
    """[N]: gamma = gain at the anchors, the tokens of largest FAI, else 1."""
    return 1 + (gain - 1) * top(fai, q).to(fai.dtype)


def coupled(
    waad: Tensor,
    fai: Tensor,
    *,
    gain: float = 1.5,
    q: float = 0.4,
    given: float = 0.5,
    before: int = 2,
    near: float | None = None,
    turning: float | None = None,
) -> Tensor:
    """[N]: anchors get gain - 1 more; one that a chunk has prepared hands a share of it to its opening.

    An anchor t is locally dominated if WAAD_t <= near and the largest change of WAAD among the
    `before` tokens preceding it is >= turning; the token of that change (the first of equals) is
    its intro. gamma is 1, plus (gain - 1) at anchors that are not dominated, (1 - given) (gain - 1)
    at those that are, and given (gain - 1) at intros: these add, so an anchor that is an intro too
    gets both; an intro of two anchors is an intro once.

    The paper gives no thresholds and no share: `near` and `turning` default to the medians of WAAD
    and of its change in this answer, `given` to a half; `before` is 1, 2 or 3 there.
    """
    if not 0 <= given <= 1 or before < 1:
        raise ValueError(
            f"given={given:g}, before={before}; give a share in [0,1], and 1 or more tokens"
        )
    count = len(waad)
    if not count:
        return waad
    delta = change(waad)
    close = waad <= (waad.quantile(0.5) if near is None else near)
    turned = delta.quantile(0.5) if turning is None else turning
    preceding = F.pad(delta, (before, 0), value=-torch.inf).unfold(0, before, 1)[:count]
    peak, place = preceding.max(1)
    anchor = top(fai, q)
    dominated = anchor & close & (peak >= turned)
    intro = torch.zeros_like(anchor)
    intro[(torch.arange(count, device=waad.device) - before + place)[dominated]] = True
    bonus = (anchor & ~dominated) + (1 - given) * dominated + given * intro
    return (1 + (gain - 1) * bonus).to(waad.dtype)


def amplified(advantage: Tensor, gamma: Tensor) -> Tensor:
    """gamma A where A >= 0, A where it is negative: bad answers are not blamed more at their anchors. Any shape."""
    return torch.where(advantage >= 0, gamma.detach() * advantage, advantage)


# ------------------------------------------------------------------ shared


def _rows(maps: Tensor, response: Tensor) -> Tensor:
    """[..., N, T]: what the answer's tokens look at."""
    size = len(response)
    if response.dtype != torch.bool or response.dim() != 1 or maps.shape[-2:] != (size, size):
        raise ValueError(
            f"maps has shape {list(maps.shape)}, response has shape {list(response.shape)} and dtype {response.dtype}; "
            "give maps [..., T, T] of one row, and response [T] as torch.bool"
        )
    return maps.detach()[..., response, :]


def _back(response: Tensor) -> Tensor:
    """[T, T]: t - s, not below 0."""
    place = torch.arange(len(response), device=response.device)
    return (place[:, None] - place).clamp(min=0)


def _count(share: float, size: int) -> int:
    if not 0 <= share <= 1:
        raise ValueError(f"a share of {share:g}; give a number in [0,1]")
    return math.ceil(round(share * size, 9))  # 0.7 * 10 is a little more than 7
