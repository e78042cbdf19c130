"""Continuous batching over rollouts at different turns: token ids in, token ids out.

A rollout awaits `generate`; `tick` runs the model once over the next tokens of every waiting rollout (one token for
those in mid-turn, a whole prompt or observation for those that begin one), packed without padding. What was sampled
depends on the request's key and on nothing else.

Where the sampling is soft, what the model reads next is a vector and no token: the cache is filled from it, a number
stands for it in the ids, and the likeliest token is only watched for the end of the turn.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ludus.engines.local.cache import KeyValueCache, Row, Rows
from ludus.engines.local.model import CausalModel
from ludus.models.soft import (
    embeddings,
    log_density,
    mixture,
    number_of,
    root_mean_square,
    vocabulary,
)
from ludus.types import Completion, ContextTooLong, Key, Node, Patch, Sampling, Soft


@dataclass(eq=False)
class _Work:
    """One call of `generate` (or, where `forced` is given, of `score`) while it is under way."""

    context: np.ndarray
    anchor: (
        np.ndarray | None
    )  # the token array of the last sampled node, which names the row to continue
    future: asyncio.Future
    sampling: Sampling
    limit: int = 0
    uniforms: np.ndarray = field(default_factory=lambda: np.zeros(0))
    forced: np.ndarray | None = None
    inputs: dict[int, np.ndarray | Patch] = field(default_factory=dict)
    noise: np.random.Generator | None = None
    row: Row | None = None
    pending: np.ndarray = field(default_factory=lambda: np.zeros(0, np.int64))
    tokens: list[int] = field(default_factory=list)
    said: list[int] = field(default_factory=list)  # tokens; the likeliest ones where vectors are
    logprobs: list[float] = field(default_factory=list)


class LocalSampler:
    """The sampler of the local engine.

    Args:
        model:    the policy (shared with the learner, or a copy of it).
        renderer: messages to tokens for its template; `stop_ids` and `text` are used here.
        rows:     how many contexts the cache keeps; more rollouts than this wait their turn.
    """

    soft = True  # Sampling.soft is honoured

    def __init__(self, model: CausalModel, renderer: Any, *, rows: int = 256) -> None:
        self.model, self.renderer, self.max_rows = model, renderer, rows
        self.version = 0
        self.ticks = 0
        self.counts = {"sampled": 0, "prefilled": 0, "reused": 0}
        self._stop = frozenset(renderer.stop_ids)
        self._queue: list[_Work] = []
        self._active: list[_Work] = []
        self._owner: dict[int, tuple[np.ndarray, Row]] = {}  # id(sampled tokens) -> them, their row
        self._unit: float | None = None  # root mean square of the embeddings of this version
        layers, heads, dim = model.cache_shape()
        self.cache = KeyValueCache(layers, heads, dim, model.compute, model.device)

    @property
    def parked(self) -> int:
        """How many calls wait for tokens."""
        return len(self._queue) + len(self._active)

    def publish(self, version: int) -> None:
        """The weights have changed: what they computed before is forgotten."""
        if self.parked:
            raise RuntimeError(f"publish({version}) with {self.parked} generations under way")
        self.version = version
        self._unit = None
        self.cache.clear()
        self._owner.clear()

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        ids = context.context()
        limit = min(sampling.max_tokens, self.model.max_length - len(ids))
        if limit < 1:
            raise ContextTooLong(
                f"the context has {len(ids)} tokens and the model takes {self.model.max_length}: no room for an "
                "answer; shorten the prompt, allow fewer turns, or use a model with a longer context"
            )
        uniforms = key.generator().random(limit) if sampling.temperature > 0 else np.zeros(limit)
        work = _Work(ids, _last_sampled(context), _future(), sampling, limit, uniforms)
        if sampling.soft is not None:
            sigma = self._sigma(sampling.soft) if sampling.temperature > 0 else 0.0
            work.sampling = replace(sampling, soft=replace(sampling.soft, sigma=sigma))
            work.noise = (key / "noise").generator()
        work.inputs = dict(context.all_inputs())
        self._queue.append(work)
        return await work.future

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        if not len(tokens):
            return np.zeros(0, np.float32)
        ids = np.concatenate([context.context(), tokens])
        if len(ids) > self.model.max_length:
            raise ContextTooLong(
                f"{len(ids)} tokens to score and the model takes {self.model.max_length}"
            )
        if int(tokens.max()) >= vocabulary(self.model.module):
            raise ValueError(
                f"{int(tokens.max())} is no token, so it has no probability; score tokens alone"
            )
        work = _Work(ids[:-1], _last_sampled(context), _future(), Sampling(), forced=tokens)
        work.inputs = dict(context.all_inputs())
        self._queue.append(work)
        return await work.future

    def _sigma(self, soft: Soft) -> float:
        if soft.sigma is not None:
            return soft.sigma
        if self._unit is None:
            self._unit = root_mean_square(embeddings(self.model.module))
        return soft.noise * self._unit

    @torch.inference_mode()
    def tick(self) -> None:
        """Run the model once over everything that waits, and hand out what that completes."""
        self.ticks += 1
        self._admit()
        if not self._active:
            return
        longest = max(work.row.length + len(work.pending) for work in self._active if work.row)
        self.cache.reserve(len(self.cache.rows), longest)
        plan = Rows(self.cache, [(work.row, work.pending) for work in self._active if work.row])
        inputs = {
            n: work.inputs[n]
            for work in self._active
            if work.inputs
            for n in work.pending.tolist()
            if n in work.inputs
        }
        hidden = self.model.hidden(plan.ids, plan.positions, plan, inputs)
        sampling = [work for work in self._active if work.forced is None]
        if sampling:
            self._sample(
                sampling, hidden[plan.last[[work.forced is None for work in self._active]]]
            )
        start = 0
        for work in self._active:
            stop = start + len(work.pending)
            if work.forced is not None:
                logits = self.model.logits(hidden[stop - len(work.forced) : stop])
                logp = logits.log_softmax(-1).gather(1, _tensor(work.forced, logits)[:, None])[:, 0]
                _finish(work, logp.cpu().numpy())
            start = stop
        for work in self._active:
            assert work.row is not None
            work.row.used = self.ticks
            if work.future.done():
                work.row.busy = False
            else:
                work.pending = np.array(work.tokens[-1:], np.int64)
        self._active = [work for work in self._active if not work.future.done()]

    def _admit(self) -> None:
        """Give waiting calls a row. Calls with one prompt wait one tick for the first of them to prefill it."""
        self._queue = [work for work in self._queue if not work.future.cancelled()]
        for work in [work for work in self._active if work.future.cancelled()]:
            assert work.row is not None
            work.row.busy = False
            self._active.remove(work)
        if self._queue:  # at once for all of them, and not row by row
            longest = max(len(work.context) for work in self._queue) + 1
            self.cache.reserve(min(self.parked, self.max_rows), longest)
        waiting: list[_Work] = []
        prefilling: set[bytes] = set()
        for work in self._queue:
            name = work.context.tobytes()
            if name in prefilling or not self._place(work):
                waiting.append(work)
                continue
            if len(work.pending) > 1 and work.forced is None:
                prefilling.add(name)
            self._active.append(work)
        self._queue = waiting
        # in the cache's order, rows that are all at work attend without being gathered
        self._active.sort(key=lambda work: work.row.index if work.row else 0)

    def _place(self, work: _Work) -> bool:
        """Find the row that already holds most of the context; False while every row is busy."""
        last = len(work.context) - 1  # the last token is always computed: its logits are wanted
        if work.forced is not None:
            last = len(work.context) - len(work.forced)
        owner = self._owner.pop(id(work.anchor), None) if work.anchor is not None else None
        row, have = (None, 0)
        if owner is not None and not owner[1].busy:
            row, have = owner[1], min(self.cache.shared(owner[1], work.context), last)
        if not have:
            source, have = self.cache.longest_prefix(work.context[:last])
            row = self._free_row(len(work.context) + 1)
            if row is None:
                return False
            if source is not None and source is not row:
                self.cache.copy(source, row, have)
        assert row is not None
        row.length, row.busy, work.row = have, True, row
        work.pending = work.context[have:]
        self.counts["reused"] += have
        self.counts["prefilled"] += len(work.pending)
        return True

    def _free_row(self, capacity: int) -> Row | None:
        """An idle row: a new one while there may be more, else the one that was used longest ago."""
        idle = [row for row in self.cache.rows if not row.busy]
        if all(row.used >= 0 for row in idle) and len(self.cache.rows) < self.max_rows:
            self.cache.reserve(len(self.cache.rows) + 1, capacity)
            idle = [row for row in self.cache.rows if not row.busy]
        return min(idle, key=lambda row: (row.used, row.index), default=None)

    def _sample(self, works: Sequence[_Work], hidden: Tensor) -> None:
        logits = self.model.logits(hidden)
        hard = [i for i, work in enumerate(works) if work.sampling.soft is None]
        soft = [i for i, work in enumerate(works) if work.sampling.soft is not None]
        if hard:
            self._choose([works[i] for i in hard], logits[hard] if soft else logits)
        if soft:
            self._mix([works[i] for i in soft], logits[soft] if hard else logits)
        self.counts["sampled"] += len(works)
        for work in works:
            if work.said[-1] in self._stop or self._said(work):
                finish = "stop"
            elif len(work.tokens) == work.limit:
                finish = "length"
            else:
                continue
            sampled = np.array(work.tokens, np.int64)
            assert work.row is not None
            self._owner[id(sampled)] = (sampled, work.row)
            logprob_T = np.array(work.logprobs, np.float32)
            made = Completion(sampled, logprob_T, finish, self.version, work.sampling)
            if work.sampling.soft is not None:
                read = {number: work.inputs[number] for number in work.tokens}
                made = replace(made, inputs=read, shadow=np.array(work.said, np.int64))
            _finish(work, made)

    def _choose(self, works: Sequence[_Work], logits: Tensor) -> None:
        """One token more for each work."""
        temperature = np.array([work.sampling.temperature for work in works], np.float32)
        uniform = np.array([work.uniforms[len(work.tokens)] for work in works])
        tokens, logprobs = choose(
            logits,
            _tensor(temperature, logits),
            _tensor(uniform, logits),
            [work.sampling for work in works],
        )
        for work, token, logprob in zip(works, tokens.tolist(), logprobs.tolist(), strict=True):
            work.tokens.append(token)
            work.said.append(token)
            work.logprobs.append(logprob)

    def _mix(self, works: Sequence[_Work], logits: Tensor) -> None:
        """One vector more for each work, its number among the tokens."""
        table = embeddings(self.model.module)
        settings = [work.sampling.soft for work in works if work.sampling.soft is not None]
        noises = [work.noise for work in works if work.noise is not None]
        width = table.shape[1]
        noise = np.stack([rng.standard_normal(width, dtype=np.float32) for rng in noises])
        sigma = _tensor(np.array([soft.sigma for soft in settings], np.float32), logits)
        temperature = _tensor(np.array([s.temperature for s in settings], np.float32), logits)
        centre = mixture(logits, table, temperature)
        read = centre + sigma[:, None] * _tensor(noise, logits)
        # without noise there is no density: 0 says that nothing was chosen
        logprobs = log_density(read, centre, torch.where(sigma > 0, sigma, 1.0))
        shadow = logits.argmax(-1).tolist()
        vectors = read.cpu().numpy()
        for i, (work, logprob) in enumerate(zip(works, logprobs.tolist(), strict=True)):
            number = number_of(vectors[i])
            work.inputs[number] = vectors[i].copy()  # not a view that keeps the others alive
            work.tokens.append(number)
            work.said.append(shadow[i])
            work.logprobs.append(logprob)

    def _said(self, work: _Work) -> bool:
        """Has a stop string been completed? Only the tail that could hold one is decoded."""
        if not work.sampling.stop:
            return False
        # in bytes, because a token may be as little as one of them
        reach = max(len(stop.encode()) for stop in work.sampling.stop) + 8
        text = self.renderer.text(np.array(work.said[-reach:]))
        return any(stop in text for stop in work.sampling.stop)


def choose(
    logits: Tensor, temperature: Tensor, uniform: Tensor, sampling: Sequence[Sampling]
) -> tuple[Tensor, Tensor]:
    """One token a row, by inverting the cumulative distribution at `uniform`.

    Args:     logits [N,V], temperature [N] (0 is greedy), uniform [N] in [0, 1).
    Returns:  tokens [N] int64, log-probabilities [N] under softmax(logits / temperature), at temperature 1 where
              greedy. top_k and top_p narrow the choice, not the recorded distribution: it is the one trained on.
    """
    greedy = temperature == 0
    logp = (logits / torch.where(greedy, 1.0, temperature)[:, None]).log_softmax(-1)
    allowed = logp
    if any(s.top_k or s.top_p < 1 for s in sampling):
        allowed = logp.clone()
        for i, s in enumerate(sampling):
            if s.top_k:
                allowed[
                    i, logp[i] < logp[i].topk(min(s.top_k, logp.shape[1])).values[-1]
                ] = -torch.inf
            if s.top_p < 1:
                order = allowed[i].argsort(descending=True, stable=True)
                before = allowed[i, order].softmax(0).cumsum(0) - allowed[i, order].softmax(0)
                allowed[i, order[before >= s.top_p]] = -torch.inf
    # float64 where there is one: a float32 sum over 150,000 tokens loses the tail
    exact = torch.float32 if logits.device.type == "mps" else torch.float64
    cumulative = allowed.to(exact).exp().cumsum(-1)
    target = uniform.to(exact)[:, None] * cumulative[:, -1:]
    tokens = torch.searchsorted(cumulative, target, right=True)[:, 0].clamp(max=logits.shape[1] - 1)
    if greedy.any():
        tokens = torch.where(greedy, logits.argmax(-1), tokens)
    return tokens, logp.gather(1, tokens[:, None])[:, 0]


def _last_sampled(context: Node) -> np.ndarray | None:
    node: Node | None = context
    while node is not None and node.logprobs is None:
        node = node.parent
    return node.tokens if node is not None else None


def _tensor(array: np.ndarray, like: Tensor) -> Tensor:
    if like.device.type == "mps" and array.dtype == np.float64:
        array = array.astype(np.float32)
    return torch.from_numpy(array).to(like.device)


def _future() -> asyncio.Future:
    return asyncio.get_running_loop().create_future()


def _finish(work: _Work, result: object) -> None:
    if not work.future.cancelled():
        work.future.set_result(result)
