"""MIR-Bench as a study: codes, what a prompt shows, the tiny model's texts, a run, and the real data's columns."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
import pytest

from ludus.engines.local.build import open_model
from ludus.engines.local.model import CausalModel
from ludus.envs.world import side
from ludus.evals.mir_bench.codes import Codes, code, looked_up, table
from ludus.evals.mir_bench.induction import COPIED, Induction, Setting
from ludus.evals.mir_bench.pool import Generated
from ludus.evals.mir_bench.problems import Filters
from ludus.evals.mir_bench.prompts import DIRECT, prompt
from ludus.evals.mir_bench.published import COLUMNS, NoSuchData, Published, rows
from ludus.evals.mir_bench.trivial import trivial_accuracy
from ludus.models import base, from_texts, tiny
from ludus.models.from_texts import Rates
from ludus.models.shots_base import ShotsBase, Stage
from ludus.train.study import Study, silent
from ludus.types import Key, Message

STAGE = Stage(2, (4,), (3,), 400, whole=True)
BASE = ShotsBase((STAGE,), rates=Rates(2), size=tiny.Size(16, 1, 2, 1, 8, 24))


@pytest.fixture(autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path_factory.getbasetemp() / "shots cache"))


# ---------------------------------------------------------------------------------------------- codes


@pytest.mark.parametrize("letters", [False, True])
def test_codes_are_held_out_and_their_tests_new(letters: bool):
    pool = Codes(4, letters)(0)
    assert pool.funnel["drawn"] >= pool.funnel["held out"] == 4
    for problem in pool.problems:
        assert side(problem.function.name) == "test"
        inputs, tests = ([x for x, _ in some] for some in (problem.shots, problem.tests))
        assert len(set(inputs)) == 90 and len(set(tests)) == 10 and not set(inputs) & set(tests)
        for x, y in problem.tests:  # the gold, a second way
            assert eval(problem.function.source, {"accumulate": accumulate, "x": x}) == y
        assert letters or all(x[0] == y[0] for x, y in problem.shots + problem.tests)
    # what beats the trivial rules must have looked something up
    best = [max(trivial_accuracy(p, 32).values()) for p in Codes(12, letters)(1).problems]
    assert max(best) <= 0.5 and np.mean(best) < 0.2


def test_a_code_by_hand():
    function = code("bacdefghij", "1023456789")
    assert [function(x) for x in ("a0", "b1", "c7")] == ["b1", "a0", "c7"]
    shots = (("a0", "b1"), ("c1", "c0"))
    assert [looked_up(shots, x) for x in ("a1", "c0", "b0")] == ["b0", "c1", None]
    rng = np.random.default_rng(0)
    assert table("abcdef", 0, rng) == "abcdef" and sorted(table("abcdef", 6, rng)) == list("abcdef")


def test_what_can_be_known_rises_with_shots_and_is_never_wrong():
    source = Codes(3)
    for problem in source(0).problems:
        known = []
        for shots in (4, 8, 16, 32, 64, 90):
            told = source.search(problem, shots)
            assert all(a in (None, gold) for a, (_, gold) in zip(told, problem.tests, strict=True))
            known.append(sum(a is not None for a in told))
        assert known == sorted(known) and known[0] < 5 and known[-1] == 10


# ---------------------------------------------------------------------------------------------- what a prompt shows


def test_settings():
    problem, key = Codes(1)(0).problems[0], Key(0)
    plain = Setting(16).shown(problem, key)
    assert tuple(plain) == problem.shots[:16] == tuple(Setting(32).shown(problem, key))[:16]
    half = Setting(32, wrong=0.5).shown(problem, key)
    assert [x for x, _ in half] == [x for x, _ in problem.shots[:32]]
    assert sum(a != b for a, b in zip(half, problem.shots, strict=False)) == 16
    copied = Setting(COPIED, copies=48).shown(problem, key)
    assert len(copied) == 64 and set(copied) == set(plain)
    names = [str(s) for s in (Setting(4), Setting(32, wrong=0.5), Setting(16, copies=1008))]
    assert names == ["4 shots", "32 shots, 50% wrong", "16 shots and 1008 copies"]


# ---------------------------------------------------------------------------------------------- the tiny model


def test_the_base_is_trained_on_what_it_will_be_asked():
    """The same ids, with and without the chat template, and no held-out code."""
    rng = np.random.default_rng(0)
    assert all(side(BASE.function(rng).name) == "train" for _ in range(20))
    model, renderer = open_model(BASE, device="cpu")
    assert model.max_length == 16_384
    asked = prompt((("a1", "b2"), ("c3", "d4")), "e5", DIRECT)
    opened = renderer.open([Message("user", asked)]).tokens
    written = f"<|user|>{asked}{tiny.END}<|assistant|>"
    assert opened.tolist() == renderer.tokenizer(written, add_special_tokens=False)["input_ids"]
    pieces, _ = BASE.text(rng, shots=3, kinds=10, bound=False)
    shots = calls(pieces)
    asked = prompt(shots[:3], shots[3][0], DIRECT)
    answer = f"Output:{shots[3][1]}{tiny.END}"
    assert "".join(pieces) == f"<|user|>{asked}{tiny.END}<|assistant|>{answer}"
    ids = base.encode([(pieces, (1.0, 0.0))], renderer.tokenizer)[0][0]
    together = renderer.tokenizer("".join(pieces), add_special_tokens=False)["input_ids"]
    assert ids.tolist() == together
    bound, _ = BASE.text(rng, shots=3, kinds=10, bound=True)
    assert all(y[1] + y[3] == x for x, y in calls(bound))


def calls(pieces: list[str]) -> list[tuple[str, str]]:
    """Inputs and outputs of a text of the base."""
    form = rf"Input:(\w+)(?:\n|{re.escape(tiny.END)}<\|assistant\|>)Output:(\w+)"
    return re.findall(form, "".join(pieces))


def test_of_the_outputs_what_was_shown_before_counts():
    rng = np.random.default_rng(0)
    for _ in range(20):
        pieces, worth = BASE.text(rng, shots=6, kinds=3, bound=False)
        wanted, known = "", set[str]()
        for number, (x, y) in enumerate(calls(pieces)):
            wanted += "Output:" if number == 6 else ""
            wanted += "".join(out for symbol, out in zip(x, y, strict=True) if symbol in known)
            known |= set(x)
        assert worth == (1.0, 0.0) and "".join(pieces[1::2]) == wanted + tiny.END


def test_padded_rows_have_the_loss_of_packed_ones():
    tokenizer = tiny.tokenizer()
    made = tiny.model(BASE.size, len(tokenizer))
    texts = [
        (["Goal get", " oak"], (1.0, 0.5)),
        (["Goal", " stick oak", " get", " log"], (1.0, 0.5)),
    ]
    ids, weights = base.encode(texts, tokenizer)
    padded = from_texts.loss_of(made, ids, weights)
    assert float(padded.detach()) == pytest.approx(
        float(base.loss_of(CausalModel(made), ids, weights)), abs=1e-5
    )


def test_a_run_of_the_study(tmp_path: Path):
    study = Induction(BASE, Codes(2), shots=(4, 8), wrong=(0.5,), wrong_shots=8, copies=(16,))
    assert isinstance(study, Study)
    told = study.measure(0, tmp_path, silent)
    settings = ["4 shots", "8 shots", "8 shots, 50% wrong", "16 shots and 16 copies"]
    for name in ("accuracy", "lenient", "search", "trivial", "most_common", "nearest", "copied"):
        assert all(0 <= told[f"{name}/{setting}"] <= 1 for setting in settings)
    assert told["search/8 shots"] >= told["search/4 shots"]
    table = (tmp_path / "accuracy.csv").read_text().splitlines()
    assert len(table) == 5 and table[0].startswith("setting,accuracy,lenient,search")
    assert (tmp_path / "accuracy.png").stat().st_size > 1000
    with pytest.raises(ValueError, match="give fewer"):
        Induction(BASE, Codes(1), shots=(91,)).measure(0, tmp_path, silent)
    with pytest.raises(ValueError, match="has 90 shots, and a prompt wants 128; give fewer"):
        Induction(BASE, Codes(1), shots=(4,), wrong_shots=128).measure(0, tmp_path, silent)


def test_a_prompt_without_room_is_wrong(tmp_path: Path):
    short = replace(BASE, context=120)
    study = Induction(short, Codes(1), shots=(64,), wrong=(), copies=())
    assert study.measure(0, tmp_path, silent)["accuracy/64 shots"] == 0


def test_the_generated_pool_tells_its_funnel(tmp_path: Path):
    source = Generated(size=1, depth=2, filters=Filters(calls=400, shots=300))
    study = Induction(BASE, source, shots=(4, 16), wrong=(), copies=(), max_tokens=4)
    told = study.measure(0, tmp_path, silent)
    stages = ["drawn", "different", "enough shots", "short enough", "many shots help"]
    passed = [told[f"funnel/{stage}"] for stage in stages]
    assert passed == sorted(passed, reverse=True) and passed[-1] == 1
    assert told["search/4 shots"] < 1


# ---------------------------------------------------------------------------------------------- the real data's columns

ROW: dict[str, Any] = {
    "prompt": prompt((("a", "b"),), "c"),
    "answer": "[1, 2]",
    "idx_train": [0],
    "idx_test": 3,
    "plen": 90,
    "num_shots": 4,
    "ER_rate": 0.25,
    "tag": ["list"],
    "difficulty": "easy",
}


def files(folder: Path) -> list[Path]:
    made = [folder / f"core{ending}" for ending in (".parquet", ".jsonl", ".json")]
    data = [ROW, {**ROW, "num_shots": 8, "ER_rate": None, "tag": [], "answer": "7"}]
    parquet.write_table(pa.Table.from_pylist(data), made[0])
    made[1].write_text("".join(json.dumps(row) + "\n" for row in data))
    made[2].write_text(json.dumps(data))
    return made


def test_rows_of_the_data_set(tmp_path: Path):
    assert tuple(ROW) == COLUMNS
    one, other, third = (rows(file) for file in files(tmp_path))
    assert one == other == third and len(one) == 2
    first, second = one
    assert (first.shots, first.wrong, first.tags, first.answer) == (4, 0.25, ("list",), "[1, 2]")
    assert (second.shots, second.wrong, second.tags, second.answer) == (8, 0.0, (), "7")
    with pytest.raises(NoSuchData, match="give --set file=PATH"):
        rows(tmp_path / "none.parquet")
    (tmp_path / "bad.json").write_text(json.dumps([{"prompt": "p", "answer": "a"}]))
    with pytest.raises(NoSuchData, match="no column 'num_shots'"):
        rows(tmp_path / "bad.json")


def test_a_line_may_hold_what_unicode_calls_the_end_of_a_line(tmp_path: Path):
    file = tmp_path / "core.jsonl"
    file.write_text(json.dumps({**ROW, "answer": "a\u2028b\x85"}, ensure_ascii=False), "utf-8")
    assert rows(file)[0].answer == "a\u2028b\x85"


def test_a_run_on_the_data_set(tmp_path: Path):
    file = str(files(tmp_path)[0])
    told = Published(BASE, file, max_tokens=4).measure(0, tmp_path, silent)
    assert set(told) == {
        *(
            f"{rule}/{level}"
            for rule in ("accuracy", "lenient")
            for level in ("4 shots, 25% wrong", "8 shots")
        )
    }
    assert all(math.isfinite(value) for value in told.values())
    with pytest.raises(NoSuchData, match="give --model DIR"):
        Published(file=file).measure(0, tmp_path, silent)
