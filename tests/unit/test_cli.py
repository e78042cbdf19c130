"""The command line as a person types it: help that teaches, errors that say what to type."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM

from ludus.cli import Eval, Run, chosen
from ludus.curricula.horizon import fixed, staged
from ludus.recipes.agents import agentgym_rl
from ludus.rollouts.settings import at_temperature, samplings
from ludus.train.folder import FolderError
from ludus.train.override import OverrideError, override
from ludus.train.recipe import RecipeError, check, describe

CHATML = (
    "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] "
    "+ '<|im_end|>' + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)


def ludus(*words: str, **how: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "ludus.cli", *words]
    return subprocess.run(command, capture_output=True, text=True, **how)  # type: ignore[call-overload]


def test_help_teaches() -> None:
    told = ludus("run", "--help").stdout
    for word in ("ludus run agentgym-rl", "--resume", "--set", "FIELD=VALUE"):
        assert word in told
    assert all(
        name in ludus("--help").stdout for name in ("list", "run", "eval", "replicate", "bench")
    )


def test_list_shows_every_recipe() -> None:
    rows = [json.loads(line) for line in ludus("list", "--json").stdout.splitlines()]
    ids = {row["id"]: row for row in rows}
    assert "arXiv:2509.08755" in ids["agentgym-rl"]["title"]
    assert "agentgym-rl" in ludus("list", "--family", "agents").stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("run", "agentgym"), "did you mean agentgym-rl"),
        (("run", "nowhere.py"), "there is no file nowhere.py"),
        (("run", "agentgym-rl", "--variant", "ppoo"), "it has recipe, ppo, rloo"),
        (("run", "agentgym-rl", "--set", "anwsers=4"), "did you mean answers?"),
        (
            ("run", "agentgym-rl", "--set", "answers=many"),
            "that is str, and answers is int (now 8)",
        ),
        (("run", "agentgym-rl", "--set", "answers"), "give field=value"),
        (("run", "agentgym-rl", "--set", "answers=1"), "compares the answers of a group"),
        (("run", "agentgym-rl", "--set", "horizon.limits=[0]"), "each must be at least 1"),
        (("run", "agentgym-rl", "--set", "loss=dpo"), "change it in a recipe file"),
        (("run", "agentgym-rl", "--variant", "ppo", "--set", "critic=False"), "no critic"),
        (("eval",), "give a run folder or --model"),
    ],
)
def test_mistakes_are_explained(words: tuple[str, ...], told: str, tmp_path: Path) -> None:
    out = ("--out", str(tmp_path / "run")) if words[0] == "run" else ()
    done = ludus(*words, *out)
    assert done.returncode != 0
    said = " ".join((done.stderr + done.stdout).split())
    assert told in said and "Traceback" not in said


def test_a_model_folder_without_a_tokenizer_or_without_a_model(tmp_path: Path) -> None:
    from tests.helpers import tiny_model

    tiny_model().save_pretrained(tmp_path / "model")
    done = ludus(
        "run", "agentgym-rl", "--model", str(tmp_path / "model"), "--out", str(tmp_path / "a")
    )
    said = " ".join(done.stderr.split())
    assert done.returncode == 2 and "no tokenizer" in said and "save_pretrained" in said
    (tmp_path / "empty").mkdir()
    done = ludus(
        "run", "agentgym-rl", "--model", str(tmp_path / "empty"), "--out", str(tmp_path / "b")
    )
    assert done.returncode == 2 and "no config.json" in " ".join(done.stderr.split())


def test_a_qwen_checkpoint_with_a_bpe_tokenizer_and_chatml_runs_as_it_is(tmp_path: Path) -> None:
    """Another architecture, vocabulary and template than the small world's; then evaluated from its run folder."""
    folder = qwen(tmp_path / "qwen")
    small = (
        "--set tasks=2 --set answers=2 --set evaluation.tasks=4 --set horizon.limits=[2]".split()
    )
    done = ludus(
        *(
            "run",
            "agentgym-rl",
            "--model",
            str(folder),
            "--steps",
            "2",
            "--out",
            str(tmp_path / "run"),
        ),
        *(*small, "--set", "strategy.sampling.max_tokens=8"),
    )
    assert done.returncode == 0, done.stderr
    assert "What to try next" in done.stdout and (tmp_path / "run/report.html").exists()
    summary = json.loads((tmp_path / "run/summary.json").read_text())
    assert summary["steps"] == 2 and summary["tokens"] > 0
    told = ludus(
        "eval", str(tmp_path / "run"), "--tasks", "4", "--answers", "2", "--k", "1", "2", "--json"
    )
    assert told.returncode == 0, told.stderr
    measures = json.loads(told.stdout)["measures"]
    assert {"success", "avg@2", "pass@1", "pass@2"} <= set(measures)


