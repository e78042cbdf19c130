"""Every recipe file: its pieces go together, its claims name arms that exist, and the small ones take two steps."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import pytest
import torch

from ludus import recipes
from ludus.engines.local.build import build
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.train.loop import start, train
from ludus.train.recipe import Recipe, check, describe
from ludus.train.study import Study
from ludus.types import End, Group

ENTRIES = list(recipes.entries())
NAMES = [entry.id for entry in ENTRIES]


def named(module: ModuleType) -> Iterator[tuple[str, Recipe | Study]]:
    """Every Recipe and Study of a module, those of `arms` included."""
    for name, value in vars(module).items():
        if isinstance(value, Recipe | Study) and not isinstance(value, type):
            yield name, value
    yield from getattr(module, "arms", {}).items()


@pytest.mark.parametrize("name", NAMES)
def test_every_recipe_goes_together(name: str) -> None:
    found = dict(named(recipes.load(name)))
    assert "recipe" in found
    for variant, recipe in found.items():
        if isinstance(recipe, Recipe):
            check(recipe)
        assert json.dumps(describe(recipe)), variant


@pytest.mark.parametrize("name", NAMES)
def test_every_claim_names_arms(name: str) -> None:
    module = recipes.load(name)
    arms, claims = getattr(module, "arms", {}), getattr(module, "claims", ())
    assert bool(arms) == bool(claims)
    for claim in claims:
        assert {claim.better, claim.worse} - {None} <= set(arms), claim.text


@pytest.mark.parametrize("entry", ENTRIES, ids=NAMES)
def test_every_file_names_its_paper(entry: recipes.Entry) -> None:
    assert "arXiv:" in (recipes.load(entry.id).__doc__ or "")
    assert len(entry.file.read_text().splitlines()) <= 120


# --------------------------------------------------------------------------------- two steps

TINY = tiny.Size(32, 1, 2, 1, 16, 64)
HANDFUL = 4


async def in_turns(groups: Sequence[Group]) -> list[Group]:
    """Right and wrong by turns, so that there is something to learn from a base that knows nothing."""

    def scored(group: Group) -> Group:
        return replace(
            group,
            rollouts=tuple(
                replace(r, reward=float(n % 2 == 0), end=End.FAILED if n % 2 else End.SOLVED)
                for n, r in enumerate(group.rollouts)
            ),
        )

    return [scored(group) for group in groups]


# its reward pays only what has a form, which a base of two steps never writes
FORM_ALONE = {"srpo-reflection"}


def small(name: str) -> Recipe:
    """The recipe with few attempts, from a base that is made in a moment."""
    recipe = recipes.load(name).recipe
    assert isinstance(recipe.model, WorldBase)
    return replace(
        recipe,
        model=replace(recipe.model, steps=2, games=2, turns=2, warmup=1, size=TINY),
        reward=in_turns if name in FORM_ALONE else recipe.reward or in_turns,
        tasks=2,
        answers=HANDFUL,
        steps=2,
        optim=replace(recipe.optim, warmup=0, critic_alone=min(recipe.optim.critic_alone, 1)),
    )


# another base is made besides its own, by a reward or another player; two steps of these are in their own tests
SLOW = {"rlpr", "rl-tango"}
SMALL = [
    name
    for name in NAMES
    if name not in SLOW
    and isinstance(recipe := recipes.load(name).recipe, Recipe)
    and isinstance(recipe.model, WorldBase)
]


@pytest.mark.parametrize("name", SMALL)
def test_two_steps(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    recipe = small(name)
    machine = build(recipe, device="cpu")
    before = [p.detach().clone() for p in machine.model.module.parameters()]
    tasks = recipe.env.tasks("train")
    reports = [
        report
        for _, report in train(
            recipe, machine.engine, machine.learners, tasks, start(recipe, tasks), seed=0
        )
    ]
    assert [report.step for report in reports] == [1, 2]
    assert all(torch.isfinite(torch.tensor(r.metrics.get("loss", 0.0))) for r in reports)
    after = machine.model.module.parameters()
    assert any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))
