"""`ludus compare`: systems on one task at equal cost, seed by seed; runs made once; errors that say what to type."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.image import imread

from ludus import cli
from ludus.recipes import UnknownRecipe
from ludus.recipes.policy import rover, tempo
from ludus.train.compare import (
    CompareError,
    band,
    budget_of,
    contestant,
    curve,
    differing,
    pair,
    slug,
)
from ludus.train.override import OverrideError
from ludus.train.recipe import Budget, RecipeError

FILE = '''"""Three ways to learn a small world, and what is none."""

from dataclasses import dataclass, replace

from ludus.advantages.credit import GAE, GRPO, RLOO
from ludus.advantages.pool import PoolBaseline
from ludus.curricula.horizon import fixed
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.models.tiny import Size
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

world = Forks(forks=1, fill=1, needed=(0,), train=8, test=8)
recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(max_tokens=2)),
    credit=GRPO(),
    loss=clipped_ratio,
    horizon=fixed(1),
    model=WorldBase(world, share=0.5, steps=2, games=2, turns=1, warmup=1, size=Size(32, 1, 2, 1, 16, 64)),
    tasks=2,
    answers=2,
    evaluation=Evaluation(tasks=4, max_turns=1),
)
rloo = replace(recipe, credit=RLOO(), optim=Optim(lr=5e-4))
ppo = replace(recipe, credit=GAE(), critic=True)
pool = replace(recipe, credit=PoolBaseline())
silent = replace(recipe, env=replace(world, test=0))


@dataclass(frozen=True)
class Counts:
    model: str = ""

    def measure(self, seed, folder, track):
        return {"one": 1.0}


study = Counts()
'''


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path / "cache"))
    where = tmp_path / "small.py"
    where.write_text(FILE)
    return str(where)


def asked(file: str, *variants: str, **settings: Any) -> cli.Compare:
    """The command for variants of the file; "" is its `recipe`."""
    systems = tuple(f"{file}:{variant}".rstrip(":") for variant in variants)
    folder = Path(file).parent
    command = cli.Compare(
        systems, file, "samples=8", 2, out=folder / "runs", docs=folder / "docs", name="small"
    )
    return replace(command, **settings)


def test_two_systems_at_equal_cost(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    command = asked(file, "", "rloo", set=("optim.betas=[0.9, 0.999]",))
    command()
    docs, runs = Path(file).parent / "docs", Path(file).parent / "runs/small"
    told = json.loads((docs / "small.json").read_text())
    first, second = command.systems
    for found in told["systems"].values():
        assert [(run["rollouts"], run["steps"]) for run in found["runs"]] == [(8, 2), (8, 2)]
        assert found["learns"]["optim"]["betas"] == [0.9, 0.999]
        assert found["before"] == told["systems"][first]["before"]  # the same base, the same tasks
    assert [found["learns"]["optim"]["lr"] for found in told["systems"].values()] == [1e-3, 5e-4]
    each = [
        a["after"] - b["after"]
        for a, b in zip(*(told["systems"][s]["runs"] for s in (first, second)), strict=True)
    ]
    (found,) = told["pairs"]
    assert (found["first"], found["second"]) == (first, second)
    assert found["difference"]["mean"] == pytest.approx(np.mean(each))
    assert told["curve"]["of"] == "success" and told["curve"]["spent"][-1] == 8

    page = (docs / "small.md").read_text()
    assert f"--task {file} --seeds 2 --budget samples=8 --set 'optim.betas=[0.9, 0.999]'" in page
    assert "lr=0.001" in page and "lr=0.0005" in page and "(small.png)" in page
    picture = imread(docs / "small.png")
    assert picture[..., :3].std() > 0.01  # something is drawn

    # taken up again: nothing is run, and a third system joins the runs that are there
    made = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in runs.iterdir()}
    capsys.readouterr()
    replace(command, set=(*command.set, "evaluation.every=1"))()
    assert "seed 1" in capsys.readouterr().out  # another recipe is another run
    command()
    assert "seed" not in capsys.readouterr().out
    again = {folder: (folder / "summary.json").stat().st_mtime_ns for folder in made}
    assert again == made and len(list(runs.iterdir())) == 2 * len(made)
    assert json.loads((docs / "small.json").read_text()) == told

    held = next(folder for folder in runs.iterdir() if folder not in made)
    drawn = curve(held, Budget("rollouts", 8), "held-out/success")
    assert drawn.spent.tolist() == [0, 4, 8] and len(drawn.success) == 3


@pytest.mark.parametrize(
    ("variants", "settings", "error", "said"),
    [
        (("", "nothing"), {}, UnknownRecipe, "no recipe value 'nothing'; it has recipe, rloo"),
        (("",), {}, CompareError, "alone is no comparison; name two systems or more"),
        (("rloo", "rloo"), {}, CompareError, "name two systems or more, different ones"),
        (("", "study"), {}, CompareError, "is a study and no training run.*ludus run"),
        (("", "rloo"), {"seeds": 1}, CompareError, "--seeds 1 gives no interval"),
        (("", "rloo"), {"budget": "seconds=3"}, CompareError, "--budget seconds=3: give samples=N"),
        (("", "rloo"), {"budget": "tokens=many"}, CompareError, "such as tokens=2e6"),
        (("", "rloo"), {"budget": "tokens=0"}, CompareError, "a number of 1 or more"),
        (("", "rloo"), {"set": ("optim.rate=1",)}, OverrideError, "has no field 'rate'"),
        (("", "pool"), {}, RecipeError, "pool cannot learn this task: PoolBaseline needs 'pool'"),
    ],
)
def test_errors_come_before_any_run(
    file: str, variants: Sequence[str], settings: dict, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=f"(?s){said}"):
        asked(file, *variants, **settings)()
    assert not (Path(file).parent / "runs").exists()


def test_a_task_is_named_as_a_system_is_and_has_held_out_tasks(file: str) -> None:
    with pytest.raises(UnknownRecipe, match="did you mean rover"):
        asked(file, "", "rloo", task="rove")()
    with pytest.raises(CompareError, match="silent has no held-out tasks"):
        asked(file, "", "rloo", task=f"{file}:silent")()
    with pytest.raises(CompareError, match="study is a study"):
        asked(file, "", "rloo", task=f"{file}:study")()


def test_what_is_taken_of_a_system_and_what_of_the_task() -> None:
    made = contestant(
        "tempo", tempo.recipe, rover.recipe, Budget("tokens", 100.0), ["optim.lr=1e-2"]
    )
    for field in ("credit", "loss", "over", "probes", "kl"):
        assert getattr(made, field) == getattr(tempo.recipe, field)
    for field in ("env", "model", "strategy", "tasks", "answers", "horizon", "evaluation"):
        assert getattr(made, field) == getattr(rover.recipe, field)
    assert made.optim == replace(tempo.recipe.optim, lr=1e-2)
    assert made.budget == Budget("tokens", 100.0) and made.steps == 100
    shown = differing(made)
    assert set(shown) == {"credit", "loss", "optim"} and "lr=0.01" in shown["optim"]
    other = replace(tempo.recipe, reference="somebody/else")
    with pytest.raises(RecipeError, match=r"weights of another model.*--set reference=True"):
        contestant("tempo", other, rover.recipe, Budget("tokens", 100.0))


def test_budgets_and_names() -> None:
    assert budget_of("samples=2e3") == Budget("rollouts", 2000.0)
    assert budget_of("turns=40") == Budget("turns", 40.0)
    assert slug("agentgym-rl:ppo") == "agentgym-rl-ppo" and slug("some/mine.py:one") == "mine-one"


def test_pairs_are_told_apart_by_the_interval_of_their_differences() -> None:
    runs = {"a": [0.5, 0.9, 0.7], "b": [0.4, 0.8, 0.6], "c": [0.5, 0.7, 0.9]}
    outcomes = {name: [{"after": x} for x in each] for name, each in runs.items()}
    # seeds differ by far more than systems, and alike: paired, a is above b
    assert pair("a", "b", outcomes)["verdict"] == "a is better"
    assert pair("b", "a", outcomes)["verdict"] == "a is better"
    assert pair("a", "c", outcomes)["verdict"] == "not told apart"


def test_a_band_is_the_interval_over_seeds_at_equal_cost(tmp_path: Path) -> None:
    for seed, success in enumerate([(0.0, 0.5, 1.0), (0.2, 0.5, 0.8)]):
        folder = tmp_path / str(seed)
        folder.mkdir()
        rows = [
            {"step": i + 1, "success": s, "spent/tokens": 50.0 * (i + 1)}
            for i, s in enumerate(success)
        ]
        (folder / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
        (folder / "summary.json").write_text("{}")
    curves = [curve(tmp_path / str(s), Budget("tokens", 150.0), "success") for s in range(2)]
    assert curves[0].spent.tolist() == [50, 100, 150]
    found = band(curves, np.array([0.0, 75.0, 150.0]))
    assert found["mean"] == pytest.approx([0.1, 0.3, 0.9])
    # two seeds 0.2 apart: t = 12.71, sd / sqrt 2 = 0.1
    assert found["high"][2] == pytest.approx(0.9 + 1.271, abs=1e-3)
