"""The attention maps of a model, which fused kernels never write down: an extra pass for methods that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

CELLS = 2**20  # of the maps of one head, for all rows that run together: 4 MiB a head


def attention_maps(
    model: PreTrainedModel,
    tokens: Tensor,
    layers: Sequence[int],
    read: Callable[[int, Tensor], Any] = lambda row, maps: maps,
) -> list[list[Any]]:
    """What `read` makes of the maps of each row of a batch at each of the chosen layers.

    Rows of one length run together, as many as `CELLS` allows, and without padding; in eager
    attention and evaluation mode, without gradient; afterwards the model computes as it did before.
    A map is let go as soon as it has been read: with 32 heads and 4,096 tokens it takes 2 GiB, so
    reduce it in `read`, as ludus.weights.attention_rhythm.heads does.

    Args:     tokens [B,T] int64, padded on the right with negative numbers (`Batch.tokens`); layers
              from 0; read(row, maps [H,n,n]), n the tokens of that row, A[h,t,s] in the precision of
              the model (left out: the maps themselves).
    Returns:  for every row, a list with one entry for each of `layers`; an empty row has [].
    """
    modules = _attention(model, layers)
    made: list[list[Any]] = [[] for _ in tokens]
    with _eager(model), torch.no_grad():
        for rows, ids in _of_one_length(tokens):
            seen: dict[int, list[Any]] = {}
            hooks = [
                module.register_forward_hook(_reader(layer, rows, seen, read))
                for layer, module in modules.items()
            ]
            try:
                model.base_model(input_ids=ids.to(model.device), use_cache=False)
            finally:
                for hook in hooks:
                    hook.remove()
            for place, row in enumerate(rows):
                made[row] = [seen[layer][place] for layer in layers]
    return made


def _of_one_length(tokens: Tensor) -> Iterator[tuple[list[int], Tensor]]:
    """Rows that are not empty, and their tokens without padding: [b,n], b n^2 within `CELLS` unless b is 1."""
    lengths = (tokens >= 0).sum(1)
    for length in lengths.unique().tolist():
        rows = (lengths == length).nonzero()[:, 0].tolist() if length else []
        together = max(1, CELLS // max(length, 1) ** 2)
        for first in range(0, len(rows), together):
            part = rows[first : first + together]
            yield part, tokens[part][tokens[part] >= 0].view(len(part), length)


def _reader(
    layer: int,
    rows: Sequence[int],
    seen: dict[int, list[Any]],
    read: Callable[[int, Tensor], Any],
) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        maps = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(maps, Tensor):
            raise NotImplementedError(
                f"layer {layer} ({type(module).__name__}) gives no attention weights in eager mode; "
                "choose layers with softmax attention"
            )
        seen[layer] = [read(row, maps[place]) for place, row in enumerate(rows)]

    return hook


def _attention(model: PreTrainedModel, layers: Sequence[int]) -> dict[int, nn.Module]:
    """The attention module of each layer; transformers numbers them with `layer_idx`."""
    found = {
        int(module.layer_idx): module  # type: ignore[arg-type]
        for module in model.modules()
        if hasattr(module, "layer_idx") and type(module).__name__.endswith("Attention")
    }
    missing = [layer for layer in layers if layer not in found]
    if missing:
        raise ValueError(
            f"{type(model).__name__} has no attention in layers {missing}; give some of {sorted(found)}"
        )
    return {layer: found[layer] for layer in layers}


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """Attention that writes its weights down, and no dropout; put back as it was at the end."""
    attention = model.config._attn_implementation or "eager"
    training = model.training
    model.set_attn_implementation("eager")
    model.eval()
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(training)
