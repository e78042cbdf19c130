"""Pinned numbers of SALSA, arXiv:2411.01798: an average of weights, and a KL measured from it.

The catalogue's KL of the optimum to the first model, .822399, is .822397 in double precision.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from ludus import recipes
from ludus.engines.local.build import build, open_model
from ludus.losses.clipped import clipped_ratio
from ludus.losses.exact_kl import exact_kl
from ludus.losses.kl import k1
from ludus.models import tiny
from ludus.models.soup import CannotSoup, Soup, fingerprint, soup
from ludus.models.tuned import Tuned
from ludus.train.loop import start, train
from ludus.train.recipe import Frozen, Recipe

ONE = {"logits": torch.tensor([1.0, 2.0, -1.0])}
TWO = {"logits": torch.tensor([3.0, 0.0, 1.0])}
POLICY = torch.tensor([2.5, 1.0, 0.5])
HERE = torch.ones(1, 1, dtype=torch.bool)


def close(got: Tensor, want: Any, atol: float = 5.1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def kl(logits: Tensor, reference: Tensor) -> float:
    return exact_kl(logits[None, None], reference[None, None], HERE).item()


# ------------------------------------------------------------------ the average


def test_average_of_weights() -> None:
    assert soup([ONE, TWO], [0.75, 0.25])["logits"].tolist() == [1.5, 1.5, -0.5]
    half = soup([ONE, TWO])["logits"]
    assert half.tolist() == [2.0, 1.0, 0.0]
    close(ONE["logits"].softmax(0), [0.2595, 0.7054, 0.0351])
    close(TWO["logits"].softmax(0), [0.8438, 0.0420, 0.1142])
    close(half.softmax(0), [0.6652, 0.2447, 0.0900])
    # of logits it is the normalised geometric mean of the distributions
    geometric = (ONE["logits"].softmax(0) * TWO["logits"].softmax(0)).sqrt()
    close(half.softmax(0), geometric / geometric.sum(), atol=1e-6)


def test_no_share_and_equal_ingredients_change_no_bit() -> None:
    torch.manual_seed(0)
    for dtype in (torch.float32, torch.bfloat16, torch.float64):
        one = {"w": torch.randn(50).to(dtype), "n": torch.arange(3)}
        other = {"w": torch.randn(50).to(dtype), "n": torch.arange(3)}
        for got in (
            soup([one, other], [1.0, 0.0]),
            soup([one, one, one]),
            soup([one, one], [0.3, 0.7]),
        ):
            assert torch.equal(got["w"], one["w"]) and got["w"].dtype == dtype
            assert fingerprint(got) == fingerprint(one)
            assert got["w"] is not one["w"] and got["n"] is not one["n"]
        assert fingerprint(soup([one, other])) != fingerprint(one)
    # averaged in float32: the mean of 1 and 1 + 2^-7 lies between two bfloat16 and is rounded once
    low, high = (torch.tensor([x], dtype=torch.bfloat16) for x in (256.0, 1.0))
    assert soup([{"w": low}, {"w": high}, {"w": high}])["w"].item() == 86.0


def test_fingerprint_knows_names_shapes_and_values() -> None:
    weights = {"a": torch.ones(2, 3), "b": torch.tensor(1, dtype=torch.int64)}
    same = {"b": torch.tensor(1, dtype=torch.int64), "a": torch.ones(3, 2).T}
    assert fingerprint(weights) == fingerprint(same) and len(fingerprint(weights)) == 16
    for other in (
        {**weights, "a": torch.ones(3, 2)},
        {**weights, "a": torch.ones(2, 3, dtype=torch.bfloat16)},
        {**weights, "c": torch.zeros(0)},
        {"x": weights["a"], "b": weights["b"]},
    ):
        assert fingerprint(other) != fingerprint(weights)


def test_what_cannot_be_averaged() -> None:
    for other, told in [
        ({"bias": torch.zeros(3)}, "differ in 2 names, such as 'bias'"),
        ({"logits": torch.zeros(4)}, r"is \[4\] torch.float32 in model 2"),
        ({"logits": torch.zeros(3).double()}, "torch.float64"),
        ({"logits": torch.tensor([1.0, math.nan, 0.0])}, "has diverged"),
    ]:
        with pytest.raises(CannotSoup, match=told):
            soup([ONE, other])
    with pytest.raises(CannotSoup, match="integers that differ"):
        soup([{"n": torch.tensor([1])}, {"n": torch.tensor([2])}])
    for shares in ([0.5], [0.5, 0.6]):
        with pytest.raises(CannotSoup, match="1 in all"):
            soup([ONE, TWO], shares)
    with pytest.raises(CannotSoup, match="needs ingredients"):
        soup([])


# ------------------------------------------------------------------ what it changes in the KL


def test_a_policy_between_the_two_is_pulled_back_less() -> None:
    half = soup([ONE, TWO])["logits"]
    assert kl(POLICY, ONE["logits"]) == pytest.approx(0.632027, abs=1e-6)
    assert kl(POLICY, half) == pytest.approx(0.019124, abs=1e-6)
    chosen = POLICY.log_softmax(0)[:1][None]
    for reference, want in ((ONE["logits"], 0.895734), (half, 0.989875)):
        penalty = k1(chosen, reference.log_softmax(0)[:1][None], HERE)
        assert 1 - 0.1 * penalty.item() == pytest.approx(want, abs=1e-6)


REWARD, BETA = torch.tensor([1.0, 0.5, 0.0]), 0.5
OPTIMA = [
    ("soup", (0.866813, 0.117310, 0.015876), 0.925469, 0.822397),
    ("first", (0.495462, 0.495463, 0.009075), 0.743194, None),
]


@pytest.mark.parametrize(("which", "optimum", "earned", "far"), OPTIMA, ids=["soup", "first"])
def test_ppo_ends_at_the_optimum_of_its_reference(
    which: str, optimum: tuple[float, ...], earned: float, far: float | None
) -> None:
    reference = soup([ONE, TWO])["logits"] if which == "soup" else ONE["logits"]
    best = reference.double().softmax(0) * (REWARD.double() / BETA).exp()
    best = best / best.sum()
    close(best, optimum, atol=2e-6)
    assert (best * REWARD).sum().item() == pytest.approx(earned, abs=2e-6)
    if far is not None:
        assert kl(best.log(), ONE["logits"].double()) == pytest.approx(far, abs=2e-6)
    # PPO, its expectation taken over the three actions: reward - beta (log pi - log ref), two epochs a batch
    logits = ONE["logits"].clone().requires_grad_()
    mask, ref = torch.ones(1, 3, dtype=torch.bool), reference.log_softmax(0)[None]
    for _ in range(400):
        old = logits.log_softmax(0).detach()[None]
        shaped = REWARD - BETA * k1(old, ref, mask)
        advantage = shaped - (old.exp() * shaped).sum()
        for _ in range(2):
            loss = clipped_ratio(logits.log_softmax(0)[None], old, advantage, mask)
            (gradient,) = torch.autograd.grad((old.exp() * loss).sum(), logits)
            logits = (logits - 0.5 * gradient).detach().requires_grad_()
    close(logits.softmax(0).double(), best, atol=0.02)


# ------------------------------------------------------------------ a common ancestor


def network(seed: int) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(
        nn.Linear(8, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, 4)
    )


def data(seed: int, count: int = 512) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(count, 8, generator=generator)
    return x, (x[:, :4] * x[:, 4:]).argmax(1)  # which of four products is the largest


def learn(model: nn.Sequential, seed: int, steps: int, lr: float = 2e-2) -> nn.Sequential:
    x, y = data(1, 4096)
    optimiser = torch.optim.Adam(model.parameters(), lr=lr)
    generator = torch.Generator().manual_seed(seed)
    for _ in range(steps):
        pick = torch.randint(len(x), (64,), generator=generator)
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(x[pick]), y[pick]).backward()
        optimiser.step()
    return model


def held_out(weights: dict[str, Tensor]) -> float:
    model = network(0)
    model.load_state_dict(weights)
    x, y = data(2)
    with torch.no_grad():
        return nn.functional.cross_entropy(model(x), y).item()


def test_ingredients_want_a_common_ancestor() -> None:
    base = {k: v.clone() for k, v in learn(network(0), 0, 100).state_dict().items()}
    tuned = []
    for seed in (1, 2):
        model = network(0)
        model.load_state_dict(base)
        tuned.append(learn(model, seed, 50, lr=1e-2).state_dict())
    mean = sum(map(held_out, tuned)) / 2
    assert held_out(soup(tuned)) <= mean
    strangers = [learn(network(seed), seed, 150).state_dict() for seed in (3, 4)]
    alone = sum(map(held_out, strangers)) / 2
    assert held_out(soup(strangers)) > alone + 0.3


# ------------------------------------------------------------------ as the reference of a run


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """The recipe's arms for two steps, from models that are made in a moment."""
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    module = recipes.load("salsa")
    base = replace(
        module.base, steps=8, games=8, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64), seed=3
    )
    lines = replace(module.first.answers, count=24)
    one, two = (replace(t, base=base, answers=lines) for t in (module.first, module.second))

    def small(arm: Recipe) -> Recipe:
        reference = Soup((one, two)) if isinstance(arm.reference, Soup) else arm.reference
        watching = {"first": Frozen(one)}
        return replace(
            arm, model=one, reference=reference, others=watching, tasks=2, answers=4, steps=2
        )

    return {name: small(arm) for name, arm in module.arms.items()}


