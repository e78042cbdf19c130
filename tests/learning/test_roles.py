"""Several policies in one loop: who learns, who stays as it was, whose attempts are compared, and resuming."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.helpers import tiny_model, tokenizer

from ludus.advantages.credit import DrGRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.roles import Alternating, Fixed, Swapping
from ludus.engines.local.build import Local, build
from ludus.envs.games.books import generated
from ludus.losses.clipped import clipped_ratio
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.loop import lessons, start, train
from ludus.train.recipe import Evaluation, Frozen, Policy, Recipe, RecipeError, check
from ludus.train.run import run
from ludus.types import End, Group, Key, Optim, Request, Rollout, Sampler, Sampling


async def both(
    request: Request, sampler: Mapping[str, Sampler], env: Any, key: Key
) -> list[Rollout]:
    """The same task attempted by each role, one after the other."""
    loop = AgentLoop(Sampling(max_tokens=4))
    made = [await loop(request, sampler[role], env, key / role) for role in ("left", "right")]
    return [replace(r, agent=a) for r, a in zip(made, ("left", "right"), strict=True)]


async def by_turns(groups: Sequence[Group]) -> list[Group]:
    """Every other attempt of a role is paid, so that there is something to learn."""

    def paid(group: Group) -> Group:
        rollouts = (
            replace(r, reward=float(n // 2 % 2), end=End.FAILED, terms={"place": float(n)})
            for n, r in enumerate(group.rollouts)
        )
        return replace(group, rollouts=tuple(rollouts))

    return [paid(group) for group in groups]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("roles")
    tiny_model().save_pretrained(folder)
    tokenizer().save_pretrained(folder)
    return str(folder)


def recipe(model: str, **changes: Any) -> Recipe:
    settings: dict[str, Any] = {
        "env": generated(),
        "strategy": both,
        "reward": by_turns,
        "credit": DrGRPO(),
        "loss": clipped_ratio,
        "horizon": fixed(1),
        "model": model,
        "optim": Optim(lr=1e-3),
        "tasks": 1,
        "answers": 4,
        "steps": 4,
        "evaluation": Evaluation(tasks=2, max_turns=1, role="left"),
        "others": {"other": Policy(credit=DrGRPO(), loss=clipped_ratio, model=model)},
        "cast": Swapping(("left", "right"), every=2),
    }
    return Recipe(**{**settings, **changes})


def weights(machine: Local) -> dict[str, list[torch.Tensor]]:
    samplers = machine.engine.samplers
    return {
        name: [p.detach().clone() for p in sampler.model.module.parameters()]
        for name, sampler in samplers.items()
    }


def moved(before: list[torch.Tensor], after: list[torch.Tensor]) -> bool:
    return any(not torch.equal(a, b) for a, b in zip(before, after, strict=True))


def steps(made: Recipe, machine: Local) -> list[dict[str, Any]]:
    tasks = made.env.tasks("train")
    told = []
    for _, report in train(
        made, machine.engine, machine.learners, tasks, start(made, tasks), seed=0
    ):
        told.append({"metrics": report.metrics, "weights": weights(machine)})
    return told


def test_two_learn_side_by_side(model: str) -> None:
    made = recipe(model)
    machine = build(made, device="cpu")
    first = weights(machine)
    assert not moved(first["policy"], first["other"])
    told = steps(made, machine)
    after = told[-1]["weights"]
    assert moved(first["policy"], after["policy"]) and moved(first["other"], after["other"])
    assert moved(after["policy"], after["other"])
    metrics = told[0]["metrics"]
    assert {"policy/loss", "other/loss", "left/reward", "right/success"} <= set(metrics)
    assert metrics["terms/place"] == 3.5


def test_only_who_should_learns(model: str) -> None:
    made = recipe(
        model,
        others={"right": Policy(credit=DrGRPO(), loss=clipped_ratio, model=model)},
        cast=Alternating((("left", 1), ("right", 2)), own="left"),
    )
    machine = build(made, device="cpu")
    seen = [weights(machine), *(t["weights"] for t in steps(made, machine))]
    learnt = [
        [name for name in ("policy", "right") if moved(a[name], b[name])]
        for a, b in itertools.pairwise(seen)
    ]
    assert learnt == [["policy"], ["right"], ["right"], ["policy"]]


def test_the_frozen_stay_as_they_were(model: str) -> None:
    made = recipe(
        model,
        others={"actor": Frozen(model)},
        cast=Fixed({"left": "policy", "right": "actor"}),
    )
    machine = build(made, device="cpu")
    first = weights(machine)
    told = steps(made, machine)
    assert moved(first["policy"], told[-1]["weights"]["policy"])
    assert not moved(first["actor"], told[-1]["weights"]["actor"])
    assert "loss" in told[0]["metrics"]  # one learner: its metrics have no name before them


def test_a_swap_begins_the_optimisers_afresh(model: str) -> None:
    made = recipe(model, steps=3)
    machine = build(made, device="cpu")
    counts = []
    tasks = made.env.tasks("train")
    for _ in train(made, machine.engine, machine.learners, tasks, start(made, tasks), seed=0):
        adam = machine.learners["other"]._adam.state_dict()["state"]
        counts.append(int(adam[0]["step"]))
    assert counts == [1, 2, 1]  # roles change before the third step


def test_lessons_are_of_one_role_and_one_cohort(model: str) -> None:
    made = recipe(model)
    task = made.env.tasks("train")[0]

    def attempt(agent: str, cohort: str = "") -> Rollout:
        return Rollout(task, (), (), 0.0, End.FAILED, agent=agent, cohort=cohort)

    group = Group(
        "t", (attempt("left"), attempt("right", "a"), attempt("right", "b"), attempt("left"))
    )
    found = lessons(made, [group], step=1)
    assert [g.key for g in found["policy"]] == ["t/left/"]
    assert [g.key for g in found["other"]] == ["t/right/a", "t/right/b"]
    assert [g.key for g in lessons(made, [group], step=3)["policy"]] == ["t/right/a", "t/right/b"]
    assert lessons(replace(made, cast=None, others={}), [group], step=1) == {"policy": [group]}


def test_a_run_of_two_resumes_to_the_same_curve(model: str, tmp_path: Path) -> None:
    """Stopped at step 3, in the middle of the second phase."""

    class Stopped(Exception):
        pass

    made = recipe(model)
    run(made, lambda: build(made, device="cpu"), tmp_path / "whole", checkpoint_every=1)
    calls = 0

    async def breaks(groups: Sequence[Group]) -> list[Group]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise Stopped
        return await by_turns(groups)

    broken = replace(made, reward=breaks)
    object.__setattr__(breaks, "__qualname__", "by_turns")  # the same recipe, as it is described
    with pytest.raises(Stopped):
        run(broken, lambda: build(broken, device="cpu"), tmp_path / "part", checkpoint_every=1)
    run(made, lambda: build(made, device="cpu"), tmp_path / "part", checkpoint_every=1, resume=True)
    for name in ("model/model.safetensors", "model-other/model.safetensors"):
        whole, part = (tmp_path / which / name for which in ("whole", "part"))
        assert whole.read_bytes() == part.read_bytes(), name


def test_casts_that_cannot_be(model: str) -> None:
    with pytest.raises(RecipeError, match="nothing says who plays which role"):
        check(recipe(model, cast=None))
    with pytest.raises(RecipeError, match="the cast names stranger"):
        check(recipe(model, cast=Fixed({"left": "stranger"})))
    with pytest.raises(RecipeError, match="give a Policy, not Frozen"):
        check(recipe(model, others={"other": Frozen(model)}))
