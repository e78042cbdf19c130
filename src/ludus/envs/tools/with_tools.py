"""A set of tasks to be solved with tools: the policy calls them until it gives a final answer.

    env = WithTools(
        problems={"train": train, "test": test},       # tasks with a prompt and an answer
        tools=[Tool.of(search), program(Sandbox())],
        reward=lambda task, answer: float(answer == task.answer),
    )

A message with calls gets their answers as the next observation; one without is the final answer and ends the episode.
What cannot be read or carried out is an observation like any other, and costs a turn. Tools keep nothing between
calls, so a state is what was said, and a fork of a state is the state itself.
"""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from ludus.envs.tools.formats import HERMES, Format
from ludus.envs.tools.sandbox import Sandbox
from ludus.envs.tools.tool import Answer, Call, Malformed, Tool, answered
from ludus.envs.world import Split, place_of, refuse_if_over
from ludus.types import End, Message, Step, Task

Score = Callable[[Task, str], float | Awaitable[float]]
"""(task, final answer) -> the reward; plain or async."""


@dataclass(frozen=True)
class State:
    """`calls` are those carried out so far, each with its answer."""

    task: Task
    calls: tuple[tuple[Call | Malformed, Answer], ...] = field(default=(), hash=False)
    over: bool = False


@dataclass(frozen=True)
class WithTools:
    """The environment.

    reward    of a final answer; `solved` and above is End.SOLVED
    format    how calls are written and taught
    at_once   calls of one message that are carried out; what is beyond is refused
    """

    problems: Mapping[Split, Sequence[Task]]
    tools: Sequence[Tool]
    reward: Score
    format: Format = HERMES
    at_once: int = 4
    solved: float = 1.0
    name: str = "tools"

    def __post_init__(self) -> None:
        names = [tool.name for tool in self.tools]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice or not names:
            raise ValueError(
                f"tools {', '.join(names) or 'none'}; give some, and each name to one tool"
            )
        if self.at_once < 1:
            raise ValueError(f"at_once={self.at_once}; carry out at least one call of a message")

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """The problems, with the tools taught in front."""
        teaching = Message("system", self.format.teach(self.tools))
        return tuple(
            replace(
                task,
                prompt=(teaching, *(said for said in task.prompt if said.role == "system")),
                env=self.name,
                extras={**task.extras, "split": split, "index": index},
            )
            for index, task in enumerate(self.problems[split])
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes everything. The problem's own messages are the first observation."""
        split, index = place_of(
            self, task, {split: len(given) for split, given in self.problems.items()}
        )
        asked = [said for said in self.problems[split][index].prompt if said.role != "system"]
        parts = tuple(part for said in asked for part in said.content)
        if all(isinstance(part, str) for part in parts):
            return Step(State(task), "\n".join(map(str, parts)))
        return Step(State(task), parts)

    async def step(self, state: State, action: str) -> Step:
        """`info` counts the calls, and those of them that went wrong."""
        refuse_if_over(state.over)
        parsed = self.format.parse(action)
        if not parsed.calls:
            return await self._ended(state, parsed.text)
        answers = [
            await answered(self.tools, call)
            if place < self.at_once
            else Answer(f"error: only the first {self.at_once} calls of a message count", False)
            for place, call in enumerate(parsed.calls)
        ]
        after = replace(state, calls=(*state.calls, *zip(parsed.calls, answers, strict=True)))
        wrong = sum(not answer.ok for answer in answers)
        told = "\n".join(answer.text for answer in answers)
        pictures = tuple(picture for answer in answers for picture in answer.pictures)
        seen = (*([told] if told else []), *pictures) if pictures else told
        return Step(after, seen, info={"calls": len(answers), "wrong": wrong})

    async def _ended(self, state: State, text: str) -> Step:
        answer = final_answer(text)
        given = self.reward(state.task, answer)
        reward = float(await given if inspect.isawaitable(given) else given)
        end = End.SOLVED if reward >= self.solved else End.FAILED
        return Step(replace(state, over=True), "", reward, end, {"answer": answer})

    async def fork(self, state: State) -> State:
        return state


_FINAL = re.compile(r"^[ \t]*(?:Final )?Answer:", re.MULTILINE | re.IGNORECASE)


def final_answer(text: str) -> str:
    """What follows the last `Final Answer:` or `Answer:`, or else the whole text."""
    found = list(_FINAL.finditer(text))
    return text[found[-1].end() if found else 0 :].strip()


def program(sandbox: Sandbox, name: str = "python") -> Tool:
    """A tool that runs Python in the sandbox."""

    async def run(code: str) -> str:
        """Run a Python program; what it prints is the answer."""
        return (await sandbox.python(code)).text

    return Tool.of(run, name)


def shell(sandbox: Sandbox, name: str = "shell") -> Tool:
    """A tool that runs a shell script in the sandbox."""

    async def run(script: str) -> str:
        """Run a shell script; what it prints is the answer. Nothing is kept between calls."""
        return (await sandbox.shell(script)).text

    return Tool.of(run, name)


def numeric(tolerance: float = 1e-6) -> Callable[[Task, str], float]:
    """A reward of 1 where the last number of the answer is the task's, within a relative tolerance."""

    def score(task: Task, answer: str) -> float:
        numbers: list[Any] = re.findall(r"-?\d{1,300}(?:\.\d{1,300})?", answer.replace(",", ""))
        right = numbers and math.isclose(float(numbers[-1]), float(task.answer), rel_tol=tolerance)
        return float(bool(right))

    return score
