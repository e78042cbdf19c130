"""A base for the memory world under rollouts.summarise: it writes summaries, and has little idea of what to keep.

`WorldBase` plays games of one context. Here each text is one context of a summarised game: the first page with a
summary of some pages, a few more pages, and at the end the next summary or the answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from ludus.envs.memory import ACK, COLOURS, INSTRUCTION, Memory, State
from ludus.envs.world import one_of
from ludus.models import tiny
from ludus.models.world_base import WorldBase
from ludus.types import Key


@dataclass(frozen=True)
class MemoryBase(WorldBase):
    """A summary has one sentence of each page: those of the summary before it, and of each page since the sentence
    that counts in a `share` of the cases, else any. Answers are right in this share where the context tells them.

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
        begin = int(rng.integers(1, len(pages) + 1))  # the first page after the summary
        until = int(rng.integers(begin, min(len(pages), begin + self.span) + 1))
        old = self.kept(pages[1:begin], rng) if begin > 1 else []
        opening = pages[0]
        if old:
            opening += f"\n\n{self.heading}\n{' '.join(old)}"
        shown = [opening, *pages[begin:until]]
        if until == len(pages) and rng.random() < 0.5:
            shown.append(state.question)
            said = self.answer(state, " ".join(shown), rng)
        else:
            shown[-1] += f"\n\n{self.instruction}"
            said = " ".join([*old, *self.kept(pages[begin:until], rng)]) or pages[0]
        told = [f"<|system|>{INSTRUCTION.text}{tiny.END}"]
        for text in shown:
            told[-1] += f"<|user|>{text}{tiny.END}<|assistant|>"
            told += [f"{ACK}{tiny.END}", ""]
        return [*told[:-2], f"{said}{tiny.END}"]

    def kept(self, pages: Sequence[str], rng: np.random.Generator) -> list[str]:
        chosen = []
        for page in pages:
            sentences = [f"{sentence}." for sentence in page.rstrip(".").split(". ")]
            facts = [sentence for sentence in sentences if " keeps " in sentence]
            chosen.append(one_of(rng, facts if rng.random() < self.share else sentences))
        return chosen

    def answer(self, state: State, shown: str, rng: np.random.Generator) -> str:
        name, colour = state.facts[state.asked]
        known = f"{name} keeps {colour}" in shown
        return colour if known and rng.random() < self.share else one_of(rng, COLOURS)
