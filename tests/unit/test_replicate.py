"""`ludus replicate`: every arm and seed once, taken up where it was stopped, and a page of whatever came out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ludus.recipes import UnknownRecipe
from ludus.train.replicate import ReplicateError, replicate_recipe

FILE = '''"""A paper, arXiv:0000.00000: a claim."""

from dataclasses import replace

from ludus.recipes.agents.agentgym_rl import recipe as whole
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation

recipe = replace(whole, tasks=1, answers=2, steps=1, evaluation=Evaluation(tasks=2, max_turns=1))
arms = {"one": recipe, "no bonus": replace(recipe, entropy=0.0)}
claims = (
    Claim("it gets better", "one", None, margin=2.0),
    Claim("the bonus keeps entropy", "one", "no bonus", margin=-5.0, measure="last/entropy"),
)
'''


def test_runs_are_made_once_and_judged_whatever_they_show(tmp_path: Path) -> None:
    file = tmp_path / "small.py"
    file.write_text(FILE)
    said: list[str] = []

    def again() -> dict:
        said.clear()
        return replicate_recipe(
            str(file), [0, 1], tmp_path / "runs", tmp_path / "docs", said.append
        )

    told = again()
    assert len([line for line in said if "seed" in line]) == 4
    assert json.loads((tmp_path / "docs/small.json").read_text())["claims"] == told["claims"]
    verdicts = [claim["verdict"] for claim in told["claims"]]
    assert verdicts == ["does not hold", "holds"]  # +200 points in a step are not to be had
    runs = told["arms"]["one"]["runs"]
    assert [run["last/entropy"] > 0 and run["rollouts"] == 2 for run in runs] == [True, True]
    page = (tmp_path / "docs/small.md").read_text()
    assert "does not hold" in page and "arXiv:0000.00000" in page

    (tmp_path / "runs/small/one-1/summary.json").unlink()  # as if it had been stopped there
    assert again()["arms"]["one"]["runs"][0] == runs[0]
    assert [line for line in said if "seed" in line] == ["small: one, seed 1"]


def test_a_recipe_without_claims_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "silent.py"
    file.write_text(FILE.split("claims = (")[0])
    with pytest.raises(UnknownRecipe, match="makes no claims"):
        replicate_recipe(str(file), [0, 1], tmp_path, tmp_path, print)


def test_a_single_seed_is_refused_before_anything_is_run(tmp_path: Path) -> None:
    file = tmp_path / "small.py"
    file.write_text(FILE)
    with pytest.raises(ReplicateError, match="--seeds 1 gives no interval; give 2"):
        replicate_recipe(str(file), [0], tmp_path / "runs", tmp_path / "docs", print)
    assert not (tmp_path / "runs").exists()
