"""Log-probabilities straight from hidden states: the [N,V] logits exist only a chunk of tokens at a time.

A vocabulary of 151,936 makes the float32 logits of 16,384 tokens 9.27 GiB, several times over with their softmax and
their gradient. Here a chunk is computed, reduced to one number a token and thrown away; the backward pass computes it
again. Any loss can stand on top, because what is returned are ordinary log-probabilities.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

_LOW = (torch.bfloat16, torch.float16)


def linear_logprob(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
    chunk: int = 1024,
    entropy: bool = False,
) -> tuple[Tensor, Tensor | None]:
    """Log-probability of each target, and if wanted the entropy of each distribution, in nats.

        z = cap(scale (hidden weight^T + bias)) / temperature,   cap(x) = softcap tanh(x / softcap)
        logp = z_y - lse,   lse = logsumexp(z),   entropy = lse - sum softmax(z) z
        d logp / dz = onehot(y) - p,   d entropy / dz = -p (log p + entropy)

    Gradients flow to hidden, weight and bias; temperature is a constant. The order (scale, cap, temperature) is that
    of Cohere, Granite and Gemma heads followed by a sampler. Only rows that count need a place: gather them first,
    `hidden[mask]`. A token whose bias is -inf is out of the vocabulary: its probability and gradient are exactly 0,
    with a soft cap too. bfloat16 and float16 are summed, kept and returned in float32 (on CUDA multiplied as they are;
    elsewhere the head is copied to float32 for the call).

    Args:     hidden [N,H], weight [V,H], targets [N] integers in [0,V), bias [V], temperature > 0 (one, or [N]),
              chunk: tokens at a time; at the peak about three float32 [chunk,V] exist, the results do not depend on it.
    Returns:  logp [N], entropy [N] or None; float32, or float64 where an input is.
    """
    _check(hidden, weight, targets, bias, temperature, chunk)
    return _LinearLogprob.apply(
        hidden, weight, bias, targets.long(), temperature, softcap, scale, chunk, entropy
    )


def head_logits(
    hidden: Tensor,
    weight: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
) -> Tensor:
    """The logits [N,V] that `linear_logprob` means, in its precision: what a sampler should draw from.

    Arguments as there; no gradient.
    """
    with torch.no_grad():
        kind = _operand(hidden, weight)
        if isinstance(temperature, Tensor):
            temperature = temperature[:, None]
        return _logits(
            hidden.detach().to(kind), weight.detach().to(kind), bias, temperature, softcap, scale
        )


class _LinearLogprob(torch.autograd.Function):
    """Saves one number a token (lse; the entropy if it was wanted) and computes the logits twice."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        temperature: float | Tensor,
        softcap: float | None,
        scale: float,
        chunk: int,
        want_entropy: bool,
    ) -> tuple[Tensor, Tensor | None]:
        kind = _operand(hidden, weight)
        head = weight.to(kind)
        lse = hidden.new_empty(len(hidden), dtype=_result(kind))
        logp = torch.empty_like(lse)
        entropy = torch.empty_like(lse) if want_entropy else None
        for part in _chunks(len(hidden), chunk):
            z = _logits(hidden[part].to(kind), head, bias, _rows(temperature, part), softcap, scale)
            lse[part] = z.logsumexp(1)
            logp[part] = z.gather(1, targets[part, None])[:, 0] - lse[part]
            if entropy is not None:
                z -= lse[part, None]
                entropy[part] = -(z.exp() * _finite(z)).sum(1)
            del z  # before the next chunk's logits, so that the two never stand side by side
        ctx.save_for_backward(hidden, weight, bias, targets, lse, entropy)
        ctx.settings = (temperature, softcap, scale, chunk)
        # An entropy that is only looked at costs nothing on the way back.
        ctx.set_materialize_grads(False)
        return logp, entropy

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, weight, bias, targets, lse, entropy = ctx.saved_tensors
        temperature, softcap, scale, chunk = ctx.settings
        g_logp, g_entropy = grads
        g_logp = torch.zeros_like(lse) if g_logp is None else g_logp
        kind = _operand(hidden, weight)
        head = weight.to(kind)
        wants_hidden, wants_weight, wants_bias = ctx.needs_input_grad[:3]
        d_hidden = torch.empty_like(hidden) if wants_hidden else None
        d_weight = torch.zeros_like(weight, dtype=lse.dtype) if wants_weight else None
        d_bias = torch.zeros_like(bias, dtype=lse.dtype) if wants_bias else None
        for part in _chunks(len(hidden), chunk):
            x, tau = hidden[part].to(kind), _rows(temperature, part)
            z = _logits(x, head, bias, tau, softcap, scale)
            slope = None if softcap is None else 1 - (z * (tau / softcap)).clamp_(-1, 1).square_()
            z -= lse[part, None]
            p = z.exp()
            dz = p * -g_logp[part, None]
            dz.scatter_add_(1, targets[part, None], g_logp[part, None])
            if entropy is not None and g_entropy is not None:
                dz -= _finite(z).add_(entropy[part, None]).mul_(p).mul_(g_entropy[part, None])
            del z, p
            dz *= scale / tau
            if slope is not None:
                dz *= slope
                del slope
            if d_bias is not None:
                d_bias += dz.sum(0)
            dz = dz.to(
                kind
            )  # rounds only where low precision is multiplied as it is, as mixed precision does
            if d_hidden is not None:
                d_hidden[part] = _product(dz, head).to(hidden.dtype)
            if d_weight is not None:
                _add_product(d_weight, dz.T, x)
            del dz
        if d_weight is not None:
            d_weight = d_weight.to(weight.dtype)
        if d_bias is not None:
            d_bias = d_bias.to(bias.dtype)
        return d_hidden, d_weight, d_bias, None, None, None, None, None, None


