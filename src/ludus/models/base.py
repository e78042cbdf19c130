"""The base model of the small world: a tiny transformer that can act but does not win.

It is trained from random weights on generated play of TextCraft, by a player who sometimes thinks before it acts
(`planner.reason`: one look-up a line) and otherwise does not: a random legal action, or a look at the inventory.
First it sees much thought, so that it learns to look recipes up in its context; then little, so that it falls into
the habit of not thinking. What is left for reinforcement learning is what is left for it in the papers: to find out
that thinking pays.

No task of `generated()` or `minecraft()` is trained on: the books are drawn with other seeds, and the real book not
at all. How the settings were chosen is in docs/base.md.

    python -m ludus.models.base         makes it; the same to the last digit for one machine, code and versions
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ludus.envs.games import books, planner, textcraft
from ludus.envs.games.books import generated
from ludus.envs.games.textcraft import State, TextCraft, act, opening
from ludus.models import tiny
from ludus.types import Key

SHIPPED = ("textcraft", "minecraft")


def folder(name: str) -> Path:
    """Where a shipped base lies: a transformers folder inside the package."""
    if name not in SHIPPED:
        raise FileNotFoundError(f"no base is called {name!r}; shipped: {', '.join(SHIPPED)}")
    return Path(__file__).parent / "shipped" / name


@dataclass(frozen=True)
class Stage:
    """So many steps of games in which the player thinks in this share of its turns."""

    steps: int
    thought: float


@dataclass(frozen=True)
class Settings:
    """Everything that a base depends on, besides the code and the versions (see `fingerprint`).

    peek     share of thoughtless turns that look at the inventory
    deeper   share of books with goals of depth 2
    shown    weight of a token that the environment answers, against one of the player's
    muon     rate of Muon, for the matrices of the body; `adam` that of AdamW, for embeddings and norms. With AdamW
             alone, looking up took about three times as many steps to appear
    decay    share of the steps, at the end, over which the rates fall to 0
    """

    size: tiny.Size = dataclasses.field(default_factory=lambda: tiny.Size(96, 4, 4, 2, 24, 288))
    stages: tuple[Stage, ...] = (Stage(1400, 0.7), Stage(80, 0.1))
    episodes: int = 32
    turns: int = 6
    peek: float = 0.3
    deeper: float = 0.15
    shown: float = 0.1
    muon: float = 0.02
    adam: float = 2e-3
    warmup: int = 50
    decay: float = 0.35
    seed: int = 1


def fingerprint(settings: Settings) -> str:
    """A hash of all that determines the weights: settings, the code that makes the play, versions."""
    code = [Path(m.__file__ or "").read_bytes() for m in (books, planner, textcraft, tiny)]
    code.append(Path(__file__).read_bytes())
    told = json.dumps([asdict(settings), used()], sort_keys=True).encode()
    return hashlib.sha256(b"".join([told, *code])).hexdigest()[:16]


def used() -> dict[str, str]:
    return {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}


def worlds(settings: Settings) -> tuple[TextCraft, TextCraft]:
    """Books of depth 1, and of depth 1 and 2, of seeds that no recipe uses."""
    count = settings.episodes * sum(stage.steps for stage in settings.stages)
    plain = generated((1, 1), train=count, test=1, seed=settings.seed + 1_000_000)
    deeper = generated((1, 2), train=count, test=1, seed=settings.seed + 2_000_000)
    return plain, deeper


def prompt(told: str) -> str:
    """The conversation up to the player's first word."""
    system = f"<|system|>{textcraft.INSTRUCTION.text}{tiny.END}"
    return f"{system}<|user|>{told}{tiny.END}<|assistant|>"


def episode(
    state: State, rng: np.random.Generator, *, thought: float, turns: int, peek: float
) -> list[str]:
    """One game as pieces of text: prompt, said, shown, said, shown, ... said."""
    pieces = [prompt(opening(state))]
    for _ in range(turns):
        if rng.random() < thought:
            lines, action = planner.reason(state)
            said = f"{lines}\nAction: {action}"
        else:
            choices = planner.legal(state)
            peeks = rng.random() < peek
            action = "inventory" if peeks else choices[rng.integers(len(choices))]
            said = f"Action: {action}"
        inventory, shown = act(state, action)
        state = dataclasses.replace(state, inventory=inventory)
        pieces += [said + tiny.END, f"<|user|>{shown}{tiny.END}<|assistant|>"]
        if state.solved:
            break
    return pieces[:-1]


