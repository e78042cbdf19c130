"""The tools of an MCP server as the tools of an episode (package `mcp`, version 2).

    world = MCP(Program("python", ("server.py",)), tasks, judge=lambda task, answer: answer == task.answer)

A server is a program that talks over stdio, started anew for each episode, or the URL of one that talks streamable
HTTP. `connect` alone gives its tools, for an environment of one's own. In an episode the policy writes, after Action:,
either one JSON object `{"name": "add", "arguments": {"a": 1, "b": 2}}` or `answer` and its answer. What a tool says
is wrong is shown to the policy; a server that dies or hangs is the world's fault and ends the attempt as one.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.envs.adapters.live import Background, Held, Live, forked, maybe, not_copied
from ludus.envs.tools.tool import Tool
from ludus.envs.world import Split
from ludus.types import CannotFork, End, Explained, Image, Part, Step, Task

LONGEST = 10_000  # characters of a call
DEEPEST = 100  # levels of its arguments; parsers of JSON give up at 128 or 200
HOW = (
    'Call one tool a turn: Action: {"name": "...", "arguments": {...}}\n'
    "When you know the answer: Action: answer ..."
)


@dataclass(frozen=True)
class Program:
    """A server to be started. `env` is added to the few variables that a program needs (PATH, HOME ...)."""

    command: str
    args: tuple[str, ...] = ()
    env: Mapping[str, str] = field(default_factory=dict)


class ToolError(Exception):
    """What the tool says is wrong with a call."""


@dataclass
class Connection:
    tools: tuple[Tool, ...]
    held: Background

    async def close(self) -> None:
        await self.held.close()


async def connect(server: str | Program) -> Connection:
    """An open connection with the server's tools; to be closed."""
    try:
        from mcp.client.client import Client
        from mcp.client.stdio import StdioServerParameters, stdio_client
    except ImportError as error:
        raise Explained("the MCP client is not installed; type: pip install 'mcp>=2'") from error
    if isinstance(server, Program):
        options = StdioServerParameters(
            command=server.command, args=list(server.args), env=dict(server.env)
        )
        held = Background(Client(stdio_client(options)))
    else:
        held = Background(Client(server))
    client = await held.opened()
    try:
        found, cursor = [], None
        while True:
            page = await client.list_tools(cursor=cursor)
            found += [
                Tool(t.name, t.description or "", t.input_schema, _caller(client, t.name))
                for t in page.tools
            ]
            cursor = page.next_cursor
            if not cursor:
                return Connection(tuple(found), held)
    except BaseException:
        await held.close()
        raise


def _caller(client: Any, name: str) -> Callable[..., Awaitable[str | tuple[Part, ...]]]:
    from mcp import MCPError
    from mcp.types import INVALID_PARAMS

    async def call(**arguments: Any) -> str | tuple[Part, ...]:
        if why := unsendable(arguments):
            raise ToolError(f"{name}: {why}")
        try:
            result = await client.call_tool(name, arguments)
        except Exception as error:
            if isinstance(error, MCPError) and error.code == INVALID_PARAMS:
                raise ToolError(f"{name}: {error}") from error
            # The server's doing: whatever else is wrong with a call comes as a result.
            raise ConnectionError(f"{name}: {type(error).__name__}: {error}") from error
        parts = tuple(_part(block) for block in result.content)
        text = "\n".join(part for part in parts if isinstance(part, str))
        if result.is_error:
            raise ToolError(text)
        return text if all(isinstance(part, str) for part in parts) else parts

    return call


def unsendable(arguments: Any) -> str:
    """Why no server could read these arguments; empty where it could. Some never answer to what they cannot read."""
    if _deeper(arguments, DEEPEST):
        return f"the arguments are nested in more than {DEEPEST} levels"
    try:
        json.dumps(arguments, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        return "the arguments have half a character (a lone surrogate)"
    return ""


def _deeper(value: Any, levels: int) -> bool:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return levels == 0 or any(_deeper(each, levels - 1) for each in inner)


def _part(block: Any) -> Part:
    """Text and pictures as they are; of anything else, its kind."""
    if block.type == "text":
        return block.text
    if block.type == "image" and block.mime_type in ("image/png", "image/jpeg"):
        return Image(base64.b64decode(block.data))
    return f"({block.type})"


def read_call(said: str) -> tuple[str, Mapping[str, Any]] | None:
    """Name and arguments of a JSON object; None where it is none."""
    try:
        call = json.loads(said[:LONGEST])
    except (ValueError, RecursionError):
        return None
    match call:
        case {"name": str(name), "arguments": dict(arguments)}:
            return name, arguments
        case {"name": str(name)} if "arguments" not in call:
            return name, {}
    return None


@dataclass(frozen=True)
class MCP:
    """questions  split -> its tasks, with `env` equal to `name`; judge  (task, answer) -> reward, solved from 1"""

    server: str | Program
    questions: Mapping[Split, Sequence[Task]]
    judge: Callable[[Task, str], float | Awaitable[float]]
    name: str = "mcp"

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return self.questions[split]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: MCP knows none."""
        connection = await connect(self.server)
        listed = [
            f"{t.name}: {t.description}\n  {json.dumps(t.parameters)}" for t in connection.tools
        ]
        seen = "\n".join(["Tools:", *listed, HOW])
        return Step(Live(task, seed, (), seen, held=Held(connection)), seen)

    async def step(self, state: Live, action: str) -> Step:
        connection: Connection = state.enter()
        said = action.rpartition("Action:")[2].strip()
        if said.lower().startswith("answer"):
            reward = float(await maybe(self.judge(state.task, said[len("answer") :].strip(" :"))))
            end = End.SOLVED if reward >= 1 else End.FAILED
            return Step(state.after(action, "", True), "", reward, end)
        seen = await self._called(connection, read_call(said))
        return Step(state.after(action, seen, False), seen)

    async def _called(
        self, connection: Connection, call: tuple[str, Mapping[str, Any]] | None
    ) -> str | tuple[Part, ...]:
        if call is None:
            return f"No such action. {HOW}"
        tools = {tool.name: tool for tool in connection.tools}
        if call[0] not in tools:
            name = call[0][:100].encode(errors="replace").decode()
            return f"No such tool: {name}. Tools: {', '.join(tools)}."
        try:
            return await tools[call[0]].call(**call[1])
        except ToolError as error:
            return f"Error: {error}"

    async def fork(self, state: Live) -> Live:
        """A program is started once more and led the same way; a server of others is not, its state is not ours."""
        if not isinstance(self.server, Program):
            raise CannotFork(
                f"{self.server} is one server for all; give a Program, started for each episode"
            )
        return await forked(self, state, not_copied)

    async def close(self, state: Live) -> None:
        await state.held.thing.close()
