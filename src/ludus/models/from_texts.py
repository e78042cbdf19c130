"""Tiny models from random weights on texts that a program writes: the training and the keeping that they share.

A model that makes itself is a frozen dataclass with `folder(seed)` (ludus.train.recipe.Made); it says what its texts
are, and the rest is here.
"""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
import json
import os
import tempfile
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import LlamaConfig, PreTrainedModel, Qwen3Config

from ludus.models import base, tiny


@dataclass(frozen=True)
class Rates:
    """How weights are moved.

    muon    rate of Muon, for the matrices of the body; `adam` that of AdamW, for embeddings and norms, and for all
            where `muon` is 0
    warmup  steps of a linear rise; `decay` is the share of the steps, at the end, of a linear fall to 0
    """

    steps: int
    muon: float = 0.02
    adam: float = 4e-3
    warmup: int = 30
    decay: float = 0.35

    def share(self, step: int) -> float:
        """Of the full rates, at a step counted from 0."""
        left = (self.steps - step) / (self.decay * self.steps)
        return min(1.0, (step + 1) / self.warmup, left)

    def optimisers(self, model: PreTrainedModel) -> list[torch.optim.Optimizer]:
        inside, rest = [], []
        for name, parameter in model.named_parameters():
            body = self.muon and parameter.dim() == 2 and "embed" not in name
            (inside if body else rest).append(parameter)
        adam = torch.optim.AdamW(rest, self.adam, betas=(0.9, 0.95), weight_decay=0.0, fused=True)
        if not inside:
            return [adam]
        return [torch.optim.Muon(inside, lr=self.muon, momentum=0.95, weight_decay=0.01), adam]


Family = type[Qwen3Config] | type[LlamaConfig]


def trained(
    size: tiny.Size,
    words: Sequence[str],
    batches: Iterable[Sequence[base.Text]],
    rates: Rates,
    seed: int,
    *,
    family: Family = Qwen3Config,
    title: str = "",
) -> tuple[PreTrainedModel, Any]:
    """A model of this size after one step on each batch; deterministic for one number of threads, set to 1 here.

    title  of the progress bar; without one none is shown
    """
    from rich.progress import track

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tokenizer = tiny.tokenizer(words)
        model = tiny.model(size, len(tokenizer), seed, family)
        movers = rates.optimisers(model)
        full = [mover.param_groups[0]["lr"] for mover in movers]
        work = track(batches, title, rates.steps, disable=not title)
        for step, texts in enumerate(work):
            for mover, lr in zip(movers, full, strict=True):
                mover.param_groups[0]["lr"] = lr * rates.share(step)
            loss_of(model, *base.encode(texts, tokenizer)).backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            for mover in movers:
                mover.step()
            model.zero_grad()
        return model, tokenizer
    finally:
        torch.set_num_threads(threads)


def loss_of(model: Any, ids: Sequence[np.ndarray], weights: Sequence[np.ndarray]) -> Tensor:
    """As base.loss_of, for rows of about one length: padded on the right, which no earlier token can see."""
    rows = pad_sequence([torch.from_numpy(row) for row in ids], batch_first=True)
    weight = pad_sequence([torch.from_numpy(row) for row in weights], batch_first=True)[:, 1:]
    hidden = model.base_model(input_ids=rows, use_cache=False).last_hidden_state[:, :-1]
    counts = weight > 0
    logits = model.get_output_embeddings()(hidden[counts])
    nll = F.cross_entropy(logits, rows[:, 1:][counts], reduction="none")
    return (nll * weight[counts]).sum() / weight.sum()


def fingerprint(made: Any, *code: type) -> str:
    """A hash of a dataclass, of the files of these classes, of the code here, and of the versions."""
    told = json.dumps([dataclasses.asdict(made), base.used()], sort_keys=True).encode()
    files = dict.fromkeys([inspect.getfile(c) for c in (type(made), *code, tiny.Size, Rates)])
    read = [Path(file).read_bytes() for file in files]
    return hashlib.sha256(b"".join([told, *read])).hexdigest()[:16]


def kept(name: str, told: Any, build: Any) -> Path:
    """The folder of that name under ~/.cache/ludus/bases (LUDUS_CACHE); `build` is called where it is not there yet."""
    parent = Path(os.environ.get("LUDUS_CACHE", "~/.cache/ludus")).expanduser() / "bases"
    where = parent / name
    if not where.exists():
        parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=parent) as temporary:
            made = Path(temporary) / "base"
            model, tokenizer = build()
            model.save_pretrained(made)
            tokenizer.save_pretrained(made)
            (made / "base.json").write_text(json.dumps(told, indent=1) + "\n")
            made.rename(where)
    return where
