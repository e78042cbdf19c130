"""Tasks of Prime Intellect's `verifiers` (version 0.4, its `v1` stack) as worlds of one turn, scored by their rewards.

    world = Verifiers(MyTaskset(vf.TasksetConfig()), name="mine")

What is taken over is a task that asks one question and is judged by its `@vf.reward` functions from the conversation
alone. A task that wants tools, a container, preparation in one, or a user who opens is refused when it is loaded,
with the reason. A task belongs to the split that the hash of its question gives it.
"""

from __future__ import annotations

import inspect
import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from ludus.envs.world import Split, place_of, refuse_if_over, side
from ludus.types import End, Explained, Message, Role, Step, Task


def package() -> Any:
    try:
        import verifiers.v1 as vf
    except ImportError as error:
        raise Explained(
            "verifiers 0.4 is not installed; type: pip install 'verifiers>=0.4'"
        ) from error
    return vf


def refuse_unless_plain(task: Any) -> None:
    """An error for what cannot be judged from one answer alone."""
    base = package().Task
    of = type(task)
    wants = {
        "a container": task.NEEDS_CONTAINER or task.data.image is not None,
        "tools": bool(of.toolsets(task.config)),
        "preparation in a runtime": of.setup is not base.setup or of.finalize is not base.finalize,
        "a user who opens": task.data.prompt is None,
    }
    scorers = [
        *task.hooks("reward"),
        *task.hooks("metric"),
        *(j.score for j in task.plugged_judges()),
    ]
    needed = [inspect.signature(score).parameters.get("runtime") for score in scorers]
    wants["a runtime for its score"] = any(p is not None and p.default is p.empty for p in needed)
    wants["anything that scores it"] = not task.hooks("reward") and not task.plugged_judges()
    named = [what for what, wanted in wants.items() if wanted]
    if named:
        raise ValueError(
            f"{of.__name__} {task.data.idx} wants {', '.join(named)}, and this adapter has none: it takes tasks of "
            "one question that are scored from the answer alone"
        )


def messages(task: Any) -> list[Any]:
    """The conversation that the task opens, as the package's own messages."""
    vf, data = package(), task.data
    system = [vf.SystemMessage(content=data.system_prompt)] if data.system_prompt else []
    asked = (
        [vf.UserMessage(content=data.prompt)] if isinstance(data.prompt, str) else list(data.prompt)
    )
    return [*system, *asked]


def as_ours(message: Any) -> Message:
    role: Role = message.role
    if not isinstance(message.content, str):
        raise ValueError("a message of parts (pictures, files) is not taken over; wanted text")
    return Message(role, message.content)


@dataclass(frozen=True)
class State:
    split: Split
    index: int
    over: bool = False


@dataclass(frozen=True)
class Verifiers:
    """taskset  of the package; its first `limit` tasks are read

    solved_at  the sum of weighted rewards from which an attempt counts as solved
    """

    taskset: Any
    limit: int = 1000
    solved_at: float = 1.0
    name: str = "verifiers"

    @cached_property
    def _all(self) -> Mapping[Split, Sequence[Any]]:
        dealt: dict[Split, list[Any]] = {"train": [], "test": []}
        for task in itertools.islice(self.taskset, self.limit):
            refuse_unless_plain(task)
            dealt[side(task.data.prompt_text)].append(task)
        return dealt

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                f"{self.name}-{split}-{index}",
                tuple(as_ours(message) for message in messages(task)[:-1]),
                env=self.name,
                extras={"split": split, "index": index},
            )
            for index, task in enumerate(self._all[split])
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the question."""
        split, index = place_of(self, task, {each: len(of) for each, of in self._all.items()})
        return Step(State(split, index), as_ours(messages(self._all[split][index])[-1]).text)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        task = self._all[state.split][state.index]
        trace = conversation(task, action)
        await task.score(trace)
        reward = float(trace.reward)
        terms = {name: each.score for name, each in trace.rewards.items() if each is not None}
        end = End.SOLVED if reward >= self.solved_at else End.FAILED
        return Step(State(state.split, state.index, True), "", reward, end, {"terms": terms})

    async def fork(self, state: State) -> State:
        return state


def conversation(task: Any, answer: str) -> Any:
    """The package's record of what was asked and answered, from which its rewards are computed."""
    vf = package()
    from verifiers.v1.graph import MessageNode
    from verifiers.v1.state import state_cls
    from verifiers.v1.trace import AgentInfo, TraceTask

    said = [*messages(task), vf.AssistantMessage(content=answer)]
    last = len(said) - 1
    return vf.Trace(
        task=TraceTask(type=type(task).__name__, data=task.data, key=task.key, hash=task.hash),
        agent=AgentInfo(config=vf.AgentConfig(), name="policy"),
        nodes=[
            MessageNode(parent=i - 1 if i else None, message=m, sampled=i == last)
            for i, m in enumerate(said)
        ],
        state=state_cls(type(task))(),
        is_completed=True,
        ok=True,
    )
