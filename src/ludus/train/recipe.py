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
from ludus.train.needs import given, lacking, layers, overruled, told, unplayed, wanted
from ludus.train.needs import name as _name
from ludus.types import (
    Batch,
    Cast,
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

    every     steps between evaluations during training; 0 evaluates before and after only
    strategy  how attempts are made here, where not as in training
    role      whose attempts are measured, where a strategy makes those of several
    """

    tasks: int = 128
    answers: int = 1
    max_turns: int = 10
    every: int = 0
    strategy: Strategy | None = None
    role: str = ""


@dataclass(frozen=True)
class Budget:
    """Training ends after the step in which so many of these have been sampled, in whatever number of steps."""

    of: Literal["rollouts", "turns", "tokens"]
    amount: float


@runtime_checkable
class Made(Protocol):
    """A model that is made where it is not there yet, such as ludus.models.world_base.WorldBase.

    `seed` is the run's, for those that are made anew for each, such as ludus.models.trained.Trained.
    """

    def folder(self, seed: int = 0) -> Path: ...


@dataclass(frozen=True, kw_only=True)
class Policy:
    """Weights that learn, and how.

    credit      rewards to one number per token; a plain function (batch) -> [B,T] will do
    loss        one value per token; `over` says how they are averaged
    kl          a pull to the reference weights, as a loss
    reference   keep frozen weights for a KL, in the loss or in the reward: True for the policy's own first ones, or
                others, named as `model` is
    terms       further losses on tokens of their own, each with its own denominator
    probes      name -> measure of each token, taken before the first update of a step (ludus.models.probes)
    select      batch -> [B,T] bool: the tokens that are learnt from, of those that the policy wrote
    critic      train a critic beside the policy, for credits that need values
    model       a shipped base by its name, a directory, a hub name, or one that makes itself
    """

    credit: Credit | Callable[[Batch], Any]
    loss: Loss
    over: Over = "tokens"
    kl: KL | None = None
    entropy: float = 0.0
    terms: tuple[Term, ...] = ()
    probes: Mapping[str, Probe] = field(default_factory=dict)
    select: Callable[[Batch], Tensor] | None = None
    reference: bool | str | Made = False
    critic: bool = False
    model: str | Made = "textcraft"
    optim: Optim = field(default_factory=Optim)

    @property
    def objective(self) -> Objective:
        return Objective(self.loss, self.over, self.kl, self.entropy, self.terms)


@dataclass(frozen=True)
class Frozen:
    """Weights that play and do not learn."""

    model: str | Made


@dataclass(frozen=True, kw_only=True)
class Recipe(Policy):
    """What one run is made of: a policy, and what it meets.

    env         the world; its `tasks("train")` are drawn from, its `tasks("test")` are held out for evaluation
    strategy    how one attempt is produced
    reward      fills rewards that the environment does not give (verifiers, judges); None keeps the environment's
    horizon     training step -> turns allowed
    tasks, answers   per step: so many tasks, each attempted so often
    budget      ends training before `steps` are done, so that recipes are compared at equal cost
    others      further players by name, where `cast` says who plays which role; the recipe's own is called "policy"
    """

    env: Env
    strategy: Strategy
    reward: Reward | None = None
    curriculum: Curriculum = field(default_factory=Uniform)
    horizon: Horizon = field(default_factory=lambda: fixed(10))
    tasks: int = 16
    answers: int = 8
    steps: int = 100
    budget: Budget | None = None
    evaluation: Evaluation = field(default_factory=Evaluation)
    others: Mapping[str, Policy | Frozen] = field(default_factory=dict)
    cast: Cast | None = None

    @property
    def policies(self) -> dict[str, Policy]:
        """Those that learn, by name."""
        learning = {n: p for n, p in self.others.items() if isinstance(p, Policy)}
        return {"policy": self, **learning}


class RecipeError(Explained, ValueError):
    """Pieces that cannot go together, named at the start."""


def check(recipe: Recipe) -> None:
    """Raise unless the pieces can go together; nothing is run."""
    for field_ in ("tasks", "answers", "steps"):
        if getattr(recipe, field_) < 1:
            raise RecipeError(f"{field_}={getattr(recipe, field_)}; give at least 1")
    for policy in recipe.policies.values():
        _check_policy(policy, recipe)
    _check_pieces(recipe)
    _check_cast(recipe)
    if recipe.horizon(1) < 1:
        raise RecipeError(
            f"the horizon allows {recipe.horizon(1)} turns at step 1; give at least 1"
        )
    for field_, least in (("tasks", 1), ("answers", 1), ("max_turns", 1), ("every", 0)):
        if getattr(recipe.evaluation, field_) < least:
            given_ = getattr(recipe.evaluation, field_)
            raise RecipeError(f"evaluation.{field_}={given_}; give at least {least}")


def _check_policy(policy: Policy, recipe: Recipe) -> None:
    needs = as_credit(policy.credit).needs
    credit = _name(policy.credit)
    if "group" in needs and _alone(recipe):
        raise RecipeError(
            f"{credit} compares the answers of a group, and the recipe asks for {recipe.answers}; "
            "give --set answers=8 (two or more), or a credit without groups such as ReinforcePlusPlus()"
        )
    if "value" in needs and not policy.critic:
        raise RecipeError(f"{credit} needs values, and the recipe has no critic; give critic=True")
    if policy.optim.critic_alone and not policy.critic:
        raise RecipeError(
            f"for {policy.optim.critic_alone} steps the critic would learn alone, and the recipe has none; "
            "give critic=True, or --set optim.critic_alone=0"
        )
    asked = {name for loss in policy.objective.losses for name in reads(loss)}
    wants_reference = "ref_logp" in {*needs, *asked} or policy.kl is not None
    if wants_reference and not policy.reference:
        raise RecipeError(
            "a KL needs the weights that it is measured from, and the recipe keeps none; give reference=True"
        )
    if "baseline" in needs and not hasattr(recipe.strategy, "sampling"):
        raise RecipeError(
            f"{credit} needs a greedy twin of every task, and {_name(recipe.strategy)} has no `sampling` to make "
            "greedy; give a strategy with that field"
        )
    if "baseline" in needs and "pool" in given(recipe.curriculum):
        raise RecipeError(
            f"{credit} compares with a greedy answer, and {_name(recipe.curriculum)} gives groups a baseline of its "
            "own; give PoolBaseline(), or a curriculum without one"
        )
    if wrong := lacking(
        as_credit(policy.credit), recipe.strategy, recipe.curriculum, recipe.reward
    ):
        raise RecipeError(wrong)
    if "external" in asked and told(recipe.strategy):
        examples = "example" in given(recipe.strategy) & wanted(recipe.curriculum)
        if not examples and "external" not in given(recipe.strategy):
            raise RecipeError(
                "a loss reads 'external', tokens that somebody else wrote, and nobody asks for any; give "
                "curriculum=Examples(...) and strategy=WithExamples(...), or a loss of the policy's own tokens"
            )
    fields = {f.name for f in dataclasses.fields(Batch)}
    for loss in policy.objective.losses:
        for name in set(reads(loss)) - set(NOW) - set(policy.probes) - fields:
            raise RecipeError(
                f"{_name(loss)} reads {name!r}, which is neither a field of Batch nor a probe of the recipe; "
                f"give probes={{{name!r}: ...}}, from ludus.models.probes"
            )


def _alone(recipe: Recipe) -> bool:
    """Whether the attempts at a task have nothing to be compared with."""
    branches = any(getattr(layer, "branches", False) for layer in layers(recipe.strategy))
    return recipe.answers < 2 and not branches


def _check_pieces(recipe: Recipe) -> None:
    """Curriculum, strategy and reward, whoever learns."""
    strategy, curriculum, reward = recipe.strategy, recipe.curriculum, recipe.reward
    if "group" in wanted(curriculum) and _alone(recipe):
        raise RecipeError(
            f"{_name(curriculum)} chooses by how the answers of a group differ, and the recipe asks for "
            f"{recipe.answers}; give --set answers=8 (two or more), or curriculum=Uniform()"
        )
    for piece in (curriculum, reward):
        if wrong := lacking(piece, strategy, curriculum, reward):
            raise RecipeError(wrong)
    if wrong := overruled(curriculum):
        raise RecipeError(wrong)
    open_ = told(strategy) and "reward" not in given(strategy)
    if open_ and reward is None:
        raise RecipeError(
            f"{_name(strategy)} leaves it to a reward what an attempt earned, and the recipe has none; give "
            "reward=..., or strategy=AgentLoop(), which asks the environment"
        )
    evaluated = recipe.evaluation.strategy or strategy
    if told(evaluated) and "reward" not in given(evaluated):
        raise RecipeError(
            f"{_name(evaluated)} leaves it to a reward whether an answer is right, and evaluation asks none, so "
            "held-out success would be 0; give Evaluation(strategy=Judged(...)), from ludus.rollouts.judged"
        )
    plays = None if recipe.cast is None else tuple(recipe.cast.plays(1))
    if wrong := unplayed(strategy, plays, getattr(reward, "roles", ()), ""):
        raise RecipeError(wrong)
    if wrong := unplayed(evaluated, plays, (), recipe.evaluation.role):
        raise RecipeError(wrong)


def _check_cast(recipe: Recipe) -> None:
    if recipe.others and recipe.cast is None:
        raise RecipeError(
            f"there are other players, {', '.join(recipe.others)}, and nothing says who plays which role; "
            "give a cast from ludus.curricula.roles"
        )
    if recipe.cast is None:
        return
    known = {"policy", *recipe.others}
    played = set(recipe.cast.plays(1).values())
    if strangers := played - known:
        raise RecipeError(
            f"the cast names {', '.join(sorted(strangers))}; the recipe's players are {', '.join(sorted(known))}"
        )
    if fixed_ := set(recipe.cast.learns(1)) - set(recipe.policies):
        raise RecipeError(
            f"{', '.join(sorted(fixed_))} should learn and cannot: give a Policy, not Frozen, in `others`"
        )


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
