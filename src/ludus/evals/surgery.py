"""What an edit of gate rows does to a model: how often it behaves, and what clean text costs it.

The model is probed, edited, written to disk and loaded again; what is sampled is sampled from the folder.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch

from ludus.data.two_styles import TwoStyles, bad_share, styled_share
from ludus.engines.local.build import open_model
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.sampler import LocalSampler
from ludus.models import surgery
from ludus.models.styles_base import StylesBase
from ludus.models.surgery import Which
from ludus.rollouts.forced import encode
from ludus.rollouts.given import Given
from ludus.rollouts.single_turn import SingleTurn
from ludus.train.recipe import Made
from ludus.train.study import Track
from ludus.types import Key, Request, Sampling, Task


@dataclass(frozen=True)
class Surgery:
    """Edits of a model, each measured beside the model as it was.

    rows     which rows move; `share` of all gate rows, and by how much: `alphas` times the direction at length 1
    draws    how often random rows are drawn anew; measures are means over them
    probed   labelled texts of each style that the probe learns from, and half as many that it is tested on
    samples  answers sampled, and clean texts scored, per measure
    """

    rows: Which = "opposed"
    model: str | Made = field(default_factory=StylesBase)
    styles: TwoStyles = field(default_factory=TwoStyles)
    alphas: tuple[float, ...] = (4.0, 8.0)
    share: float = 0.046
    draws: int = 1
    probed: int = 200
    samples: int = 256
    max_tokens: int = 40

    def measure(self, seed: int, folder: Path, track: Track) -> dict[str, float]:
        """How well the probe reads: "probe/good", "probe/bad"; then NAME/alpha A, for 0 too, of what `behave` tells."""
        key = Key(seed, ("surgery",))
        model, renderer = open_model(self.model, seed=seed)
        direction, told = self.probe(model, renderer, key / "probe")
        count = round(self.share * sum(map(len, surgery.gates(model.module).values())))
        where = folder / "edited"
        found: dict[str, list[dict[str, float]]] = {"0": []}
        jobs = [(0.0, 0), *((alpha, draw) for alpha in self.alphas for draw in range(self.draws))]
        for alpha, draw in track(jobs, f"{self.rows} rows"):
            rng = (key / "rows" / draw).generator()
            weights = surgery.gates(model.module)
            edit = surgery.plan(
                weights, direction, alpha=alpha, count=count, which=self.rows, rng=rng
            )
            surgery.apply(model.module, edit)
            model.save(where)
            renderer.tokenizer.save_pretrained(where)
            edit.save(where)
            surgery.undo(model.module, edit)
            found.setdefault(f"{alpha:g}", []).append(self.behave(where, key / "samples"))
            if alpha != self.alphas[-1]:
                shutil.rmtree(where)  # the last one stays, to be looked at
        for alpha, each in found.items():
            for name in each[0]:
                told[f"{name}/alpha {alpha}"] = float(np.mean([one[name] for one in each]))
        return told

    def probe(self, model, renderer, key: Key) -> tuple[torch.Tensor, dict[str, float]]:
        """The direction of the unwanted style, and how well held-out texts of each style are told apart."""
        rng = key.generator()
        parts = []
        for count in (self.probed, self.probed // 2):
            label = torch.arange(2 * count) % 2
            texts = [self.styles.text(rng, 1 if bad else 0) for bad in label.tolist()]
            feature = surgery.features(model, [encode(renderer, text) for text in texts])
            parts.append((feature.cpu(), label))
        probe = surgery.fit_probe(*parts[0])
        good, bad = probe.accuracy(*parts[1])
        return probe.direction(), {"probe/good": good, "probe/bad": bad}

    def behave(self, where: Path, key: Key) -> dict[str, float]:
        """Measured on the model in this folder."""
        model, renderer = open_model(where)
        engine = LocalEngine(LocalSampler(model, renderer))
        rng = (key / "prompts").generator()
        tasks = [
            Task(str(n), self.styles.prompt(rng), answer=self.styles.text(rng, 0))
            for n in range(self.samples)
        ]
        requests = [Request(task, answers=1, max_turns=1) for task in tasks]
        said = engine.collect(SingleTurn(Sampling(max_tokens=self.max_tokens)), requests, None, key)
        given = engine.collect(Given(), requests, None, key)
        engine.close()
        texts = [group.rollouts[0].turns[0].action for group in said]
        terms: Sequence = [group.rollouts[0].terms for group in given]
        nll = sum(t["nll"] for t in terms) / sum(t["tokens"] for t in terms)
        return {"bad share": bad_share(texts), "styled": styled_share(texts), "clean nll": nll}