def qwen(folder: Path) -> Path:
    """A Qwen2 checkpoint of 0.2 M parameters, a byte-level BPE tokenizer learnt here, and the ChatML template."""
    text = [
        message.text
        for task in agentgym_rl.recipe.env.tasks("train")[:1]
        for message in task.prompt
    ]
    backend = Tokenizer(models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    backend.train_from_iterator(
        text * 3,
        trainers.BpeTrainer(vocab_size=400, special_tokens=special, initial_alphabet=alphabet),
    )
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=backend, eos_token="<|im_end|>", pad_token="<|endoftext|>"
    )
    tokenizer.chat_template = CHATML
    config = Qwen2Config(
        vocab_size=len(tokenizer),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        max_position_embeddings=2048,
    )
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_override_reaches_nested_fields_and_keeps_their_kind() -> None:
    recipe = agentgym_rl.recipe
    assert override(recipe, "optim.lr=1").optim.lr == 1.0
    assert override(recipe, "evaluation.tasks=7").evaluation.tasks == 7
    assert override(recipe, "horizon.limits=[3, 4]").horizon == staged([3, 4], every=20)  # type: ignore[attr-defined]
    assert override(recipe, "model=elsewhere").model == "elsewhere"
    with pytest.raises(OverrideError, match="has no field 'lrr'; did you mean lr"):
        override(recipe, "optim.lrr=1")


def test_pieces_that_cannot_go_together_are_named() -> None:
    recipe = agentgym_rl.recipe
    for change, told in (
        ({"answers": 1}, "two or more"),
        ({"credit": agentgym_rl.ppo.credit}, "critic=True"),
        ({"kl": agentgym_rl.paper.kl}, "reference=True"),
        ({"credit": agentgym_rl.remax.credit, "strategy": print}, "greedy twin"),
        ({"steps": 0}, "at least 1"),
    ):
        with pytest.raises(RecipeError, match=told):
            check(replace(recipe, **change))  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="0"):
        fixed(0)


def test_a_recipe_is_described_as_plain_json() -> None:
    told = json.loads(json.dumps(describe(agentgym_rl.paper)))
    assert told["optim"]["lr"] == 1e-6 and told["horizon"]["limits"] == [10, 20, 30]
    assert told["loss"] == {"is": "clipped_ratio", "low": 0.2, "high": 0.2}


def test_none_and_numbers_do_not_stand_where_a_piece_or_a_number_should() -> None:
    recipe = agentgym_rl.recipe
    for change in ("answers=none", "kl=0.1", "budget=100", "reward=x", "critic=none"):
        with pytest.raises(OverrideError, match=f"--set {change}: "):
            override(recipe, change)
    assert override(recipe, "kl=none").kl is None


@pytest.mark.parametrize("change", ["tasks=0", "answers=0", "max_turns=0", "every=-1"])
def test_an_evaluation_of_nothing_is_refused_at_the_start(change: str) -> None:
    with pytest.raises(RecipeError, match=rf"evaluation.{change}; give at least"):
        check(override(agentgym_rl.recipe, f"evaluation.{change}"))


def test_a_variant_may_be_an_arm() -> None:
    assert describe(chosen("agentgym-rl", "fixed long")) == describe(agentgym_rl.arms["fixed long"])


def test_the_temperature_reaches_what_a_strategy_wraps() -> None:
    from ludus.recipes.agents import igpo

    before = list(samplings(igpo.recipe.strategy))
    after = list(samplings(at_temperature(igpo.recipe.strategy, 0.25)))
    assert before and after == [replace(each, temperature=0.25) for each in before]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"answers": 0}, "--answers 0; give at least 1"),
        ({"turns": 0}, "--turns 0; give at least 1"),
        ({"tasks": -3}, "--tasks -3; give at least 0"),
        ({"temperature": -1.0}, "--temperature -1.0; give at least 0"),
        ({"k": (0,)}, "give k from 1 to 8"),
        ({"k": (16,)}, "or --answers 16"),
        ({}, "has no recipe.json"),
    ],
)
def test_eval_refuses_what_cannot_be_measured(
    asked: dict[str, Any], told: str, tmp_path: Path
) -> None:
    with pytest.raises((SystemExit, FolderError), match=told):
        Eval(run=tmp_path, **asked)()


def test_the_next_command_is_the_run_that_was_made() -> None:
    made = Run("agentgym-rl", variant="ppo", steps=2, seed=3, set=("optim.lr=1e-3",))
    assert (
        " ".join(made.typed())
        == "ludus run agentgym-rl --variant ppo --steps 2 --set optim.lr=1e-3"
    )
