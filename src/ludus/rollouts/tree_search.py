"""Answers that are searched for line by line, and those that are only chosen: VM-MCTS of ReST-RL, arXiv:2508.19576.

    TreeData(...)             a search whose scores are the environment's verdicts; keeps what a value model learns from
    TreeSearch(..., value)    a search whose scores are a value model's; answers with the text that it likes most
    BestOf(..., value)        as many whole answers, of which the value model chooses one

All sample the policy at the same temperature; an answer that was found is no rollout to learn from: its tokens are
nobody's context. What it cost stands in `terms`: samples, tokens sampled, texts that were scored, and for data how
many states were expanded (they come first among the values).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from ludus.envs.guard import EnvFault, Guarded
from ludus.rollouts.continued import behind
from ludus.search import mcts
from ludus.types import (
    ContextTooLong,
    End,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampler,
    Sampling,
    Step,
)

Value = Callable[[Sequence[np.ndarray]], Sequence[float]]
"""Contexts of token ids to a number in [0, 1] each, such as ludus.search.value_model.ValueModel."""

VALUES = "values"  # of a rollout's signals: [(context of token ids, target) ...]


@dataclass(frozen=True)
class TreeData:
    """`rounds` of search with the environment as verifier: the data of a value model, no answer."""

    sampling: Sampling
    rounds: int = 100
    settings: mcts.Settings = field(default_factory=mcts.Settings)

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await _attempt(self._search, request, sampler, env, key)

    async def _search(self, at: _Search, key: Key) -> Rollout:
        root = mcts.Node("")
        for number in range(self.rounds):
            await mcts.training_round(
                root, partial(at.sample, self.sampling), at.verify, self.settings, key / number
            )
        values = [(at.ids(text), target) for text, target in mcts.values(root)]
        at.spent["expanded"] = float(sum(node.expanded for node in root.walk()))
        return at.rollout(root.value, End.FAILED, {VALUES: values})


@dataclass(frozen=True)
class TreeSearch:
    """Rounds of search until `samples` are spent, at most as many rounds: those that end on a whole text are free."""

    sampling: Sampling
    value: Value
    samples: int = 50
    settings: mcts.Settings = field(default_factory=lambda: mcts.Settings(keep=5, exploration=0.1))

    gives = ("reward", "guidance")
    roles = ()

    def __post_init__(self) -> None:
        if not 1 <= self.settings.samples <= self.samples:
            raise ValueError(
                f"samples={self.samples}, and an expansion takes {self.settings.samples}; give enough for one"
            )

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await _attempt(self._search, request, sampler, env, key)

    async def _search(self, at: _Search, key: Key) -> Rollout:
        root = mcts.Node("")
        sample, worth = partial(at.sample, self.sampling), partial(at.worth, self.value)
        for number in range(self.samples):
            if at.spent["samples"] + self.settings.samples > self.samples:
                break
            await mcts.decoding_round(root, sample, worth, self.settings, key / number)
        return await at.answer(*mcts.best(root))


@dataclass(frozen=True)
class BestOf:
    """The sampled answer that the value model likes most; the first of equals."""

    sampling: Sampling
    value: Value
    samples: int = 50

    gives = ("reward", "guidance")
    roles = ()

    def __post_init__(self) -> None:
        if self.samples < 1:
            raise ValueError(f"samples={self.samples}; give 1 or more to choose from")

    async def __call__(
        self, request: Request, sampler: Sampler, env: Guarded | None, key: Key
    ) -> Rollout:
        return await _attempt(self._search, request, sampler, env, key)

    async def _search(self, at: _Search, key: Key) -> Rollout:
        root = mcts.Node("")
        completions = await at.sample(self.sampling, "", self.samples, key / 0 / "sample")
        texts = [mcts.whole(root, completion) for completion in completions]
        scores = await at.worth(self.value, texts)
        best = max(range(len(texts)), key=lambda i: scores[i])
        return await at.answer(texts[best], scores[best])


# ---------------------------------------------------------------------------------------------- shared


async def _attempt(
    search: Callable[[_Search, Key], Awaitable[Rollout]],
    request: Request,
    sampler: Sampler,
    env: Guarded | None,
    key: Key,
) -> Rollout:
    """One task from its first step on; what the environment does wrong, or no room, ends it honestly."""
    if env is None:
        raise ValueError("a search wants an environment that judges answers: give an env")
    try:
        step = await env.reset(request.task, request.seed)
        try:
            opening = (*request.task.prompt, *request.guidance, Message("user", step.observation))
            prompt = sampler.renderer.open(opening)
            return await search(_Search(request, sampler, env, step, opening, prompt), key)
        finally:
            await env.leave(step.state)
    except EnvFault as fault:
        return Rollout(request.task, (), (), 0.0, fault.end, error=str(fault))
    except ContextTooLong as problem:
        return Rollout(request.task, (), (), 0.0, End.OUT_OF_TOKENS, error=str(problem))


@dataclass(eq=False)
class _Search:
    """One task while it is searched, and what that has cost; texts are answers or beginnings of them."""

    request: Request
    sampler: Sampler
    env: Guarded
    step: Step
    opening: tuple[Message, ...]
    prompt: Node
    spent: dict[str, float] = field(
        default_factory=lambda: {"samples": 0.0, "tokens": 0.0, "scored": 0.0}
    )

    def ids(self, text: str) -> np.ndarray:
        return behind(self.sampler.renderer, self.prompt, text).context()

    async def sample(self, sampling: Sampling, state: str, count: int, key: Key) -> list[str]:
        context = behind(self.sampler.renderer, self.prompt, state)
        asked = (self.sampler.generate(context, sampling, key / n) for n in range(count))
        made = await asyncio.gather(*asked)
        self.spent["samples"] += count
        self.spent["tokens"] += sum(len(completion.tokens) for completion in made)
        return [self.sampler.renderer.text(completion.tokens) for completion in made]

    async def verify(self, texts: Sequence[str]) -> list[float]:
        self.spent["scored"] += len(texts)
        return [(await self.env.step(self.step.state, text)).reward for text in texts]

    async def worth(self, value: Value, texts: Sequence[str]) -> list[float]:
        self.spent["scored"] += len(texts)
        return list(value([self.ids(text) for text in texts]))

    async def answer(self, text: str, score: float) -> Rollout:
        step = await self.env.step(self.step.state, text)
        return self.rollout(step.reward, step.end or End.FAILED, {"answer": text, "score": score})

    def rollout(self, reward: float, end: End, signals: dict[str, Any]) -> Rollout:
        return Rollout(
            self.request.task,
            (),
            (),
            reward,
            end,
            terms=self.spent,
            signals=signals,
            opening=self.opening,
        )
