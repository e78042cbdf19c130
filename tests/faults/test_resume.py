"""Killed at any instant, a run resumes to the same curve, to the last digit."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ludus.train.folder import RunFolder

RECIPE = """
from ludus.advantages.credit import GAE
from ludus.curricula.horizon import staged
from ludus.envs.games.books import generated
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

recipe = Recipe(
    env=generated(),
    strategy=AgentLoop(Sampling(max_tokens=6)),
    credit=GAE(),
    loss=clipped_ratio,
    kl=KL(0.01, k3),
    reference=True,
    critic=True,
    horizon=staged([2, 3], every=4),
    optim=Optim(lr=1e-3, warmup=3, updates=2),
    tasks=2,
    answers=3,
    steps=12,
    evaluation=Evaluation(tasks=3, max_turns=2),
)
"""


def command(folder: Path, out: Path, *more: str) -> list[str]:
    settings = ["--model", str(folder / "model"), "--out", str(out), "--checkpoint-every", "2"]
    return [
        sys.executable,
        "-m",
        "ludus.cli",
        "run",
        str(folder / "mine.py"),
        *settings,
        "--quiet",
        *more,
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe with every stateful part (critic, reference, stages, warm-up), and a run that was not disturbed."""
    from tests.helpers import tiny_model, tokenizer

    folder = tmp_path_factory.mktemp("resume")
    tiny_model().save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
    (folder / "mine.py").write_text(RECIPE)
    subprocess.run(command(folder, folder / "whole"), check=True)
    return folder


def test_ten_kills_and_the_same_curve(folder: Path) -> None:
    """SIGKILL at nine moments drawn from a seed and once inside a save; every start but the first resumes."""
    whole, out = folder / "whole", folder / "killed"
    rng = np.random.default_rng(0)
    lines = 0
    for attempt in range(9):
        more = ["--resume"] if attempt else []
        process = subprocess.Popen(command(folder, out, *more))
        target = min(lines + int(rng.integers(0, 3)), 10)
        wait_for(lambda n=target: count(out) >= n and (out / "recipe.json").exists(), process)
        time.sleep(float(rng.uniform(0, 0.3)))
        process.send_signal(signal.SIGKILL)
        process.wait()
        lines = count(out)
    kill_inside_a_save(folder, out)
    subprocess.run(command(folder, out, "--resume"), check=True)
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    mine, theirs = RunFolder(out).summary, RunFolder(whole).summary
    assert mine is not None and theirs is not None
    for key in ("before", "after", "steps", "tokens", "seed"):
        assert mine[key] == theirs[key]
    weights = [(run / "model" / "model.safetensors").read_bytes() for run in (out, whole)]
    assert weights[0] == weights[1]


def kill_inside_a_save(folder: Path, out: Path) -> None:
    """The process kills itself between writing the tensors of a checkpoint and renaming it into place."""
    program = (
        "import os, signal, sys\n"
        "import ludus.train.checkpoint as checkpoint\n"
        "def die(*args):\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
        "checkpoint.os.rename = die\n"
        "from ludus.cli import main\n"
        "main()\n"
    )
    arguments = command(folder, out, "--resume")[3:]
    killed = subprocess.run([sys.executable, "-c", program, *arguments])
    assert killed.returncode == -signal.SIGKILL
    assert list((out / "checkpoints").glob(".*")), "the half-written checkpoint is there"


def count(out: Path) -> int:
    file = out / "metrics.jsonl"
    return file.read_bytes().count(b"\n") if file.exists() else 0


def wait_for(reached: object, process: subprocess.Popen) -> None:
    for _ in range(6000):
        if reached() or process.poll() is not None:  # type: ignore[operator]
            return
        time.sleep(0.01)
    raise AssertionError("the run does not get on")


def test_the_same_seed_gives_the_same_curve_and_another_seed_another(folder: Path) -> None:
    for name, seed in (("again", "0"), ("other", "1")):
        subprocess.run(command(folder, folder / name, "--seed", seed), check=True)
    whole = (folder / "whole/metrics.jsonl").read_bytes()
    assert (folder / "again/metrics.jsonl").read_bytes() == whole
    assert (folder / "other/metrics.jsonl").read_bytes() != whole


def test_more_steps_go_on_and_another_recipe_is_refused(folder: Path) -> None:
    out = folder / "longer"
    subprocess.run(command(folder, out, "--steps", "4"), check=True)
    changed = subprocess.run(
        command(folder, out, "--resume", "--set", "optim.lr=0.1"), capture_output=True, text=True
    )
    assert changed.returncode == 2 and "optim.lr: 0.001 -> 0.1" in changed.stderr
    there = subprocess.run(command(folder, out), capture_output=True, text=True)
    assert there.returncode == 2 and "--resume" in there.stderr
    subprocess.run(command(folder, out, "--resume", "--steps", "6"), check=True)
    rows = RunFolder(out).lines("metrics.jsonl")
    assert [row["step"] for row in rows] == [1, 2, 3, 4, 5, 6]
    whole = RunFolder(folder / "whole").lines("metrics.jsonl")
    assert rows == whole[:6]


def test_metrics_do_not_know_the_clock_and_everything_is_in_the_folder(folder: Path) -> None:
    out = folder / "whole"
    names = {path.name for path in out.iterdir()}
    wanted = {
        "recipe.json",
        "metrics.jsonl",
        "timings.jsonl",
        "trajectories.parquet",
        "checkpoints",
    }
    assert wanted | {"summary.json", "report.html", "model", "tensorboard"} <= names
    keys = set(json.loads((out / "metrics.jsonl").read_text().splitlines()[0]))
    assert not {key for key in keys if "second" in key or "elapsed" in key}
    assert os.path.getsize(out / "report.html") > 10_000
