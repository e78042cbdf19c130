"""A recipe's model, sampler, engine and learner on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from ludus.data.render import Renderer
from ludus.engines.local.check import check_agreement
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel, load
from ludus.engines.local.sampler import LocalSampler
from ludus.models import base
from ludus.train.recipe import Made, Recipe, check


@dataclass(frozen=True)
class Local:
    """The parts that share one model in this process."""

    model: CausalModel
    renderer: Renderer
    engine: LocalEngine
    learner: LocalLearner

    def save(self, folder: Path) -> None:
        """The policy as a transformers folder: weights, config, tokenizer."""
        self.model.module.save_pretrained(folder)
        self.renderer.tokenizer.save_pretrained(folder)


def build(
    recipe: Recipe,
    model: str | Path = "",
    *,
    seed: int = 0,
    device: str = "auto",
    deadline: float = 60.0,
    overlap: int | None = 8,
) -> Local:
    """Raise on pieces that cannot go together, load the model, and see that sampler and learner agree.

    model  a base that ships with Ludus, a directory or a hub name; empty for the recipe's own
    """
    check(recipe)
    torch.manual_seed(seed)  # of fresh heads alone: sampling has keys
    policy, renderer = open_model(model or recipe.model, device=device)
    sampler = LocalSampler(policy, renderer)
    check_agreement(policy, sampler)
    learner = LocalLearner(
        policy,
        recipe.objective,
        recipe.optim,
        reference=recipe.reference,
        critic=recipe.critic,
        probes=recipe.probes,
        seed=seed,
    )
    engine = LocalEngine(sampler, deadline=deadline, overlap=overlap)
    return Local(policy, renderer, engine, learner)


def open_model(name: str | Path | Made, *, device: str = "auto") -> tuple[CausalModel, Renderer]:
    """A base that makes itself, a shipped one by its name, a directory or a hub name."""
    if isinstance(name, Made):
        where: str | Path = name.folder()
    else:
        where = base.folder(str(name)) if str(name) in base.SHIPPED else name
    model, tokenizer = load(where, device=device)
    return model, Renderer(tokenizer)
