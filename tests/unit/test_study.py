"""A study runs by the same commands as a recipe: measured once, its numbers judged by claims."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ludus.recipes import load
from ludus.train.claims import Claim, judge
from ludus.train.replicate import replicate_recipe
from ludus.train.study import run_study

FILE = '''"""A system that only measures, arXiv:0000.00000."""

from dataclasses import dataclass, replace

from ludus.train.claims import Claim


@dataclass(frozen=True)
class Sum:
    model: str = "none"
    upto: int = 4

    def measure(self, seed, folder, track):
        (folder / "seen.txt").open("a").write("once")
        return {"sum": seed + sum(track(range(self.upto), "numbers")), "upto": self.upto}


recipe = Sum()
arms = {"short": recipe, "long": replace(recipe, upto=9)}
claims = (
    Claim("longer is more", "long", "short", margin=20.0, measure="sum"),
    Claim("a sum is more than its length", "short", None, margin=0.0, measure="sum", against="upto"),
)
'''


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "adds.py").write_text(FILE)
    return tmp_path / "adds.py"


def test_it_is_measured_once(file: Path, tmp_path: Path) -> None:
    study = load(str(file)).recipe
    out = tmp_path / "run"
    assert run_study(study, out, seed=1) == {"sum": 7.0, "upto": 4.0}
    assert run_study(study, out, seed=1, resume=True) == {"sum": 7.0, "upto": 4.0}
    assert (out / "seen.txt").read_text() == "once"
    assert json.loads((out / "recipe.json").read_text())["recipe"]["upto"] == 4


def test_its_numbers_are_judged(file: Path, tmp_path: Path) -> None:
    told = replicate_recipe(str(file), [0, 1, 2], tmp_path / "runs", tmp_path / "docs", print)
    assert [claim["verdict"] for claim in told["claims"]] == ["holds", "holds"]
    assert told["arms"]["long"]["sum"]["mean"] == pytest.approx(37)
    page = (tmp_path / "docs/adds.md").read_text()
    assert "| arm | seed | seconds | sum | upto |" in page and "| long | 2 |" in page


def test_a_claim_may_compare_two_measures() -> None:
    claim = Claim("", "one", "two", margin=0.0, measure="good", against="bad")
    outcomes = {"one": [{"good": 3.0}, {"good": 4.0}], "two": [{"bad": 1.0}, {"bad": 2.0}]}
    assert judge(claim, outcomes).difference.mean == 2.0


def test_the_command_runs_it(file: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "ludus.cli", "run", str(file)]
    settings = {"capture_output": True, "text": True, "cwd": tmp_path, "env": os.environ}
    done = subprocess.run([*command, "--set", "upto=3", "--out", "r"], **settings)
    assert done.returncode == 0, done.stderr
    assert "sum" in done.stdout and json.loads((tmp_path / "r/summary.json").read_text())[
        "measures"
    ] == {"sum": 3.0, "upto": 3.0}
    refused = subprocess.run([*command, "--steps", "3"], **settings)
    assert refused.returncode != 0 and "no --steps" in refused.stderr
