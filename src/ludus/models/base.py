"""The base model of the small world: a tiny transformer that can act but does not win.

It is trained from random weights on generated play of TextCraft, by a player who sometimes thinks before it acts
(`planner.reason`: one look-up a line) and otherwise acts without thinking: a random legal action, or a look at the
inventory. First it sees much thought, so that it learns to look recipes up in its context; then little, so that it
falls into the habit of not thinking. What is left for reinforcement learning is what it is for the large models of
the papers: to find out that thinking pays.

No task of `generated()` or `minecraft()` is trained on: the books are drawn with other seeds, and the real book not
at all. How the settings were chosen is in docs/base.md.

    python -m ludus.models.base         makes the shipped base again, to the last digit (same machine and versions)
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ludus.envs import books, planner, textcraft
from ludus.envs.books import generated
from ludus.envs.textcraft import State, TextCraft, act, opening
from ludus.models import tiny
from ludus.types import Key

SHIPPED = ("textcraft",)


def folder(name: str) -> Path:
    """Where a shipped base lies: a transformers folder inside the package."""
    if name not in SHIPPED:
        raise FileNotFoundError(f"no base is called {name!r}; shipped: {', '.join(SHIPPED)}")
    return Path(__file__).parent / "shipped" / name


@dataclass(frozen=True)
class Stage:
    """So many steps. In a drill every command of a book is asked for; else a player thinks in a share of its turns."""

    steps: int
    thought: float = 1.0
    drill: bool = False


@dataclass(frozen=True)
class Settings:
    """Everything that a base depends on, besides the code and the versions (see `fingerprint`).

    peek     share of thoughtless turns that look at the inventory
    wide     share of larger books (three ingredients, counts, depth 3, names of two words), for the sake of the real one
    shown    weight of a token that the environment answers, against one of the player's
    """

    size: tiny.Size = dataclasses.field(default_factory=lambda: tiny.Size(96, 4, 4, 2, 24, 288))
    stages: tuple[Stage, ...] = (Stage(500, drill=True), Stage(500, 0.7), Stage(100, 0.1))
    episodes: int = 40
    turns: int = 8
    peek: float = 0.3
    wide: float = 0.2
    shown: float = 0.1
    lr: float = 4e-3
    warmup: int = 50
    seed: int = 1


def fingerprint(settings: Settings) -> str:
    """A hash of all that determines the weights: settings, the code that makes the play, versions."""
    code = [Path(m.__file__ or "").read_bytes() for m in (books, planner, textcraft, tiny)]
    code.append(Path(__file__).read_bytes())
    uses = {name: version(name) for name in ("torch", "transformers", "tokenizers", "numpy")}
    told = json.dumps([asdict(settings), uses], sort_keys=True).encode()
    return hashlib.sha256(b"".join([told, *code])).hexdigest()[:16]


def worlds(settings: Settings) -> tuple[TextCraft, TextCraft]:
    """The default books and the larger ones, of seeds that no recipe uses."""
    steps = sum(stage.steps for stage in settings.stages)
    count = steps * settings.episodes
    default = generated(train=count, test=1, seed=settings.seed + 1_000_000)
    wide = generated(
        (1, 3),
        (1, 3),
        counts=4,
        distractors=6,
        names=80,
        train=count,
        test=1,
        seed=settings.seed + 2_000_000,
    )
    return default, wide


def prompt(told: str) -> str:
    """The conversation up to the player's first word."""
    system = f"<|system|>{textcraft.INSTRUCTION.text}{tiny.END}"
    return f"{system}<|user|>{told}{tiny.END}<|assistant|>"


def drill(state: State, rng: np.random.Generator) -> list[str]:
    """All commands of a book, said in the words of a thought and in another order."""
    told = opening(state).rpartition("Goal:")[0] + "List the commands."
    lines = [planner.recall(state.shown[i]) for i in rng.permutation(len(state.shown))]
    return [prompt(told), "\n".join(lines) + tiny.END]


def episode(
    state: State, thought: float, settings: Settings, rng: np.random.Generator
) -> list[str]:
    """One game as pieces of text: prompt, said, shown, said, shown, ... said."""
    pieces = [prompt(opening(state))]
    for _ in range(settings.turns):
        if rng.random() < thought:
            lines, action = planner.reason(state)
            said = f"{lines}\nAction: {action}"
        else:
            choices = planner.legal(state)
            peek = rng.random() < settings.peek
            action = "inventory" if peek else choices[rng.integers(len(choices))]
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
    default, wide = worlds(settings)
    step = 0
    for stage in settings.stages:
        for _ in range(stage.steps):
            rng = (Key(settings.seed) / "base" / step).generator()
            texts = []
            for i in range(settings.episodes):
                world = wide if rng.random() < settings.wide else default
                state = world.start("train", step * settings.episodes + i)
                made = (
                    drill(state, rng)
                    if stage.drill
                    else episode(state, stage.thought, settings, rng)
                )
                texts.append(made)
            flat = [piece for pieces in texts for piece in pieces]
            encoded = iter(tokenizer(flat, add_special_tokens=False)["input_ids"])
            ids, weights = [], []
            for pieces in texts:
                parts = [np.array(next(encoded), np.int64) for _ in pieces]
                worth = [0.0, *(1.0 if i % 2 else settings.shown for i in range(1, len(parts)))]
                ids.append(np.concatenate(parts))
                weights.append(np.repeat(worth, [len(part) for part in parts]).astype(np.float32))
            yield ids, weights
            step += 1


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


def rate(settings: Settings, step: int) -> float:
    """Linear warm-up, then a cosine to a twentieth over all stages."""
    steps = sum(stage.steps for stage in settings.stages)
    risen = min(1.0, (step + 1) / settings.warmup)
    fallen = 0.05 + 0.95 * 0.5 * (1 + np.cos(np.pi * step / steps))
    return settings.lr * risen * float(fallen)


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
        adam = torch.optim.AdamW(
            model.module.parameters(),
            lr=settings.lr,
            betas=(0.9, 0.98),
            weight_decay=0.01,
            fused=True,
        )
        steps = sum(stage.steps for stage in settings.stages)
        work = track(batches(settings, tokenizer), "base", steps, disable=not show)
        for step, (ids, weights) in enumerate(work):
            for group in adam.param_groups:
                group["lr"] = rate(settings, step)
            loss_of(model, ids, weights).backward()
            torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
            adam.step()
            adam.zero_grad()
        return model.module, tokenizer
    finally:
        torch.set_num_threads(threads)


def save(model: PreTrainedModel, tokenizer: Any, settings: Settings, where: Path) -> None:
    """A transformers folder, its weights in bfloat16 to halve their size, with what it was made of beside it."""
    where.mkdir(parents=True, exist_ok=True)
    model.to(torch.bfloat16).save_pretrained(where)  # type: ignore[arg-type]
    tokenizer.save_pretrained(where)
    told = {"fingerprint": fingerprint(settings), "settings": asdict(settings)}
    (where / "base.json").write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    chosen = Settings()
    made, words = build(chosen, show=True)
    save(made, words, chosen, folder("textcraft"))
