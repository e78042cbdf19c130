"""A soup: the average of the weights of models that share an ancestor.

SALSA, arXiv:2411.01798, takes the average of two supervised fine-tunings as the reference of PPO's
KL instead of the first of them: a wider place, in which the policy may go further before it is
pulled back. Averaged are the weights, once, and not the outputs; what comes out is one model.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ludus.types import Explained

if TYPE_CHECKING:
    from ludus.train.recipe import Made

Weights = Mapping[str, Tensor]


class CannotSoup(Explained, ValueError):
    """Weights that cannot be averaged, with the first difference."""


def soup(
    ingredients: Sequence[Weights], shares: Sequence[float] | None = None
) -> dict[str, Tensor]:
    """sum_i share_i theta_i, parameter by parameter, embeddings and norms included.

    Computed in float32 (or wider) and returned in the ingredients' own dtypes. What is not floating
    point (position ids, counters) is no weight: it must agree, and is copied. The caller answers
    for the common ancestor: of models trained from different beginnings the average is noise.

    Args:     ingredients: state dicts of one architecture; shares: one each, adding up to 1; equal
              ones if left out. With two, (1 - alpha, alpha): alpha 0 is the first model.
    Returns:  new tensors, on the devices of the first ingredient.
    Raises:   CannotSoup where names, shapes, dtypes or integer buffers differ, or a weight is not
              finite.
    """
    if not ingredients:
        raise CannotSoup("a soup needs ingredients; give the state dicts of one model or more")
    if shares is None:
        shares = [1 / len(ingredients)] * len(ingredients)
    if len(shares) != len(ingredients) or abs(sum(shares) - 1) > 1e-6:
        raise CannotSoup(
            f"{len(shares)} shares that add up to {sum(shares):g} for {len(ingredients)} models; give one for each, "
            "1 in all, such as [0.5, 0.5]"
        )
    first = ingredients[0]
    for number, other in enumerate(ingredients[1:], 2):
        _check_alike(first, other, number)
    return {name: _mixed(name, [i[name] for i in ingredients], shares) for name in first}


@dataclass(frozen=True)
class Soup:
    """A soup as a model: Recipe(reference=Soup((first, second)), ...) measures its KL from the average.

    ingredients  each named as a recipe's `model` is, of one ancestor and one architecture
    shares       one each, 1 in all; equal ones if left out
    """

    ingredients: tuple[str | Made, ...]
    shares: tuple[float, ...] | None = None

    def folder(self, seed: int = 0) -> Path:
        """One transformers folder; soup.json beside the weights has their fingerprint and those of the ingredients."""
        from ludus.engines.local.build import open_model

        opened = [open_model(each, device="cpu", seed=seed) for each in self.ingredients]
        weights = [model.module.state_dict() for model, _ in opened]
        average = soup(weights, self.shares)
        made = fingerprint(average)
        parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "soups"
        where = parent / made
        if not where.exists():
            model, renderer = opened[0]
            told = {"soup": made, "of": [fingerprint(w) for w in weights], "shares": self.shares}
            model.module.load_state_dict(average)
            parent.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(dir=parent) as temporary:
                folder = Path(temporary) / "model"
                model.save(folder)
                renderer.tokenizer.save_pretrained(folder)
                (folder / "soup.json").write_text(json.dumps(told, indent=1) + "\n")
                try:
                    folder.rename(where)
                except OSError:
                    if not where.exists():
                        raise  # else another process has made the same meanwhile
        return where


def fingerprint(weights: Weights) -> str:
    """16 hexadecimal digits that name these weights: log it beside whatever uses them as a reference."""
    digest = hashlib.blake2b(digest_size=8)
    for name in sorted(weights):
        tensor = weights[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _mixed(name: str, tensors: Sequence[Tensor], shares: Sequence[float]) -> Tensor:
    if not tensors[0].is_floating_point():
        return tensors[0].clone()
    wide = torch.promote_types(tensors[0].dtype, torch.float32)
    first = tensors[0].to(wide)
    total = first.clone()
    for tensor, share in zip(tensors[1:], shares[1:], strict=True):
        # the first and the way from it, so that equal ingredients, or a share of 0, leave it to the last bit
        total += share * (tensor.to(device=total.device, dtype=wide) - first)
    if not torch.isfinite(total).all():
        raise CannotSoup(f"{name} is not finite in the average; one of the models has diverged")
    return total.to(tensors[0].dtype)


def _check_alike(first: Weights, other: Weights, number: int) -> None:
    if missing := sorted(first.keys() ^ other.keys()):
        raise CannotSoup(
            f"model {number} and the first differ in {len(missing)} names, such as {missing[0]!r}; average models of "
            "one architecture (merge adapters into their base first)"
        )
    for name, tensor in first.items():
        mine = other[name]
        if mine.shape != tensor.shape or mine.dtype != tensor.dtype:
            raise CannotSoup(
                f"{name} is {list(mine.shape)} {mine.dtype} in model {number} and {list(tensor.shape)} {tensor.dtype} "
                "in the first; average models of one architecture and dtype"
            )
        if not tensor.is_floating_point() and not torch.equal(mine.to(tensor.device), tensor):
            raise CannotSoup(
                f"{name} holds integers that differ between model {number} and the first, and integers have no "
                "average; make them equal, or leave them out"
            )
