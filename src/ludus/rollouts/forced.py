"""Forced score: the log-probabilities that the policy gives to a text which it did not write.

Used for rewards from the policy's own probability of a reference answer: RLPR (arXiv:2506.18254),
IGPO (arXiv:2510.14967). The text is scored beside the context and never becomes a part of it, so a
reference answer reaches neither an observation nor a training sequence, and no gradient flows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ludus.types import Node, Sampler


def encode(renderer: Any, text: str) -> np.ndarray:
    """[L] int64: the text alone, without the tokenizer's own additions.

    Encoded by itself, so that what is scored is exactly this text, whatever it would merge with.
    Raises ValueError for a text of nothing, or where the ids spell another text.
    """
    tokenizer = renderer.tokenizer
    if not text.strip():
        raise ValueError(f"the text {text!r} says nothing, so it has no probability")
    ids = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    back = tokenizer.decode(ids, clean_up_tokenization_spaces=False)
    if back.strip() != text.strip():
        raise ValueError(
            f"the tokenizer spells {text!r} as {back!r}; give a reference that it can write"
        )
    return np.array(ids, dtype=np.int64)


async def forced_score(
    sampler: Sampler, context: Node, lead_in: str | np.ndarray, text: str
) -> np.ndarray:
    """[L]: log-probability of each token of `text`, behind the context and a lead-in that is not scored.

    lead_in  what opens the answer, such as "</think><answer>"; text, or ids as they were sampled
    text     its leading whitespace is encoded with it, since policies write " oak" as one token, but
             tokens that are nothing else are not scored
    Raises ContextTooLong where the model has no room for it.
    """
    renderer = sampler.renderer
    if isinstance(lead_in, str):
        lead_in = encode(renderer, lead_in) if lead_in else np.zeros(0, np.int64)
    ids = encode(renderer, text)
    blank = 0
    while not renderer.tokenizer.decode(ids[: blank + 1]).strip():
        blank += 1
    before = np.concatenate([lead_in, ids[:blank]])
    if len(before):
        context = Node(context, before, role="template")
    return await sampler.score(context, ids[blank:])


def geometric_probability(logp: np.ndarray) -> float:
    """exp(mean log p): the probability of a text per token; (.5, .2) gives sqrt(.1) = .316."""
    return math.exp(float(np.mean(logp, dtype=np.float64)))
