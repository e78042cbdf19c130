"""The base model for the real crafting book: it can look names of several words up, and has lost the habit.

It never sees the Minecraft book. It plays the books of the *training* goals with all words exchanged, drawn anew for
every game ("iron ingot" may be "cooked diorite", and every other ingot is then some diorite), and generated ones. So
structure, counts, tags and lengths are the real ones, and no name means anything: what is learnt is to read. Half of
the early texts are drills: a book, and then its recipes asked for by name.

What mattered is in docs/base.md.

    python -m ludus.models.minecraft_base       makes it, in about an hour and a half on one core
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import torch
from transformers import PreTrainedModel

from ludus.envs.games import planner
from ludus.envs.games.books import (
    ADJECTIVES,
    NOUNS,
    Generated,
    minecraft,
    minecraft_book,
    recipe_tree,
    vocabulary,
)
from ludus.envs.games.textcraft import Book, Recipe, State, opening
from ludus.models import base, tiny
from ludus.types import Key


@dataclass(frozen=True)
class Mix:
    """What the texts of so many steps are made of.

    games    texts a step
    home     share of books of the first 40 names, each of one word; `made` of books with names drawn anew. The rest
             are renamed books of Minecraft
    several  share of names of two or three words in `made`
    depths   shares of goals of depth 1, 2 and 3
    drill    share of texts that are drills instead of games
    thought  share of turns in which the player thinks
    turns    most turns of a game
    """

    steps: int
    games: int
    home: float
    made: float
    several: float
    depths: tuple[float, float, float]
    drill: float
    turns: int
    thought: float = 0.8


SHALLOW, MIDDLE, DEEP = (1.0, 0.0, 0.0), (0.4, 0.5, 0.1), (0.25, 0.5, 0.25)


@dataclass(frozen=True)
class Phase:
    """Mixes under one schedule of rates, which starts afresh: warm-up over 50 steps, and a fall at the end.

    rate   times the full rates
    decay  share of the steps over which the rates fall to 0
    """

    mixes: tuple[Mix, ...]
    rate: float = 1.0
    decay: float = 0.0


PHASES = (
    Phase(
        (
            Mix(200, 20, 1.0, 0.0, 0.0, SHALLOW, 0.6, 4),
            Mix(200, 20, 0.4, 0.6, 0.0, SHALLOW, 0.6, 4),
            Mix(300, 20, 0.1, 0.6, 0.5, SHALLOW, 0.6, 4),
            Mix(200, 20, 0.1, 0.4, 0.5, MIDDLE, 0.4, 9),
        )
    ),
    Phase(
        (
            Mix(1300, 20, 0.05, 0.35, 0.5, MIDDLE, 0.3, 9),
            Mix(1500, 16, 0.0, 0.15, 0.5, DEEP, 0.15, 12),
        ),
        decay=0.3,
    ),
    Phase((Mix(100, 16, 0.0, 0.0, 0.0, DEEP, 0.0, 12, thought=0.1),), rate=0.2),
)


@dataclass(frozen=True)
class Settings:
    """As `base.Settings`; `spread` is the standard deviation of fresh embeddings.

    Rates: `muon` for matrices, `adam` for norms, `words` for embeddings. Those of a word that is not seen for long
    must not be left behind by the others, so they start large and move slowly.
    """

    size: tiny.Size = dataclasses.field(default_factory=lambda: tiny.Size(128, 4, 4, 2, 32, 384))
    phases: tuple[Phase, ...] = PHASES
    peek: float = 0.3
    shown: float = 0.1
    muon: float = 0.02
    adam: float = 2e-3
    words: float = 1e-3
    spread: float = 0.1
    warmup: int = 50
    seed: int = 1


# ---------------------------------------------------------------------------------------------- books


@cache
def words() -> tuple[str, ...]:
    """Every word of a name of the crafting worlds."""
    book = minecraft_book()
    names = (*book.of, *book.raw, *book.members, *NOUNS, *ADJECTIVES)
    return tuple(sorted({word for name in names for word in name.split()}))


def names(rng: np.random.Generator, several: float, count: int = 40) -> tuple[str, ...]:
    """Different names of one word, or in this share of two or three."""
    if not several:
        return tuple(words()[i] for i in rng.permutation(len(words()))[:count])
    drawn = set[str]()
    while len(drawn) < count:
        length = 1 if rng.random() > several else (2 if rng.random() < 0.75 else 3)
        drawn.add(" ".join(words()[i] for i in rng.integers(len(words()), size=length)))
    return tuple(sorted(drawn))


@cache
def training_goals(depth: int) -> tuple[int, ...]:
    depths = minecraft().depths["train"]
    return tuple(index for index, each in enumerate(depths) if each == depth)


def renamed(state: State, rng: np.random.Generator) -> State | None:
    """The state with every word of its names exchanged; None where two names then clash."""
    recipes = tuple(dict.fromkeys((*recipe_tree(state.book, state.goal), *state.shown)))
    named = {n for r in recipes for n in (r.makes, *(n for n, _ in r.uses), r.tag or r.makes)}
    old = sorted({word for name in named for word in name.split()})
    new = dict(zip(old, rng.permutation(words())[: len(old)], strict=True))

    def name(told: str) -> str:
        return " ".join(new[word] for word in told.split())

    made = {
        r: Recipe(
            name(r.makes),
            r.count,
            tuple((name(n), count) for n, count in r.uses),
            name(r.tag) if r.tag else None,
        )
        for r in recipes
    }
    try:
        book = Book(tuple(made.values()))
    except ValueError:  # a name that is now an item and a tag
        return None
    shown = tuple(made[state.shown[i]] for i in rng.permutation(len(state.shown)))
    return State(name(state.goal), book, shown)


LARGEST = 25  # recipes of a book; the goals of larger ones are left out, they make long texts


def real(rng: np.random.Generator, depths: Sequence[float]) -> State:
    """The start of a training goal of Minecraft, renamed."""
    env = minecraft()
    while True:
        goals = training_goals(int(rng.choice((1, 2, 3), p=depths)))
        state = renamed(env.start("train", int(rng.choice(goals))), rng)
        if (
            state is not None
            and state.book.depth.get(state.goal, 99) <= 4
            and len(state.shown) <= LARGEST
        ):
            return state


def start(mix: Mix, rng: np.random.Generator) -> State:
    kind = rng.random()
    if kind < mix.home:
        others = int(rng.integers(2, 6))
        return Generated((1, 1), (1, 2), 1, others, vocabulary(40), 0).draw(rng, 1)
    if kind < mix.home + mix.made:
        depth = int(rng.choice((1, 2, 3), p=mix.depths))
        drawn = names(rng, mix.several)
        others = int(rng.integers(2, 7))
        return Generated((depth, depth), (1, 2), 6, others, drawn, 0).draw(rng, depth)
    return real(rng, mix.depths)


# ---------------------------------------------------------------------------------------------- texts


def drill(state: State, rng: np.random.Generator, most: int = 10) -> base.Text:
    """The book, and its recipes asked for by name in any order; only what follows the name is learnt."""
    count = Counter(recipe.makes for recipe in state.shown)
    recipes = [recipe for recipe in state.shown if count[recipe.makes] == 1]
    rng.shuffle(recipes)  # type: ignore[arg-type]
    pieces = [base.prompt(opening(state).rpartition("\n\nGoal")[0])]
    for recipe in recipes[:most]:
        asked, told = planner.recall(recipe).split(":", 1)
        pieces += [f"{asked}:", f"{told}\n"]
    return pieces, (0.0, 1.0)


def batch(
    mix: Mix, step: int, settings: Settings, tokenizer: Any
) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Token ids and weights of one step's texts."""
    rng = (Key(settings.seed) / "m" / step).generator()
    texts: list[base.Text] = []
    for _ in range(mix.games):
        state = start(mix, rng)
        if rng.random() < mix.drill:
            texts.append(drill(state, rng))
        else:
            games = {"thought": mix.thought, "turns": mix.turns, "peek": settings.peek}
            texts.append((base.episode(state, rng, **games), (1.0, settings.shown)))
    return base.encode(texts, tokenizer)


