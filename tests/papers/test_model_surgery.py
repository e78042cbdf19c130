"""Card model-surgery: cosines, choice of rows, edit and undo, what is on disk, and the probe's sign."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file

from ludus.data.two_styles import STYLES, TwoStyles, bad_share, styled_share
from ludus.engines.local.build import open_model
from ludus.evals.surgery import Surgery
from ludus.models import surgery, tiny
from ludus.models.from_texts import Rates
from ludus.models.styles_base import StylesBase
from ludus.models.surgery import Edit, SurgeryError, cosines, fit_probe, gates, moved, plan, select
from ludus.train.study import silent
from ludus.types import Key

V = torch.tensor([1.0, 0.0])
GATE = torch.tensor([[-2.0, 0.0], [0.0, 1.0], [-1.0, 1.0], [1.0, 1.0]])
SIZE = tiny.Size(16, 2, 2, 1, 8, 24)


def small(seed: int = 0) -> torch.nn.Module:
    return tiny.model(SIZE, 300, seed)


def bits(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone().view(torch.int32) for name, p in model.named_parameters()}


# ---------------------------------------------------------------------------------------------- the card's numbers


def test_cosines_of_the_card():
    half = math.sqrt(0.5)
    assert cosines(GATE, V).tolist() == pytest.approx([-1, 0, -half, half])
    assert cosines(torch.zeros(1, 2), V).tolist() == [0]


def test_the_rows_of_the_card():
    assert select({"a": GATE}, V, 2)["a"].tolist() == [0, 2]
    assert select({"a": GATE}, V, 1, "aligned")["a"].tolist() == [3]
    chosen = select({"a": GATE[:2], "b": GATE[2:]}, V, 2)  # the same of all layers together
    assert {name: rows.tolist() for name, rows in chosen.items()} == {"a": [0], "b": [0]}
    assert set(select({"a": GATE[1:2], "b": GATE[:1]}, V, 1)) == {"b"}
    assert select({"a": GATE[[1, 1]]}, V, 1)["a"].tolist() == [0]  # of equals the first


def test_random_rows_are_any_rows():
    drawn = [
        select({"a": GATE}, V, 2, "random", Key(seed).generator())["a"].tolist()
        for seed in range(50)
    ]
    assert all(len(set(rows)) == 2 and rows == sorted(rows) for rows in drawn)
    assert {row for rows in drawn for row in rows} == {0, 1, 2, 3}


def test_the_edit_and_the_gates_of_the_card():
    made = moved(GATE, torch.tensor([0, 2]), V, 1.5)
    assert made.tolist() == [[-0.5, 0], [0, 1], [0.5, 1], [1, 1]]

    def gate(weights: torch.Tensor, *hidden: float) -> list[float]:
        return F.silu(weights @ torch.tensor(hidden, dtype=torch.float32)).tolist()

    assert gate(GATE, 2, 0) == pytest.approx([-0.0719, 0, -0.2384, 1.7616], abs=1e-4)
    assert gate(made, 2, 0) == pytest.approx([-0.2689, 0, 0.7311, 1.7616], abs=1e-4)
    assert gate(made, 0, 1) == gate(GATE, 0, 1)


def test_alpha_zero_is_bit_identical():
    weights = torch.tensor([[-0.0, 1.0]])
    made = moved(weights, torch.tensor([0]), torch.tensor([1.0, 1.0]), 0.0)
    assert torch.equal(made.view(torch.int32), weights.view(torch.int32))
    model = small()
    before = bits(model)
    edit = plan(gates(model), torch.ones(16), alpha=0.0, count=5)
    surgery.apply(model, edit)
    assert all(torch.equal(before[name], now) for name, now in bits(model).items())


# ---------------------------------------------------------------------------------------------- a model


def test_exactly_the_rows_differ_and_undo_restores_them(tmp_path: Path):
    model = small()
    before = bits(model)
    edit = plan(gates(model), torch.randn(16, generator=torch.manual_seed(0)), alpha=4.0, count=7)
    surgery.apply(model, edit)
    changed = 0
    for name, now in bits(model).items():
        rows = (now != before[name]).reshape(len(now), -1).any(1).nonzero()[:, 0]
        assert rows.tolist() == edit.rows.get(name, torch.tensor([])).tolist()
        changed += len(rows)
    assert changed == edit.count == 7
    edit.save(tmp_path)
    surgery.undo(model, Edit.load(tmp_path))  # from what was written, in another process say
    assert all(torch.equal(before[name], now) for name, now in bits(model).items())


def test_edits_follow_one_another_and_are_undone_backwards():
    model = small()
    before = bits(model)
    first = plan(gates(model), torch.ones(16), alpha=2.0, count=40)
    surgery.apply(model, first)
    second = plan(gates(model), -torch.ones(16), alpha=2.0, count=40)
    surgery.apply(model, second)
    with pytest.raises(SurgeryError, match="undo later edits first"):
        surgery.undo(model, first)
    with pytest.raises(SurgeryError, match="made for"):
        surgery.apply(model, first)
    surgery.undo(model, second)
    surgery.undo(model, first)
    assert all(torch.equal(before[name], now) for name, now in bits(model).items())
    with pytest.raises(SurgeryError, match="made for"):
        surgery.apply(small(seed=1), first)


def test_errors_say_what_was_wanted():
    with pytest.raises(SurgeryError, match="one number per column"):
        cosines(GATE, torch.ones(3))
    with pytest.raises(SurgeryError, match="names no behaviour"):
        cosines(GATE, torch.zeros(2))
    with pytest.raises(SurgeryError, match="give 1 to 4"):
        select({"a": GATE}, V, 5)
    with pytest.raises(SurgeryError, match="gated MLP"):
        gates(torch.nn.Linear(2, 2))
    with pytest.raises(SurgeryError, match="both classes"):
        fit_probe(torch.ones(3, 2), torch.ones(3, dtype=torch.int64))


# ---------------------------------------------------------------------------------------------- the probe


def test_the_probe_points_at_the_behaviour():
    generator = torch.Generator().manual_seed(0)
    label = torch.arange(400) % 2
    truth = F.normalize(torch.randn(8, generator=generator), dim=0)
    feature = torch.randn(400, 8, generator=generator) + 3 * torch.outer(2.0 * label - 1, truth)
    probe = fit_probe(feature[:300], label[:300], lr=1e-2)
    assert min(probe.accuracy(feature[300:], label[300:])) > 0.95
    assert float(probe.direction() @ truth) > 0.9
    assert float(probe.direction().norm()) == pytest.approx(1)
    assert torch.equal(probe.direction(unit=False), probe.weight[1])


def test_features_are_means_of_the_last_hidden_layer(tmp_path: Path):
    tokenizer = tiny.tokenizer(TwoStyles().words())
    model = tiny.model(SIZE, len(tokenizer))
    model.save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    opened, _ = open_model(tmp_path, device="cpu")
    rows = [np.array(row) for row in ([7, 8, 9], [7, 8, 9, 10, 11], [30])]
    got = surgery.features(opened, rows)
    with torch.no_grad():
        for row, mine in zip(rows, got, strict=True):
            last = model.base_model(torch.from_numpy(row)[None]).last_hidden_state[0]
            assert torch.allclose(mine, last.mean(0), atol=1e-5)


# ---------------------------------------------------------------------------------------------- the study


def test_styles():
    rng = np.random.default_rng(0)
    styles = TwoStyles()
    good, bad = (styles.text(rng, style) for style in (0, 1))
    assert (bad_share([good]), bad_share([bad]), bad_share([good, bad])) == (0, 1, 0.5)
    assert styled_share([good]) == pytest.approx(0.6) and bad_share(["the"]) == 0
    assert not {w for ws in STYLES[0] for w in ws} & {w for ws in STYLES[1] for w in ws}
    drawn = [bad_share([styles.text(rng)]) for _ in range(400)]
    assert set(drawn) == {0, 1} and 0.4 < np.mean(drawn) < 0.6


def test_the_edited_model_lies_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path / "cache"))
    base = StylesBase(texts=2, rates=Rates(2, muon=0.0), size=SIZE)
    study = Surgery(model=base, alphas=(4.0,), probed=8, samples=4, max_tokens=4)
    told = study.measure(0, tmp_path / "run", silent)
    assert {
        f"{name}/alpha {alpha}" for name in ("bad share", "clean nll") for alpha in (0, 4)
    } <= set(told)
    assert all(math.isfinite(value) for value in told.values())
    edited = tmp_path / "run" / "edited"
    one, other = (load_file(where / "model.safetensors") for where in (base.folder(0), edited))
    edit = Edit.load(edited)
    assert edit.count == round(0.046 * 48) == 2
    for name in one:
        rows = (one[name] != other[name]).reshape(len(one[name]), -1).any(1).nonzero()[:, 0]
        assert rows.tolist() == edit.rows.get(name, torch.tensor([])).tolist()
    assert replace(base).folder(0) == base.folder(0) != base.folder(1)
