"""A study of a recipe's players as they are: what they do on held-out tasks, in more measures than success."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from ludus.engines.local.build import build
from ludus.train.recipe import Made, Recipe
from ludus.train.run import evaluate, held_out
from ludus.train.study import Track
from ludus.train.summary import summary
from ludus.types import Group, Key


def nothing(groups: Sequence[Group]) -> Mapping[str, float]:
    return {}


@dataclass(frozen=True)
class Measured:
    """All that the summary of a training step tells ("terms/NAME", "ROLE/success"), of held-out tasks and no training.

    recipe  its env, strategy, cast and evaluation count; nothing is learnt
    model   of the recipe's own policy; ludus.models.trained.Trained(recipe) to measure what a recipe leaves
    more    further numbers, made of the same attempts
    """

    recipe: Recipe
    model: str | Made
    more: Callable[[Sequence[Group]], Mapping[str, float]] = nothing

    def measure(self, seed: int, folder: Path, track: Track) -> Mapping[str, float]:
        recipe = replace(self.recipe, model=self.model)
        groups = evaluate(
            build(recipe, seed=seed).engine,
            recipe.evaluation.strategy or recipe.strategy,
            recipe.env,
            held_out(recipe.env, recipe.evaluation.tasks),
            replace(recipe.evaluation, role=""),
            Key(seed) / "eval",
            cast=recipe.cast.plays(1) if recipe.cast else None,
        )
        return {**summary(groups), **self.more(groups)}
