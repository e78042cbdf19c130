"""A base for the memory world under rollouts.summarise: it writes summaries, and has little idea of what to keep.

`WorldBase` plays games of one context. Here each text is one context of a summarised game: the first page with a
summary of some pages, a few more pages, and at the end the next summary or the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ludus.envs.small.memory import ACK, COLOURS, INSTRUCTION, Memory, State
from ludus.envs.world import one_of
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.types import Key


@dataclass(frozen=True)
class MemoryBase(WorldBase):
    """A summary has the sentences of the summary before it, and of each page since, in a `share` of the cases, what
    counts on it, and else any sentence. Answers are right where the context tells them; half of the texts end in one.

    instruction, heading   as in the recipe's Summarise
    span                   most pages between two summaries
    """

    instruction: str = ""
    heading: str = ""
    span: int = 4

    def __post_init__(self) -> None:
        if not isinstance(self.world, Memory):
            raise ValueError(f"a MemoryBase plays Memory, not {self.world.name}; take a WorldBase")

    def texts(self) -> Iterator[list[list[str]]]:
        world = self.world
        assert isinstance(world, Memory)
        starts = [world.start("train", index) for index in range(world.train)]
        for step in range(self.steps):
            rng = (Key(self.seed) / "memory base" / step).generator()
            yield [self.context(one_of(rng, starts), rng) for _ in range(self.games)]

    def context(self, state: State, rng: np.random.Generator) -> list[str]:
        """Pieces of one context: prompt, said, shown, said ... said."""
        pages = state.pages
        asked = rng.random() < 0.5
        last = len(pages) if asked else int(rng.integers(1, len(pages) + 1))
        begin = int(
            rng.integers(max(1, last - self.span), last + 1)
        )  # the first page after the summary
        old = self.kept(pages[1:begin], rng) if begin > 1 else []
        opening = pages[0]
        if old:
            opening += f"\n\n{self.heading}\n{' '.join(old)}"
        shown = [opening, *pages[begin:last]]
        if asked:
            shown.append(state.question)
            said = self.answer(state, " ".join(shown), rng)
        else:
            shown[-1] += f"\n\n{self.instruction}"
            said = " ".join([*old, *self.kept(pages[begin:last], rng)]) or pages[0]
        told = [f"<|system|>{INSTRUCTION.text}{tiny.END}"]
        for text in shown:
            told[-1] += f"<|user|>{text}{tiny.END}<|assistant|>"
            told += [f"{ACK}{tiny.END}", ""]
        # a word behind a space is one token wherever it stands, and what is to be copied is copied as it is
        return [*told[:-2], f" {said}{tiny.END}"]

    def kept(self, pages: Sequence[str], rng: np.random.Generator) -> list[str]:
        chosen = []
        for page in pages:
            sentences = [f"{sentence}." for sentence in page.rstrip(".").split(". ")]
            facts = [sentence for sentence in sentences if " keeps " in sentence]
            if rng.random() < self.share:
                chosen += facts
            else:
                chosen.append(one_of(rng, sentences))
        return chosen

    def answer(self, state: State, shown: str, rng: np.random.Generator) -> str:
        name, colour = state.facts[state.asked]
        known = f"{name} keeps {colour}" in shown
        return colour if known else one_of(rng, COLOURS)
