"""Tools that a policy calls: Python functions (or a server's), described by JSON schemas.

    async def add(a: int, b: int) -> int:
        "The sum of two numbers."
        return a + b

    tools = [Tool.of(add)]
    answer = await answered(tools, Call("add", {"a": 1, "b": 2}))         Answer("3", ok=True)

Whatever the policy writes becomes an observation: a call that cannot be read, an unknown tool, wrong arguments and a
tool that fails each give a text that says what was wrong. Only a tool that runs out of its time (TimeoutError) or has
lost what it talks to (ConnectionError) raises, for that is not the policy's doing.
"""

from __future__ import annotations

import inspect
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ludus.types import Image

LONGEST_ANSWER = 4_000  # characters of an answer


# ---------------------------------------------------------------------------------------------- a tool


@dataclass(frozen=True)
class Tool:
    """A function with a name, and a JSON schema of its arguments.

    call    with the arguments by name; plain or async. Text is the answer as it is, a picture or a tuple of texts and
            pictures too, anything else as JSON
    check   the arguments as `call` wants them, or a ValueError that says what is wrong with them; None: whoever is
            behind `call` checks them (a server of tools)
    """

    name: str
    description: str
    parameters: Mapping[str, Any]
    call: Callable[..., Any] = field(repr=False)
    check: Callable[[Mapping[str, Any]], Mapping[str, Any]] | None = field(default=None, repr=False)

    @classmethod
    def of(cls, function: Callable[..., Any], name: str = "") -> Tool:
        """A tool from a function: its signature with type hints is the schema, its docstring the description.

        Arguments are converted where nothing is lost: "3" is taken for an int, 3.5 is not.
        """
        from pydantic import ConfigDict, ValidationError, create_model

        name = name or getattr(function, "__name__", type(function).__name__)
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except TypeError:  # an object with __call__
            hints = typing.get_type_hints(type(function).__call__, include_extras=True)
        fields: dict[str, Any] = {}
        for each in inspect.signature(function).parameters.values():
            if each.kind in (each.VAR_POSITIONAL, each.VAR_KEYWORD, each.POSITIONAL_ONLY):
                raise TypeError(
                    f"tool {name}: parameter {each} cannot be given by name; write plain parameters"
                )
            if each.name not in hints:
                raise TypeError(
                    f"tool {name}: parameter {each.name} has no type; write {each.name}: str, say"
                )
            default = ... if each.default is each.empty else each.default
            fields[each.name] = (hints[each.name], default)
        model = create_model(name, __config__=ConfigDict(extra="forbid"), **fields)
        schema = model.model_json_schema()
        schema.pop("title", None)
        for described in schema.get("properties", {}).values():
            described.pop("title", None)

        def check(arguments: Mapping[str, Any]) -> Mapping[str, Any]:
            try:
                made = model.model_validate(dict(arguments))
            except ValidationError as error:
                raise ValueError("; ".join(map(_complaint, error.errors()))) from None
            return {each: getattr(made, each) for each in fields}

        return cls(name, inspect.getdoc(function) or "", schema, function, check)

    @property
    def schema(self) -> dict[str, Any]:
        """As chat templates and endpoints want it."""
        function = {"name": self.name, "description": self.description}
        return {"type": "function", "function": {**function, "parameters": self.parameters}}

    def __str__(self) -> str:
        """One line: the call as Python would write it, and what it does."""
        given = ", ".join(self.parameters.get("properties", {}))
        return f"{self.name}({given}): {' '.join(self.description.split())}"


def _complaint(error: Any) -> str:
    """One of pydantic's errors in a few words."""
    where = ".".join(map(str, error["loc"]))
    if error["type"] == "missing":
        return f"{where} is missing"
    if error["type"] == "extra_forbidden":
        return f"there is no argument {where}"
    return f"{where}: {error['msg']}, got {short(error['input'])}"


def short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 100 else f"{text[:100]}..."


# ---------------------------------------------------------------------------------------------- a call


@dataclass(frozen=True)
class Call:
    name: str
    arguments: Mapping[str, Any] = field(default_factory=dict)


ONLY = ""
"""The name of an argument that came without one; `answered` takes it for the tool's first."""


@dataclass(frozen=True)
class Malformed:
    """Something that was meant as a call and cannot be read as one; `why` is for its author."""

    why: str


@dataclass(frozen=True)
class Answer:
    """What a call gave; not `ok` where the text says what was wrong. Pictures come behind the text."""

    text: str
    ok: bool
    pictures: tuple[Image, ...] = ()


async def answered(tools: Sequence[Tool], call: Call | Malformed) -> Answer:
    """Carry out a call. It raises nothing but TimeoutError and ConnectionError."""
    if isinstance(call, Malformed):
        return _wrong(call.why)
    tool = next((tool for tool in tools if tool.name == call.name), None)
    if tool is None:
        names = ", ".join(tool.name for tool in tools)
        return _wrong(f"there is no tool {call.name[:100]!r}; the tools are {names}")
    try:
        arguments = _named(tool, call.arguments)
        arguments = arguments if tool.check is None else tool.check(arguments)
    except (ValueError, RecursionError) as error:
        return _wrong(f"{tool.name}: {error}")
    try:
        given = tool.call(**arguments)
        given = await given if inspect.isawaitable(given) else given
        said, pictures = _parts(given)
        text = said if isinstance(said, str) else json.dumps(said, ensure_ascii=False)
    except (TimeoutError, ConnectionError):
        raise
    except Exception as error:  # what a tool raises is for the one who called it
        return _wrong(f"{tool.name}: {type(error).__name__}: {error}")
    return Answer(_cut(text), True, pictures)


def _parts(given: Any) -> tuple[Any, tuple[Image, ...]]:
    """What a tool gave without its pictures, and these."""
    if isinstance(given, Image):
        return "", (given,)
    if not isinstance(given, tuple) or not any(isinstance(part, Image) for part in given):
        return given, ()
    if not all(isinstance(part, str | Image) for part in given):
        raise TypeError("a tool that gives pictures gives nothing but text and pictures")
    texts = [part for part in given if isinstance(part, str)]
    return "\n".join(texts), tuple(part for part in given if isinstance(part, Image))


def _named(tool: Tool, arguments: Mapping[str, Any]) -> Mapping[str, Any]:
    """With the first parameter's name for the argument that came without one."""
    first = next(iter(tool.parameters.get("properties", {})), ONLY)
    if ONLY in arguments and first in arguments and first != ONLY:
        raise ValueError(f"{first} is given twice, by its place and by its name")
    return {name if name != ONLY else first: value for name, value in arguments.items()}


def _wrong(why: str) -> Answer:
    return Answer(_cut(f"error: {why}"), False)


def _cut(text: str) -> str:
    """Without the middle of what is too long: a program's error stands at the end."""
    left, half = len(text) - LONGEST_ANSWER, LONGEST_ANSWER // 2
    return text if left <= 0 else f"{text[:half]}... ({left} more characters) ...{text[-half:]}"
