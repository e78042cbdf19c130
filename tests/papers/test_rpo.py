"""Pinned numbers of RPO, arXiv:2405.16436, and what it does to an action that nobody compared."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus import recipes
from ludus.data.batch import make_batch
from ludus.engines.local.build import open_model
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.packed import policy
from ludus.losses.preference import dpo, sequence_logp
from ludus.losses.rpo import rpo
from ludus.models import tiny
from ludus.train.offline import PREFERENCE, dpo_credit
from ludus.train.regularised import regularised
from ludus.train.study import run_study
from ludus.types import Group, Key


def pair(chosen: float, delta: float) -> tuple[Tensor, ...]:
    """Sums of one pair whose difference to the reference is `delta`."""
    return tuple(
        torch.tensor([x], dtype=torch.float64, requires_grad=i < 2)
        for i, x in enumerate((chosen, -14.0, chosen - delta, -14.0))
    )


def test_dpo_and_a_little_imitation() -> None:
    args = pair(-120.0, 3.0)
    assert dpo(*args, beta=0.01).item() == pytest.approx(0.678260, abs=1e-6)
    assert rpo(*args, beta=0.01, eta=0.005).item() == pytest.approx(0.684260, abs=1e-6)
    args = pair(-10.0, 3.0)
    loss = rpo(*args, beta=0.1, eta=1.0)
    assert loss.item() == pytest.approx(1.554355, abs=1e-6)
    chosen, rejected = torch.autograd.grad(loss.sum(), args[:2])
    assert chosen.item() == pytest.approx(-0.142556, abs=1e-6)
    assert rejected.item() == pytest.approx(0.042556, abs=1e-6)


def test_without_the_pull_it_is_dpo() -> None:
    args = pair(-10.0, -2.0)
    torch.testing.assert_close(
        rpo(*args, beta=0.3, eta=0.0), dpo(*args, beta=0.3), atol=1e-12, rtol=0
    )


def test_per_token_the_pull_is_shorter_by_the_length() -> None:
    args, counts = pair(-10.0, 3.0), torch.tensor([5])
    base = dpo(*args, beta=0.1)
    summed = rpo(*args, beta=0.1, eta=1.0) - base
    mean = rpo(*args, beta=0.1, eta=1.0, counts=counts) - base
    torch.testing.assert_close(summed, 5 * mean)
    # an empty answer pulls nothing
    empty = rpo(*pair(0.0, 0.0), beta=0.1, eta=1.0, counts=torch.tensor([0]))
    assert empty.item() == pytest.approx(0.693147, abs=1e-6)


def test_refuses() -> None:
    args = pair(-10.0, 3.0)
    with pytest.raises(ValueError, match="eta is -1"):
        rpo(*args, eta=-1.0)
    with pytest.raises(ValueError, match=r"counts has shape \[2\]"):
        rpo(*args, counts=torch.tensor([1, 2]))
    with pytest.raises(ValueError, match="beta is 0"):
        rpo(*args, beta=0.0)


def trained(eta: float, steps: int = 3000) -> tuple[float, list[float]]:
    """Theta and the policy over (won, lost, unseen) = softmax(theta * feature), after steps of size 1."""
    feature = torch.tensor([0.2, -0.2, 1.0], dtype=torch.float64)
    reference = torch.full((1,), 1 / 3, dtype=torch.float64).log()
    theta = torch.zeros((), dtype=torch.float64, requires_grad=True)
    for _ in range(steps):
        logp = (theta * feature).log_softmax(0)
        loss = rpo(logp[:1], logp[1:2], reference, reference, beta=0.1, eta=eta)
        (gradient,) = torch.autograd.grad(loss.sum(), theta)
        theta = (theta - gradient).detach().requires_grad_()
    return theta.item(), (theta * feature).softmax(0).tolist()


def test_what_nobody_compared_is_held_down() -> None:
    theta, policy = trained(0.0)
    assert theta == pytest.approx(36.7, abs=0.05) and policy[2] > 0.999
    unseen = [policy[2]]
    for eta, want in [
        (0.1, None),
        (0.5, [0.255, 0.170, 0.575]),
        (1.0, [0.319, 0.288, 0.393]),
        (2.0, [0.339, 0.357, 0.304]),
    ]:
        _, policy = trained(eta)
        if want is not None:
            assert policy == pytest.approx(want, abs=6e-4)
        unseen.append(policy[2])
    assert unseen == sorted(unseen, reverse=True) and unseen[-1] < unseen[1]


# ------------------------------------------------------------------ through the learner


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    small = tiny.Size(32, 1, 2, 1, 16, 64)
    recipe = recipes.load("rpo").recipe
    base = replace(recipe.model, steps=2, games=2, warmup=1, size=small)
    pairs = replace(recipe.pairs, count=6)
    return replace(recipe, model=base, pairs=pairs, epochs=2, size=3, tasks=4, answers=1, longest=4)


@pytest.mark.parametrize("over", ["answer sums", "answers"])
def test_the_learner_has_the_gradient_of_the_formula(study: Any, over: Any) -> None:
    model, renderer = open_model(study.model, device="cpu")
    objective = regularised(eta=0.7, beta=0.3, over=over)
    learner = LocalLearner(model, objective, study.optim, reference=True)
    pairs = study.pairs(renderer, Key(0))
    groups = [Group(str(i), (p.chosen, p.rejected)) for i, p in enumerate(pairs)]
    with torch.no_grad():  # away from the reference, so that the pairs' coefficients differ
        for parameter in model.module.parameters():
            parameter.mul_(1.05)
    batch = learner.annotate(make_batch(groups), ("old_logp",))
    advantage, _ = dpo_credit(batch, 0.3)
    learner.gradients(replace(batch, advantage=advantage))
    parameters = [p for p in model.module.parameters() if p.grad is not None]
    ours = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    model.module.zero_grad()
    sums, counts = sequence_logp(policy(model, batch)[0], batch.mask)
    assert batch.ref_logp is not None
    ref = sequence_logp(batch.ref_logp, batch.mask)[0]
    per_token = {"counts": counts[0::2]} if over == "answers" else {}
    loss = rpo(sums[0::2], sums[1::2], ref[0::2], ref[1::2], beta=0.3, eta=0.7, **per_token)
    loss.mean().backward()
    theirs = torch.cat([p.grad.flatten() for p in parameters])  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-4)


def test_the_pairs_are_short_and_mostly_well_told(study: Any) -> None:
    _, renderer = open_model(study.model, device="cpu")
    pairs = replace(study.pairs, count=300)(renderer, Key(0))
    lengths = {len(r.turns[0].action.split()) for p in pairs for r in (p.chosen, p.rejected)}
    assert lengths == {2, 3, 4, 5}
    right = sum(pair.gap > 0 for pair in pairs) / 300
    assert 0.8 < right < 0.98
    assert all(p.chosen.task.id.startswith("praise-train") for p in pairs)


def test_the_study_measures(study: Any, tmp_path: Path) -> None:
    told = run_study(study, tmp_path / "rpo")
    assert set(told) == {
        f"{name}/{when}"
        for name in ("chosen", "rejected", "gold", "words")
        for when in ("before", "half", "after")
    }
    assert told["chosen/after"] != told["chosen/before"] and told["words/after"] <= 4
    assert len((tmp_path / "rpo" / "metrics.jsonl").read_text().splitlines()) == 4
    assert regularised(eta=0.0, beta=0.1) == PREFERENCE
    with pytest.raises(ValueError, match="eta is -1"):
        regularised(eta=-1.0, beta=0.1)