def _logits(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    temperature: float | Tensor,
    softcap: float | None,
    scale: float,
) -> Tensor:
    """[C,H], [V,H] -> [C,V], one buffer."""
    z = _product(hidden, weight.T)
    if bias is not None:
        z += bias
    if scale != 1.0:
        z *= scale
    if softcap is not None:
        z.div_(softcap).tanh_().mul_(softcap)
        if bias is not None:
            z.masked_fill_(bias == -torch.inf, -torch.inf)  # the cap has made it -softcap
    if isinstance(temperature, Tensor) or temperature != 1.0:
        z /= temperature
    return z


def _finite(logp: Tensor) -> Tensor:
    """In place: -inf becomes the smallest number, so that 0 probability times it is 0 and not NaN."""
    return logp.clamp_(min=torch.finfo(logp.dtype).min)


def _chunks(count: int, chunk: int) -> list[slice]:
    return [slice(start, start + chunk) for start in range(0, count, chunk)]


def _rows(temperature: float | Tensor, part: slice) -> float | Tensor:
    return temperature[part, None] if isinstance(temperature, Tensor) else temperature


def _operand(hidden: Tensor, weight: Tensor) -> torch.dtype:
    """What is multiplied: low precision as it is where the device can sum it in float32, else float32 or wider."""
    if hidden.is_cuda and hidden.dtype == weight.dtype and hidden.dtype in _LOW:
        return hidden.dtype
    return torch.promote_types(torch.promote_types(hidden.dtype, weight.dtype), torch.float32)


def _result(kind: torch.dtype) -> torch.dtype:
    return torch.float32 if kind in _LOW else kind


def _product(a: Tensor, b: Tensor) -> Tensor:
    with torch.autocast(a.device.type, enabled=False):  # it would round the logits again
        return torch.mm(a, b, out_dtype=torch.float32) if a.dtype in _LOW else a @ b


def _add_product(total: Tensor, a: Tensor, b: Tensor) -> None:
    """total += a b, in the precision of total."""
    with torch.autocast(a.device.type, enabled=False):
        if a.dtype in _LOW:
            total += torch.mm(a, b, out_dtype=torch.float32)
        else:
            total.addmm_(a, b)


def _check(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    bias: Tensor | None,
    temperature: float | Tensor,
    chunk: int,
) -> None:
    if hidden.dim() != 2:
        raise ValueError(
            f"hidden has shape {list(hidden.shape)}; give [N,H], the rows that count: hidden[mask]"
        )
    if weight.dim() != 2 or weight.shape[1] != hidden.shape[1]:
        raise ValueError(
            f"weight has shape {list(weight.shape)}, hidden has shape {list(hidden.shape)}; give [V,H] and [N,H]"
        )
    if bias is not None and bias.shape != weight.shape[:1]:
        raise ValueError(f"bias has shape {list(bias.shape)}; give [V] = [{len(weight)}]")
    if targets.shape != hidden.shape[:1]:
        raise ValueError(
            f"targets has shape {list(targets.shape)}, hidden has {len(hidden)} rows; give one target a row"
        )
    if chunk < 1:
        raise ValueError(f"chunk is {chunk}; give a number of tokens, such as 1024")
    if isinstance(temperature, Tensor):
        if temperature.shape != targets.shape:
            raise ValueError(
                f"temperature has shape {list(temperature.shape)}; give a number, or one a row [{len(targets)}]"
            )
        if temperature.requires_grad:
            raise ValueError("temperature is a constant here; give temperature.detach()")
        coldest = float(temperature.min()) if len(temperature) else 1.0
    else:
        coldest = temperature
    if not coldest > 0:
        raise ValueError(
            f"temperature is {coldest:g}; greedy choices have no log-probability, score them at 1"
        )
    if len(targets):
        # A look at the values makes a GPU wait once; out of range they would take its whole process down.
        low, high = (int(x) for x in targets.aminmax())
        if low < 0 or high >= len(weight):
            raise ValueError(
                f"targets run from {low} to {high}, the vocabulary from 0 to {len(weight) - 1}; "
                "leave padding out first: hidden[mask], tokens[mask]"
            )
