"""Do sampler and learner compute the same log-probabilities? Asked once at the start of every run.

Reinforcement learning multiplies by ratios of the two. Where they differ before the first update, every ratio is
wrong and nothing else shows it: a custom attention, a soft cap, a cache in another precision.
"""

from __future__ import annotations

import asyncio

import numpy as np
import torch

from ludus.engines.local.attention import Tree
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.engines.local.tree import pack
from ludus.types import Explained, Key, Node, Sampling

PLAIN = "sdpa"


class Disagreement(Explained, RuntimeError):
    """Sampler and learner give different log-probabilities for the same tokens."""


def check_agreement(
    model: CausalModel, sampler: LocalSampler, tolerance: float | None = None
) -> float:
    """The largest difference over two sampled turns that share a prompt; raises above `tolerance`.

    tolerance  1e-4 in float32, 0.05 in bfloat16, whose log-probabilities have three digits
    """
    limit = tolerance or (1e-4 if model.compute is torch.float32 else 0.05)
    rows, sampled = asyncio.run(_two_rollouts(model, sampler))
    packed = pack(rows)
    with torch.no_grad():
        ids = torch.from_numpy(packed.ids).to(model.device)[None]
        positions = torch.from_numpy(packed.positions).to(model.device)[None]
        hidden = model.hidden(ids, positions, Tree(packed.segments, model.device))
        learner = [
            model.logp(
                hidden[torch.from_numpy(index[:-1]).to(model.device)], _tensor(row[1:], model)
            )[0]
            for row, index in zip(rows, packed.index, strict=True)
        ]
    worst = max(
        float(np.abs(mine.cpu().numpy()[where - 1] - logp).max())
        for mine, (where, logp) in zip(learner, sampled, strict=True)
    )
    if not worst <= limit:
        raise Disagreement(_cause(model, rows, learner, worst, limit))
    return worst


async def _two_rollouts(
    model: CausalModel, sampler: LocalSampler
) -> tuple[list[np.ndarray], list[tuple[np.ndarray, np.ndarray]]]:
    """Two rollouts of two turns on one prompt of random tokens; their rows, and what was sampled where."""
    rng = np.random.default_rng(0)
    vocabulary = int(model.head.weight.shape[0])
    prompt = rng.integers(0, vocabulary, min(24, model.max_length // 4))
    words = rng.integers(0, vocabulary, 3)
    sampling = Sampling(max_tokens=min(8, model.max_length // 8))

    async def play(answer: int) -> tuple[np.ndarray, tuple[np.ndarray, np.ndarray]]:
        context = Node(None, prompt, role="prompt")
        where, logps = [], []
        for turn in range(2):
            key = Key(0, ("check", answer, turn))
            made = await sampler.generate(context, sampling, key)
            where.append(np.arange(len(made.tokens)) + context.length)
            logps.append(made.logprobs)
            node = Node(context, made.tokens, logprobs=made.logprobs)
            context = Node(node, words)
        return context.context(), (np.concatenate(where), np.concatenate(logps))

    tasks = [asyncio.ensure_future(play(answer)) for answer in range(2)]
    while not all(task.done() for task in tasks):
        await asyncio.sleep(0)
        if sampler.parked:
            sampler.tick()
    results = [task.result() for task in tasks]
    sampler.publish(sampler.version)  # forget what was cached
    return [row for row, _ in results], [logp for _, logp in results]


def _cause(
    model: CausalModel,
    rows: list[np.ndarray],
    learner: list[torch.Tensor],
    worst: float,
    limit: float,
) -> str:
    """Which of the two is away from the model's own forward pass, computed plainly."""
    model.module.set_attn_implementation(PLAIN)
    try:
        with torch.no_grad():
            plain = [
                model.module(input_ids=_tensor(row, model)[None])
                .logits[0, :-1]
                .float()
                .log_softmax(-1)
                for row in rows
            ]
    finally:
        model.module.set_attn_implementation("ludus")
    off = max(
        float((mine - own.gather(1, _tensor(row[1:], model)[:, None])[:, 0]).abs().max())
        for mine, own, row in zip(learner, plain, rows, strict=True)
    )
    name = type(model.module).__name__
    if off > limit:
        cause = (
            f"the packed forward pass of {name} is {off:.2g} away from its plain one: the model does something to "
            "its attention or logits that the local engine does not know; use --engine vllm"
        )
    else:
        cause = (
            f"the learner agrees with the plain forward pass of {name} and the sampler does not: its cache loses "
            "something (a precision, a position, a state beside keys and values); use --engine vllm"
        )
    return f"sampler and learner differ by {worst:.2g} in log-probability, and {limit:.2g} is allowed: {cause}"


def _tensor(array: np.ndarray, model: CausalModel) -> torch.Tensor:
    return torch.from_numpy(array).to(model.device)
