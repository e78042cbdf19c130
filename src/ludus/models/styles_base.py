"""A base that writes in two styles, half and half: what model surgery is shown on."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ludus.data.two_styles import TwoStyles
from ludus.models import base, from_texts, tiny
from ludus.models.from_texts import Rates
from ludus.types import Key


@dataclass(frozen=True)
class StylesBase:
    """Made anew for each seed of a run, from texts of its own. A model of Qwen3's architecture with 768 gate rows."""

    styles: TwoStyles = field(default_factory=TwoStyles)
    texts: int = 16
    rates: Rates = field(default_factory=lambda: Rates(150, muon=0.0))
    size: tiny.Size = field(default_factory=lambda: tiny.Size(64, 3, 4, 2, 16, 256))

    def folder(self, seed: int = 0) -> Path:
        def build():
            words, title = self.styles.words(), f"base of two styles, seed {seed}"
            return from_texts.trained(
                self.size, words, self.batches(seed), self.rates, seed, title=title
            )

        name = f"{from_texts.fingerprint(self, TwoStyles)}-{seed}"
        return from_texts.kept(name, dataclasses.asdict(self), build)

    def batches(self, seed: int) -> Iterator[list[base.Text]]:
        for step in range(self.rates.steps):
            rng = (Key(seed) / "styles base" / step).generator()
            yield [self.text(rng) for _ in range(self.texts)]

    def text(self, rng) -> base.Text:
        prompt = "".join(f"<|{m.role}|>{m.text}{tiny.END}" for m in self.styles.prompt(rng))
        return [f"{prompt}<|assistant|>", f"{self.styles.text(rng)}{tiny.END}"], (1.0, 0.0)