# ---------------------------------------------------------------------------------------------- training


def schedule(phase: Phase, warmup: int) -> Iterator[tuple[Mix, float]]:
    """The mix of each step, and its share of the full rates."""
    steps = [mix for mix in phase.mixes for _ in range(mix.steps)]
    for step, mix in enumerate(steps):
        falling = (len(steps) - step) / (phase.decay * len(steps)) if phase.decay else 1.0
        yield mix, phase.rate * min(1.0, (step + 1) / warmup, falling)


def optimisers(model: PreTrainedModel, settings: Settings) -> list[torch.optim.Optimizer]:
    named = list(model.named_parameters())
    embeddings = [p for name, p in named if "embed" in name]
    matrices = [p for name, p in named if p.dim() == 2 and "embed" not in name]
    norms = [p for _, p in named if p.dim() != 2]
    adam = {"betas": (0.9, 0.95), "weight_decay": 0.0, "fused": True}
    return [
        torch.optim.Muon(matrices, lr=settings.muon, momentum=0.95, weight_decay=0.01),
        torch.optim.AdamW(norms, lr=settings.adam, **adam),  # type: ignore[arg-type]
        torch.optim.AdamW(embeddings, lr=settings.words, **adam),  # type: ignore[arg-type]
    ]


def build(settings: Settings | None = None, show: bool = False) -> tuple[PreTrainedModel, Any]:
    """Train the base; deterministic for one number of threads, which is set to 1 here."""
    from rich.progress import Progress

    from ludus.engines.local.model import CausalModel

    settings = settings or Settings()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    tokenizer = tiny.tokenizer()
    model = CausalModel(tiny.model(settings.size, len(tokenizer), settings.seed))
    embedding: Any = model.module.get_input_embeddings()
    fresh = torch.Generator().manual_seed(settings.seed)
    shape = embedding.weight.shape
    embedding.weight.data = torch.randn(shape, generator=fresh) * settings.spread
    try:
        with Progress(disable=not show) as progress:
            for number, phase in enumerate(settings.phases, 1):
                movers = optimisers(model.module, settings)
                full = [mover.param_groups[0]["lr"] for mover in movers]
                task = progress.add_task(f"phase {number}", total=sum(m.steps for m in phase.mixes))
                for step, (mix, share) in enumerate(schedule(phase, settings.warmup)):
                    for mover, lr in zip(movers, full, strict=True):
                        mover.param_groups[0]["lr"] = lr * share
                    loss = base.loss_of(model, *batch(mix, step, settings, tokenizer))
                    loss.backward()
                    torch.nn.utils.clip_grad_norm_(model.module.parameters(), 1.0)
                    for mover in movers:
                        mover.step()
                    model.module.zero_grad()
                    progress.update(task, advance=1, description=f"phase {number} {loss:.3f}")
        return model.module, tokenizer
    finally:
        torch.set_num_threads(threads)


if __name__ == "__main__":
    base.save(*build(show=True), Settings(), base.folder("minecraft"))