def batches(
    settings: Settings, tokenizer: Any
) -> Iterator[tuple[list[np.ndarray], list[np.ndarray]]]:
    """For each step, the token ids of its texts and the weight of each token: 0 in a prompt."""
    plain, deeper = worlds(settings)
    step = 0
    for stage in settings.stages:
        for _ in range(stage.steps):
            rng = (Key(settings.seed) / "base" / step).generator()
            texts = []
            for i in range(settings.episodes):
                world = deeper if rng.random() < settings.deeper else plain
                state = world.start("train", step * settings.episodes + i)
                games = {"turns": settings.turns, "peek": settings.peek}
                texts.append(episode(state, rng, thought=stage.thought, **games))
            yield encode([(pieces, (1.0, settings.shown)) for pieces in texts], tokenizer)
            step += 1


Text = tuple[list[str], tuple[float, float]]
"""Pieces of text: a prompt, then two kinds in turn, and what a token of each kind weighs."""


def encode(texts: Sequence[Text], tokenizer: Any) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Of each text the token ids, and what each token weighs in the loss: 0 in the prompt."""
    flat = [piece for pieces, _ in texts for piece in pieces]
    encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
    ids, weights = [], []
    for pieces, worth in texts:
        parts = [np.array(next(encoded), np.int64) for _ in pieces]
        each = [0.0, *(worth[(i + 1) % 2] for i in range(1, len(parts)))]
        ids.append(np.concatenate(parts))
        weights.append(np.repeat(each, [len(part) for part in parts]).astype(np.float32))
    return ids, weights


def loss_of(model: Any, ids: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> Tensor:
    """Weighted mean of the negative log-probability of each token, given those before it in its text."""
    from ludus.engines.local.attention import Tree
    from ludus.engines.local.tree import pack

    packed = pack(ids)
    hidden = model.hidden(
        torch.from_numpy(packed.ids)[None],
        torch.from_numpy(packed.positions)[None],
        Tree(packed.segments, torch.device("cpu")),
    )
    before = np.concatenate([index[:-1] for index in packed.index])
    target = np.concatenate([row[1:] for row in ids])
    weight = np.concatenate([row[1:] for row in weights])
    counts = weight > 0
    logp, _ = model.logp(hidden[torch.from_numpy(before[counts])], torch.from_numpy(target[counts]))
    return -(logp * torch.from_numpy(weight[counts] / weight.sum())).sum()


def optimisers(model: PreTrainedModel, settings: Settings) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the body, AdamW for the rest."""
    inside, rest = [], []
    for name, parameter in model.named_parameters():
        (inside if parameter.dim() == 2 and "embed" not in name else rest).append(parameter)
    return [
        torch.optim.Muon(inside, lr=settings.muon, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(rest, lr=settings.adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True),
    ]


def share(settings: Settings, step: int) -> float:
    """Of the full rates, at a step counted from 0: a linear warm-up, a plateau, a linear fall."""
    steps = sum(stage.steps for stage in settings.stages)
    return min(1.0, (step + 1) / settings.warmup, (steps - step) / (settings.decay * steps))


def build(settings: Settings | None = None, show: bool = False) -> tuple[PreTrainedModel, Any]:
    """Train a base; deterministic for one number of threads, which is set to 1 here."""
    from rich.progress import track

    from ludus.engines.local.model import CausalModel

    settings = settings or Settings()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tokenizer = tiny.tokenizer()
        model = CausalModel(tiny.model(settings.size, len(tokenizer), settings.seed))
        movers = optimisers(model.module, settings)
        full = [mover.param_groups[0]["lr"] for mover in movers]
        steps = sum(stage.steps for stage in settings.stages)
        work = track(batches(settings, tokenizer), "base", steps, disable=not show)
        for step, (ids, weights) in enumerate(work):
            for mover, lr in zip(movers, full, strict=True):
                mover.param_groups[0]["lr"] = lr * share(settings, step)
            loss_of(model, ids, weights).backward()
            torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
            for mover in movers:
                mover.step()
            model.module.zero_grad()
        return model.module, tokenizer
    finally:
        torch.set_num_threads(threads)


def cached(settings: Settings) -> Path:
    """The folder of the base with these settings; built where it is not there yet (LUDUS_CACHE, ~/.cache/ludus)."""
    parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "bases"
    where = parent / fingerprint(settings)
    if not where.exists():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as temporary:
            made = Path(temporary) / "base"
            save(*build(settings, show=True), settings, made)
            made.rename(where)
    return where


def save(model: PreTrainedModel, tokenizer: Any, settings: Any, where: Path) -> None:
    """A transformers folder, its weights in bfloat16 to halve their size, with what it was made of beside it."""
    where.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(where)  # type: ignore[arg-type]
    tokenizer.save_pretrained(where)
    told = {"settings": asdict(settings), "versions": used()}
    (where / "base.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    chosen = Settings()
    made, words = build(chosen, show=True)
    save(made, words, chosen, folder("textcraft"))
