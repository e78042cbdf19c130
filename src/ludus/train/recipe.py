"""A recipe: the pieces of one system, as a frozen value. A variant is `dataclasses.replace(recipe, ...)`."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol, runtime_checkable

from torch import Tensor

from ludus.curricula.horizon import fixed
from ludus.curricula.uniform import Uniform
from ludus.losses.objective import KL, NOW, Objective, Term, reads
from ludus.types import (
    Batch,
    Credit,
    Credited,
    Curriculum,
    Env,
    Explained,
    Horizon,
    Loss,
    Optim,
    Probe,
    Reward,
    Strategy,
)
from ludus.weights.average import Over


@dataclass(frozen=True)
class Evaluation:
    """Success on tasks that training never sees: `tasks` of them, each attempted `answers` times.

    every  steps between evaluations during training; 0 evaluates before and after only
    """

    tasks: int = 128
    answers: int = 1
    max_turns: int = 10
    every: int = 0


@dataclass(frozen=True)
class Budget:
    """Training ends after the step in which so many of these have been sampled, in whatever number of steps."""

    of: Literal["rollouts", "turns", "tokens"]
    amount: float


@runtime_checkable
class Made(Protocol):
    """A model that is made where it is not there yet, such as ludus.models.world_base.WorldBase."""

    def folder(self) -> Path: ...


@dataclass(frozen=True)
class Recipe:
    """What one run is made of.

    env         the world; its `tasks("train")` are drawn from, its `tasks("test")` are held out for evaluation
    strategy    how one attempt is produced
    credit      rewards to one number per token; a plain function (batch) -> [B,T] will do
    loss        one value per token; `over` says how they are averaged
    reward      fills rewards that the environment does not give (verifiers, judges); None keeps the environment's
    kl          a pull to the first weights, as a loss; `reference` keeps them (a KL in the reward needs it too)
    terms       further losses on tokens of their own, each with its own denominator
    probes      name -> measure of each token, taken before the first update of a step (ludus.models.probes)
    select      batch -> [B,T] bool: the tokens that are learnt from, of those that the policy wrote
    critic      train a critic beside the policy, for credits that need values
    model       a shipped base by its name, a directory, a hub name, or one that makes itself
    horizon     training step -> turns allowed
    tasks, answers   per step: so many tasks, each attempted so often
    budget      ends training before `steps` are done, so that recipes are compared at equal cost
    """

    env: Env
    strategy: Strategy
    credit: Credit | Callable[[Batch], Any]
    loss: Loss
    over: Over = "tokens"
    reward: Reward | None = None
    kl: KL | None = None
    entropy: float = 0.0
    terms: tuple[Term, ...] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)
    select: Callable[[Batch], Tensor] | None = None
    reference: bool = False
    critic: bool = False
    curriculum: Curriculum = field(default_factory=Uniform)
    horizon: Horizon = field(default_factory=lambda: fixed(10))
    model: str | Made = "textcraft"
    optim: Optim = field(default_factory=Optim)
    tasks: int = 16
    answers: int = 8
    steps: int = 100
    budget: Budget | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)

    @property
    def objective(self) -> Objective:
        return Objective(self.loss, self.over, self.kl, self.entropy, self.terms)


class RecipeError(Explained, ValueError):
    """Pieces that cannot go together, named at the start."""


def check(recipe: Recipe) -> None:
    """Raise unless the pieces can go together; nothing is run."""
    needs = as_credit(recipe.credit).needs
    credit = _name(recipe.credit)
    for field_ in ("tasks", "answers", "steps"):
        if getattr(recipe, field_) < 1:
            raise RecipeError(f"{field_}={getattr(recipe, field_)}; give at least 1")
    if "group" in needs and recipe.answers < 2:
        raise RecipeError(
            f"{credit} compares the answers of a group, and the recipe asks for {recipe.answers}; "
            "give --set answers=8 (two or more), or a credit without groups such as ReinforcePlusPlus()"
        )
    if "value" in needs and not recipe.critic:
        raise RecipeError(f"{credit} needs values, and the recipe has no critic; give critic=True")
    asked = {name for loss in recipe.objective.losses for name in reads(loss)}
    if ("ref_logp" in {*needs, *asked} or recipe.kl is not None) and not recipe.reference:
        raise RecipeError(
            "a KL needs the weights that it is measured from, and the recipe keeps none; give reference=True"
        )
    if "baseline" in needs and not hasattr(recipe.strategy, "sampling"):
        raise RecipeError(
            f"{credit} needs a greedy twin of every task, and {_name(recipe.strategy)} has no `sampling` to make "
            "greedy; give a strategy with that field"
        )
    fields = {f.name for f in dataclasses.fields(Batch)}
    for loss in recipe.objective.losses:
        for name in set(reads(loss)) - set(NOW) - set(recipe.probes) - fields:
            raise RecipeError(
                f"{_name(loss)} reads {name!r}, which is neither a field of Batch nor a probe of the recipe; "
                f"give probes={{{name!r}: ...}}, from ludus.models.probes"
            )
    if recipe.horizon(1) < 1:
        raise RecipeError(
            f"the horizon allows {recipe.horizon(1)} turns at step 1; give at least 1"
        )
    if recipe.evaluation.max_turns < 1:
        raise RecipeError(f"evaluation.max_turns={recipe.evaluation.max_turns}; give at least 1")


@dataclass(frozen=True)
class _Function:
    """A plain function as a Credit that remembers nothing."""

    function: Callable[[Batch], Any]
    needs: Sequence[str] = ()

    def init(self) -> tuple[()]:
        return ()

    def assign(self, state: tuple[()], batch: Batch) -> tuple[tuple[()], Credited]:
        made = self.function(batch)
        credited: Any = made if isinstance(made, tuple) else (made,)
        if credited[0].shape != batch.mask.shape:
            raise ValueError(
                f"{_name(self.function)} returned shape {list(credited[0].shape)}; wanted {list(batch.mask.shape)}, "
                "one value per token: batch.spread(x) makes it from one value per rollout"
            )
        return state, Credited(*credited)


def as_credit(credit: Any) -> Credit:
    return credit if hasattr(credit, "assign") else _Function(credit)


# ------------------------------------------------------------------------------------ as data


LONG = 100  # items, above which a sequence is described by its length and a digest


def describe(value: Any) -> Any:
    """A recipe (or any piece) as plain JSON, for recipe.json: what it was made of, not how to make it again."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        inside = {
            f.name: describe(getattr(value, f.name)) for f in dataclasses.fields(value) if f.repr
        }
        return {"is": type(value).__name__, **inside}
    if isinstance(value, functools.partial):
        positional = {f"argument {i}": describe(a) for i, a in enumerate(value.args)}
        return {"is": _name(value.func), **positional, **describe(dict(value.keywords))}
    if isinstance(value, Mapping):
        return {str(k): describe(v) for k, v in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        if len(value) > LONG:  # the goals of a world, say: told apart, not told
            parts = [repr(describe(item)) for item in value]
            told = "".join(sorted(parts) if isinstance(value, set | frozenset) else parts)
            digest = hashlib.blake2b(told.encode(), digest_size=8).hexdigest()
            return {"is": type(value).__name__, "length": len(value), "digest": digest}
        return [describe(v) for v in value]
    if value is None or isinstance(value, str | int | float | bool):
        return value
    if inspect.isroutine(value) or inspect.isclass(value):
        return _name(value)
    return {"is": type(value).__name__}


def _name(value: Any) -> str:
    value = value.func if isinstance(value, functools.partial) else value
    return getattr(value, "__qualname__", None) or type(value).__name__
