"""A recipe's model, sampler, engine and learner on this machine."""

from __future__ import annotations

from collections.abc import Mapping
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
from ludus.rollouts.settings import samplings
from ludus.train.recipe import Made, Policy, Recipe, RecipeError, check


@dataclass(frozen=True)
class Local:
    """The parts that share their models in this process."""

    models: Mapping[str, tuple[CausalModel, Renderer]]  # of those that learn, by name
    engine: LocalEngine
    learners: Mapping[str, LocalLearner]

    @property
    def model(self) -> CausalModel:
        """Of the recipe's own policy."""
        return self.models["policy"][0]

    @property
    def renderer(self) -> Renderer:
        return self.models["policy"][1]

    @property
    def learner(self) -> LocalLearner:
        return self.learners["policy"]

    def save(self, folder: Path) -> None:
        """The policy as a transformers folder: weights, config, tokenizer; others in folders beside it, by name."""
        for name, (model, renderer) in self.models.items():
            where = folder if name == "policy" else folder.with_name(f"{folder.name}-{name}")
            model.save(where)
            renderer.tokenizer.save_pretrained(where)


def build(
    recipe: Recipe,
    model: str | Path = "",
    *,
    seed: int = 0,
    device: str = "auto",
    deadline: float = 60.0,
    overlap: int | None = 8,
) -> Local:
    """Raise on pieces that cannot go together, load the models, and see that samplers and learners agree.

    model  a base that ships with Ludus, a directory or a hub name; empty for the recipe's own
    """
    check(recipe)
    torch.manual_seed(seed)  # of fresh heads alone: sampling has keys
    models, samplers, learners = {}, {}, {}
    soft = any(each.soft for each in samplings((recipe.strategy, recipe.evaluation.strategy)))
    for name, player in {"policy": recipe, **recipe.others}.items():
        policy, renderer = open_model(
            model if model and name == "policy" else player.model, device=device, seed=seed
        )
        samplers[name] = LocalSampler(policy, renderer)
        if soft and not getattr(samplers[name], "soft", False):
            raise RecipeError(
                "the strategy samples mixtures of embeddings (Sampling.soft), and this engine's sampler cannot; "
                "use --engine local, or a strategy that samples tokens"
            )
        check_agreement(policy, samplers[name])
        if isinstance(player, Policy):
            models[name] = policy, renderer
            learners[name] = _learner(player, policy, device, seed)
    return Local(models, LocalEngine(samplers, deadline=deadline, overlap=overlap), learners)


def _learner(player: Policy, policy: CausalModel, device: str, seed: int) -> LocalLearner:
    reference = player.reference
    if not isinstance(reference, bool):
        reference = open_model(reference, device=device, seed=seed)[0]
    return LocalLearner(
        policy,
        player.objective,
        player.optim,
        reference=reference,
        critic=player.critic,
        probes=player.probes,
        seed=seed,
    )


def open_model(
    name: str | Path | Made, *, device: str = "auto", seed: int = 0
) -> tuple[CausalModel, Renderer]:
    """A base that makes itself, a shipped one by its name, a directory or a hub name."""
    if isinstance(name, Made):
        where: str | Path = name.folder(seed)
    else:
        where = base.folder(str(name)) if str(name) in base.SHIPPED else name
    model, tokenizer = load(where, device=device)
    return model, Renderer(tokenizer, pictures=model.pictures, stops=model.stops)