def taken(recipe: Recipe) -> list[Mapping[str, float]]:
    machine, tasks = build(recipe, device="cpu"), recipe.env.tasks("train")
    steps = train(recipe, machine.engine, machine.learners, tasks, start(recipe, tasks), seed=0)
    return [report.metrics for _, report in steps]


def weights(model: Any) -> dict[str, Tensor]:
    return open_model(model, device="cpu")[0].module.state_dict()


def test_the_soup_of_two_fine_tunings_is_one_checkpoint(arms: dict[str, Recipe]) -> None:
    average = arms["salsa"].reference
    assert isinstance(average, Soup)
    one, two = (weights(each) for each in average.ingredients)
    names = [n for n in one if one[n].is_floating_point()]
    assert any(not torch.equal(one[name], two[name]) for name in names)
    folder = average.folder()
    got = weights(folder)
    for name in names:
        torch.testing.assert_close(got[name], (one[name] + two[name]) / 2)
    told = json.loads((folder / "soup.json").read_text())
    assert told["soup"] == fingerprint(got) == folder.name
    assert told["of"] == [fingerprint(one), fingerprint(two)]
    assert average.folder() == folder
    # another seed of a run has ingredients of its own, of the same ancestor
    assert average.folder(1) != folder


def test_who_is_second_to_make_a_model_takes_the_first_ones(
    arms: dict[str, Recipe], monkeypatch: pytest.MonkeyPatch
) -> None:
    average = arms["salsa"].reference
    assert isinstance(average, Soup)
    one, _ = average.ingredients
    assert isinstance(one, Tuned)
    before = weights(one)
    rename = Path.rename

    def late(made: Path, where: Path) -> Path:
        shutil.copytree(made, where)  # what another process finished a moment ago
        return rename(made, where)

    monkeypatch.setattr(Path, "rename", late)
    assert fingerprint(weights(replace(one, order=7))) != fingerprint(before)
    assert (average.folder() / "soup.json").exists()


def test_it_is_measured_from_the_soup_and_begins_at_the_first(arms: dict[str, Recipe]) -> None:
    told = taken(arms["salsa"])
    assert told[0]["terms/kl/first"] == pytest.approx(0.0, abs=1e-5)
    assert abs(told[1]["terms/kl/first"]) > 1e-4
    assert told[0]["kl_ref"] > 1e-6


def test_a_share_of_nothing_is_ppo_bit_for_bit(arms: dict[str, Recipe]) -> None:
    average = arms["salsa"].reference
    assert isinstance(average, Soup)
    none = replace(average, shares=(1.0, 0.0))
    without, ppo = taken(replace(arms["salsa"], reference=none)), taken(arms["ppo"])
    for name in ("loss", "value_loss", "kl_ref", "terms/gold", "grad_norm"):
        assert [m[name] for m in without] == [m[name] for m in ppo], name
