"""A base that learns in context: from shots of a code it has never seen, it tells the output of one more input.

Trained from random weights on prompts in the benchmark's own format, on codes of the train split. Meant to help:

    known     only symbols count whose input was shown before: the others can only be guessed
    copying   in most functions some symbols stay as they are, which tells the input's symbol to where it is asked for
    binding   in a fifth of the steps each output symbol is followed by what it stands for ("a7" -> "ca37" for "c3"),
              which tells it to where it is looked up
    stages    few symbols and few shots first, without the instruction: attention that looks everywhere finds a symbol
              among a hundred tokens, not among three hundred
    family    Llama's: normalised queries and keys, as Qwen3 has them, bound how sharp attention is

It learns to look digits up, and to copy letters. Exchanged letters it did not learn to look up; in the codes of the
study (ludus.evals.mir_bench.codes) letters stay as they are.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from transformers import LlamaConfig

from ludus.envs.world import listed, one_of, side
from ludus.evals.mir_bench import codes
from ludus.evals.mir_bench.functions import Function
from ludus.evals.mir_bench.prompts import DIRECT, prompt
from ludus.models import base, from_texts, tiny
from ludus.models.from_texts import Rates
from ludus.types import Key


class Stage(NamedTuple):
    """So many steps of about `tokens` tokens, on functions of `shots` shots in which `kinds` letters and digits occur.

    shots, kinds  one of these, drawn anew for each step
    whole         with the benchmark's instruction before the shots
    """

    steps: int
    shots: tuple[int, ...]
    kinds: tuple[int, ...]
    tokens: int
    whole: bool = False


STAGES = (
    Stage(450, (8, 12, 16), (2, 3, 4), 2200),
    Stage(350, (8, 16, 24, 32), (3, 4, 5, 6, 7, 8), 2200),
    Stage(700, (8, 16, 32, 48), (4, 6, 8, 10), 3200, whole=True),
)


@dataclass(frozen=True)
class ShotsBase:
    """Made anew for each seed of a run.

    bound      share of the steps in which outputs are told with what they stand for
    context    tokens; the tiny models' own are too few for 1024 shots
    rates      for the steps of all stages together
    """

    stages: tuple[Stage, ...] = STAGES
    bound: float = 0.2
    context: int = 16_384
    rates: Rates = field(default_factory=lambda: Rates(1500, adam=2e-3, decay=0.3))
    size: tiny.Size = field(default_factory=lambda: tiny.Size(64, 2, 4, 4, 16, 64))

    def __post_init__(self) -> None:
        if self.rates.steps != (steps := sum(stage.steps for stage in self.stages)):
            raise ValueError(f"the stages have {steps} steps and the rates {self.rates.steps}")

    def folder(self, seed: int = 0) -> Path:
        def build():
            words, title = listed(prompt((), "", DIRECT)), f"base of shots, seed {seed}"
            model, tokenizer = from_texts.trained(
                *(self.size, words, self.batches(seed), self.rates, seed),
                family=LlamaConfig,
                title=title,
            )
            model.config.max_position_embeddings = self.context
            tokenizer.model_max_length = self.context
            return model, tokenizer

        name = f"{from_texts.fingerprint(self, codes.Codes)}-{seed}"
        return from_texts.kept(name, dataclasses.asdict(self), build)

    def batches(self, seed: int) -> Iterator[list[base.Text]]:
        steps = [stage for stage in self.stages for _ in range(stage.steps)]
        for step, stage in enumerate(steps):
            rng = (Key(seed) / "shots base" / step).generator()
            shots, kinds = one_of(rng, stage.shots), one_of(rng, stage.kinds)
            count = stage.tokens // (10 * shots + (60 if stage.whole else 12))
            how = {"bound": rng.random() < self.bound, "whole": stage.whole}
            yield [self.text(rng, shots, kinds, **how) for _ in range(count)]

    def text(
        self, rng: np.random.Generator, shots: int, kinds: int, *, bound: bool, whole: bool = True
    ) -> base.Text:
        """A prompt about one function, and the answer; an output symbol counts if its input was shown before."""
        function = self.function(rng)
        some = [rng.permutation(10)[:kinds] for _ in range(2)]
        inputs = [
            codes.LETTERS[one_of(rng, some[0].tolist())]
            + codes.DIGITS[one_of(rng, some[1].tolist())]
            for _ in range(shots + 1)
        ]
        instruction = prompt((), "", DIRECT).removesuffix("Input:") if whole else ""
        pieces = [f"<|user|>{instruction}"]
        known: set[str] = set()

        def put(text: str, counts: bool) -> None:
            if counts == (len(pieces) % 2 == 0):
                pieces[-1] += text
            else:
                pieces.append(text)

        def put_output(x: str) -> None:
            for output, symbol in zip(function(x), x, strict=True):
                put(output, symbol in known)
                if bound:
                    put(symbol, True)
                known.add(symbol)

        for x in inputs[:-1]:
            put(f"Input:{x}\nOutput:", False)
            put_output(x)
            put("\n", False)
        put(f"Input:{inputs[-1]}{tiny.END}<|assistant|>", False)
        put("Output:", True)
        put_output(inputs[-1])
        put(tiny.END, True)
        return pieces, (1.0, 0.0)

    def function(self, rng: np.random.Generator) -> Function:
        """Of the train split; a letter or a digit is exchanged in some, or in all of its kind."""
        while True:
            moved = [10 if rng.random() < 0.4 else int(rng.integers(11)) for _ in range(2)]
            tables = [
                codes.table(symbols, count, rng)
                for symbols, count in zip((codes.LETTERS, codes.DIGITS), moved, strict=True)
            ]
            function = codes.code(*tables)
            if side(function.name) == "train":
                return function
