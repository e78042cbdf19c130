"""The job that is timed, stated once for both sides: tasks, model, texts, tokens.

No token count is left to chance. An answer always has `new` tokens (nothing stops it), an episode always has `turns`
turns, and what the environment answers follows a script; so both sides sample and read exactly as many tokens, of the
same prompts, whatever they say. What they say decides the rewards, which therefore differ inside a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from ludus.data.render import Renderer
from ludus.envs.games import textcraft
from ludus.envs.games.books import generated
from ludus.envs.games.textcraft import TextCraft
from ludus.models import tiny
from ludus.types import Key, Message, Node, Step, Task

# No control token ends an answer, so that none which is sampled by chance changes how many tokens follow it.
TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] + '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)


@dataclass(frozen=True)
class Job:
    """One training step of GRPO, some times over.

    tasks, answers   each step attempts each of so many tasks so often
    turns            exchanges with the environment; 0 is a single answer to a question
    examples         worked examples before each question, where there are no turns
    new              tokens sampled in each turn
    rows             contexts in one forward and backward pass
    steps            that are timed, after one that is not
    """

    tasks: int = 8
    answers: int = 8
    turns: int = 8
    new: int = 32
    rows: int = 16
    steps: int = 3
    lr: float = 1e-4
    threads: int = 1
    seed: int = 0
    examples: int = 0
    size: tiny.Size = field(default_factory=tiny.Size)

    @property
    def rollouts(self) -> int:
        return self.tasks * self.answers

    def model(self) -> tuple[PreTrainedModel, PreTrainedTokenizerFast]:
        """The model, from random weights (its speed does not depend on them), and its tokenizer."""
        tokenizer = tiny.tokenizer()
        tokenizer.chat_template = TEMPLATE
        model = tiny.model(self.size, len(tokenizer), self.seed)
        return model.eval(), tokenizer


def unstopped(tokenizer: PreTrainedTokenizerFast) -> Renderer:
    """A renderer for which no token ends a turn."""
    renderer = Renderer(tokenizer)
    renderer.stop_ids = frozenset()
    return renderer


def variety(said: str) -> float:
    """The reward of all jobs: how many different characters were said, in hundreds."""
    return len(set(said)) / 100


def sums(count: int, examples: int = 0) -> Sequence[Task]:
    """Single-turn tasks: additions of two numbers, after some worked ones that all of them share."""
    rng = Key(0, ("bench", "sums")).generator()
    shown, asked = np.split(rng.integers(10, 100, (examples + count, 2)), [examples])
    worked = "".join(f"{a} + {b} = {a + b}\n" for a, b in shown.tolist())
    return [
        Task(f"sum-{i}", (Message("user", f"{worked}{a} + {b} = "),), answer=a + b)
        for i, (a, b) in enumerate(asked.tolist())
    ]


@dataclass(frozen=True)
class Scripted:
    """TextCraft in which a script moves, whatever the policy says, and which never ends.

    The script takes the book's raw items in turn. State: TextCraft's own, and the number of the turn.
    """

    world: TextCraft
    name: str = "scripted textcraft"

    def tasks(self, split: Literal["train", "test"] = "train") -> Sequence[Task]:
        return self.world.tasks(split)

    async def reset(self, task: Task, seed: int) -> Step:
        step = await self.world.reset(task, seed)
        return Step((step.state, 0), step.observation)

    async def step(self, state: tuple[textcraft.State, int], action: str) -> Step:
        inner, turn = state
        items = sorted(inner.book.raw)
        step = await self.world.step(inner, f"Action: get 1 {items[turn % len(items)]}")
        return Step((step.state, turn + 1), step.observation, variety(action))


def scripted(tasks: int) -> Scripted:
    return Scripted(generated(train=tasks, test=1))


def following(renderer: Renderer, history: Sequence[Message], shown: Message) -> list[int]:
    """The tokens between an answer, the last of `history`, and the next one: `shown`, in the template's words."""
    answer = Node(None, np.zeros(1, np.int64))
    return renderer.extend(answer, "length", history, (shown,)).tokens.tolist()


async def longest(job: Job, renderer: Renderer) -> int:
    """Tokens of the job's longest context."""
    lengths = []
    if not job.turns:
        tasks = sums(job.tasks, job.examples)
        return max(renderer.open(task.prompt).length for task in tasks) + job.new
    env = scripted(job.tasks)
    for task in env.tasks():
        step = await env.reset(task, 0)
        history = [*task.prompt, Message("user", step.observation)]
        length = renderer.open(history).length + job.turns * job.new
        for _ in range(job.turns - 1):
            step = await env.step(step.state, "")
            history.append(Message("assistant", "said"))
            shown = Message("user", step.observation)
            length += len(following(renderer, history, shown))
            history.append(shown)
        lengths.append(length)
    return max(lengths)
