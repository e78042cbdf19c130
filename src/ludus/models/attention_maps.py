"""The attention maps of a model, which fused kernels never write down: an extra pass for methods that read them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


def attention_maps(
    model: PreTrainedModel,
    tokens: Tensor,
    layers: Sequence[int],
    read: Callable[[int, Tensor], Any] = lambda row, maps: maps,
) -> list[list[Any]]:
    """What `read` makes of the maps of each row of a batch at each of the chosen layers.

    Rows run one by one and without padding, in eager attention and evaluation mode, without
    gradient; afterwards the model computes as it did before. A map is let go as soon as it has been
    read: with 32 heads and 4,096 tokens it takes 2 GiB, so reduce it in `read`, as
    ludus.weights.attention_rhythm.heads does.

    Args:     tokens [B,T] int64, padded on the right with negative numbers (`Batch.tokens`); layers
              from 0; read(row, maps [H,n,n]), n the tokens of that row, A[h,t,s] in the precision of
              the model (left out: the maps themselves).
    Returns:  for every row, a list with one entry for each of `layers`; an empty row has [].
    """
    modules = _attention(model, layers)
    made: list[list[Any]] = []
    with _eager(model), torch.no_grad():
        for row, ids in enumerate(tokens):
            ids = ids[ids >= 0].to(model.device)
            seen: dict[int, Any] = {}
            hooks = [
                module.register_forward_hook(_reader(layer, row, seen, read))
                for layer, module in modules.items()
            ]
            try:
                if len(ids):
                    model.base_model(input_ids=ids[None], use_cache=False)
            finally:
                for hook in hooks:
                    hook.remove()
            made.append([seen[layer] for layer in layers] if len(ids) else [])
    return made


def _reader(
    layer: int, row: int, seen: dict[int, Any], read: Callable[[int, Tensor], Any]
) -> Callable[..., None]:
    def hook(module: nn.Module, args: Any, output: Any) -> None:
        maps = output[1] if isinstance(output, tuple) and len(output) > 1 else None
        if not isinstance(maps, Tensor):
            raise NotImplementedError(
                f"layer {layer} ({type(module).__name__}) gives no attention weights in eager mode; "
                "choose layers with softmax attention"
            )
        seen[layer] = read(row, maps[0])

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
