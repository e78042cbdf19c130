"""What several tests need: a tiny model with a tokenizer of its own, and a world that does as it is told."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from transformers import PreTrainedModel, Qwen3Config, Qwen3ForCausalLM

from ludus.data.render import Renderer
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.models import tiny
from ludus.types import End, Message, Step, Task


@functools.cache
def tokenizer() -> Any:
    return tiny.tokenizer()


def tiny_model(seed: int = 0, *, scale: float = 3.0, length: int = 2048) -> PreTrainedModel:
    """A random Qwen3 of 0.2 M parameters; `scale` widens its weights, so that its words are not uniform."""
    torch.manual_seed(seed)
    config = Qwen3Config(
        vocab_size=len(tokenizer()),
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        head_dim=16,
        max_position_embeddings=length,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(scale)
    return model


def sampler(model: PreTrainedModel | None = None, **settings: Any) -> LocalSampler:
    policy = CausalModel(tiny_model() if model is None else model)
    return LocalSampler(policy, Renderer(tokenizer()), **settings)


def engine(model: PreTrainedModel | None = None, **settings: Any) -> LocalEngine:
    return LocalEngine(sampler(model), **settings)


@dataclass(frozen=True)
class Script:
    """An environment whose step is a function (turn, action) -> Step, for `turns` turns."""

    answer: Callable[[int, str], Any] = lambda turn, action: Step(turn + 1, f"turn {turn}")
    count: int = 4
    name: str = "script"

    def tasks(self, split: Literal["train", "test"] = "train") -> Sequence[Task]:
        prompt = (Message("system", "Do as you are told."),)
        return [Task(f"{split}-{i}", prompt) for i in range(self.count)]

    async def reset(self, task: Task, seed: int) -> Step:
        return Step(0, f"Task {task.id}. Go.")

    async def step(self, state: int, action: str) -> Step:
        made = self.answer(state, action)
        return await made if hasattr(made, "__await__") else made


def solved_after(turns: int) -> Callable[[int, str], Step]:
    """Solved in turn `turns`, whatever was done."""
    return lambda turn, action: Step(
        turn + 1,
        f"turn {turn}",
        reward=float(turn + 1 == turns),
        end=End.SOLVED if turn + 1 == turns else None,
    )


def sampled(rollout: Any) -> np.ndarray:
    """All tokens that the policy chose in a rollout."""
    return np.concatenate([turn.node.tokens for turn in rollout.turns])
