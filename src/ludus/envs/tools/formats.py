"""The formats that models write calls of tools in, each with what reads it and what teaches it.

parsed = HERMES.parse('<tool_call>{"name": "add", "arguments": {"a": 1, "b": 2}}</tool_call>')
parsed.calls[0]         Call("add", {"a": 1, "b": 2})
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from ludus.envs.tools.tool import ONLY, Call, Malformed, Tool, short

LONGEST_MESSAGE = 20_000  # characters of a message that is searched for calls


@dataclass(frozen=True)
class Parsed:
    """A message taken apart: the calls in their order, and the text around them."""

    text: str
    calls: tuple[Call | Malformed, ...]


@dataclass(frozen=True)
class Format:
    """How calls are written: `read` finds them in a message, `teach` tells a policy how to write them.

    stop   text that ends a turn because a call is complete (Sampling.stop); empty where the template's end does
    inside whether a text ends in the middle of a call
    """

    name: str
    read: Callable[[str], Parsed]
    teach: Callable[[Sequence[Tool]], str]
    stop: tuple[str, ...] = ()
    inside: Callable[[str], bool] = lambda text: False

    def parse(self, message: str) -> Parsed:
        """Never raises. Of a message longer than `LONGEST_MESSAGE` the end is read, where calls and answers stand."""
        if len(message) <= LONGEST_MESSAGE:
            return self.read(message)
        parsed = self.read(f"... {message[-LONGEST_MESSAGE:]}")
        if not parsed.calls and self.inside(message[:-LONGEST_MESSAGE]):
            return Parsed("", (Malformed(f"the call is longer than {LONGEST_MESSAGE} characters"),))
        return parsed


def _from_json(
    text: str, arguments: Sequence[str] = ("arguments", "parameters")
) -> Call | Malformed:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Malformed(f"the call is no JSON: {str(error)[:200]}")
    return _from_value(value, arguments)


def _from_value(
    value: Any, arguments: Sequence[str] = ("arguments", "parameters")
) -> Call | Malformed:
    if not isinstance(value, dict) or not isinstance(value.get("name"), str):
        return Malformed(
            f'a call is {{"name": ..., "{arguments[0]}": {{...}}}}; got {short(value)}'
        )
    given = next((value[key] for key in arguments if key in value), {})
    if isinstance(given, str):  # some models write the arguments as text of JSON
        try:
            given = json.loads(given)
        except (ValueError, RecursionError):
            return Malformed(f"the arguments of {value['name'][:100]} are no JSON")
    if not isinstance(given, dict):
        return Malformed(f"the arguments of {value['name'][:100]} are no object: {short(given)}")
    return Call(value["name"], given)


def _schemas(tools: Sequence[Tool]) -> str:
    return "\n".join(json.dumps(tool.schema, ensure_ascii=False) for tool in tools)


_HERMES = re.compile(r"<tool_call>(.*?)(</tool_call>|(?=<tool_call>)|\Z)", re.DOTALL)


def _read_hermes(message: str) -> Parsed:
    calls = tuple(
        _from_json(match[1])
        if match[2]
        else Malformed("a call that begins with <tool_call> ends with </tool_call>")
        for match in _HERMES.finditer(message)
    )
    return Parsed(_HERMES.sub("", message).strip(), calls)


HERMES = Format(
    "hermes",
    _read_hermes,
    lambda tools: (
        f"You may call these tools:\n<tools>\n{_schemas(tools)}\n</tools>\nFor a call, write\n"
        '<tool_call>\n{"name": NAME, "arguments": {...}}\n</tool_call>'
    ),
    inside=lambda text: text.rfind("<tool_call>") > text.rfind("</tool_call>"),
)
"""Hermes and Qwen: <tool_call>{"name": ..., "arguments": {...}}</tool_call>, any number of them."""


def _untagged(message: str) -> str:
    return message.strip().removeprefix("<|python_tag|>").strip()


def _read_llama(message: str) -> Parsed:
    """The whole message is a call, or several with semicolons between them; a tag in front is left out."""
    text = _untagged(message)
    if not text.startswith("{"):
        return Parsed(message.strip(), ())
    calls: list[Call | Malformed] = []
    while text:
        try:
            value, end = json.JSONDecoder().raw_decode(text)
        except (ValueError, RecursionError) as error:
            calls.append(Malformed(f"the call is no JSON: {str(error)[:200]}"))
            break
        calls.append(_from_value(value, ("parameters", "arguments")))
        text = text[end:].lstrip("; \n\t")
        if text and not text.startswith("{"):
            calls.append(Malformed(f"behind a call comes nothing but a call; got {short(text)}"))
            break
    return Parsed("", tuple(calls))


LLAMA = Format(
    "llama",
    _read_llama,
    lambda tools: (
        f"You may call these tools:\n{_schemas(tools)}\nFor a call, write nothing but\n"
        '{"name": NAME, "parameters": {...}}'
    ),
    inside=lambda text: _untagged(text).startswith("{"),
)
"""Llama 3: the message is {"name": ..., "parameters": {...}}; several with semicolons between them."""

_MISTRAL = "[TOOL_CALLS]"
_MISTRAL_NAMED = re.compile(r"\s*([\w.-]+)\s*(?:\[CALL_ID\]\w*)?\s*(?:\[ARGS\])?\s*(?=\{)")


def _read_mistral(message: str) -> Parsed:
    text, found, rest = message.partition(_MISTRAL)
    if not found:
        return Parsed(message.strip(), ())
    rest = rest.strip().removesuffix("</s>").strip()
    if rest.startswith("["):
        try:
            values = json.loads(rest)
        except (ValueError, RecursionError) as error:
            return Parsed(text.strip(), (Malformed(f"the calls are no JSON: {str(error)[:200]}"),))
        if values:
            return Parsed(text.strip(), tuple(map(_from_value, values)))
    calls = [_mistral_named(piece) for piece in rest.split(_MISTRAL)]
    return Parsed(text.strip(), tuple(calls))


def _mistral_named(piece: str) -> Call | Malformed:
    named = _MISTRAL_NAMED.match(piece)
    if named is None:
        return Malformed(f'behind {_MISTRAL} comes [{{"name": ..., "arguments": {{...}}}}]')
    try:
        return _from_value({"name": named[1], "arguments": json.loads(piece[named.end() :])})
    except (ValueError, RecursionError) as error:
        return Malformed(f"the arguments of {named[1][:100]} are no JSON: {str(error)[:200]}")


MISTRAL = Format(
    "mistral",
    _read_mistral,
    lambda tools: (
        f"You may call these tools:\n{_schemas(tools)}\nFor calls, write\n"
        '[TOOL_CALLS][{"name": NAME, "arguments": {...}}]'
    ),
    inside=lambda text: _MISTRAL in text,
)
"""Mistral: [TOOL_CALLS] and a JSON list; its later form, [TOOL_CALLS]name[ARGS]{...}, too."""

_ACTION = re.compile(r"^[ \t]*Action:[ \t]*(.*)$", re.MULTILINE)
_INPUT = re.compile(r"\s*^[ \t]*Action Input:[ \t]*", re.MULTILINE)
_BRACKETS = re.compile(r"([\w.-]+)\s*\[(.*)\]\s*", re.DOTALL)


def _read_react(message: str) -> Parsed:
    """The last action counts, and nothing behind an `Observation:` that the policy made up."""
    said = re.split(r"^[ \t]*Observation:", message, maxsplit=1, flags=re.MULTILINE)[0]
    found = list(_ACTION.finditer(said))
    if not found:
        return Parsed(message.strip(), ())
    action = found[-1]
    text, name = said[: action.start()].strip(), action[1].strip()
    given = _INPUT.match(said, action.end())
    if given is None:
        # What is written on one line: tool[argument], a Python call, or a bare name.
        brackets = _BRACKETS.fullmatch(name)
        if brackets:
            return Parsed(text, (_one_argument(brackets[1], brackets[2]),))
        if "(" in name:
            return Parsed(text, _python_calls(name))
        return Parsed(text, (Call(name),) if name else (Malformed("behind Action: comes a tool"),))
    return Parsed(text, (_one_argument(name, said[given.end() :].strip()),))


def _one_argument(name: str, text: str) -> Call | Malformed:
    """Arguments as a JSON object; text that is none is the only argument, whatever the tool calls it."""
    if not text:
        return Call(name)
    if text.startswith("{"):
        return _from_json(f'{{"name": {json.dumps(name)}, "arguments": {text}}}')
    return Call(name, {ONLY: text})


REACT = Format(
    "react",
    _read_react,
    lambda tools: (
        "You may use these tools:\n"
        + "\n".join(map(str, tools))
        + "\nWrite\nThought: what you think\nAction: the name of a tool\n"
        'Action Input: its arguments, as JSON such as {"query": "..."}\n'
        "and wait for the Observation. At the end write\nFinal Answer: the answer"
    ),
    stop=("Observation:",),
    inside=lambda text: _ACTION.search(text) is not None,
)
"""ReAct (arXiv:2210.03629): Action: and Action Input: on lines of their own; Action: tool[argument] too."""

_BARE = re.compile(r"\[?\s*[A-Za-z_][\w.]*\(")
_CODE = re.compile(r"```(?:python|tool_code|py)?[ \t]*\n(.*?)```", re.DOTALL)


def _read_pythonic(message: str) -> Parsed:
    """Calls in a list, [f(a=1), g()], alone in the message or in a fenced block."""
    fenced = _CODE.search(message)
    source = fenced[1].strip() if fenced else message.strip()
    if not (_BARE.match(source) and source[-1] in ")]"):
        return Parsed(message.strip(), ())
    text = _CODE.sub("", message).strip() if fenced else ""
    return Parsed(text, _python_calls(source))


def _python_calls(source: str) -> tuple[Call | Malformed, ...]:
    try:
        body = ast.parse(source, mode="eval").body
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        return (Malformed(f"the call is no Python: {str(error)[:200]}"),)
    return tuple(map(_python_call, body.elts if isinstance(body, ast.List) else [body]))


def _python_call(node: ast.expr) -> Call | Malformed:
    if not isinstance(node, ast.Call):
        return Malformed("a call is written name(argument=value)")
    try:
        name = ast.unparse(node.func)
    except RecursionError:
        return Malformed("the tool's name has too many parts")
    if len(node.args) > 1 or any(word.arg is None for word in node.keywords):
        return Malformed(f"{name[:100]}: give every argument by its name, {name[:100]}(key=value)")
    if len({word.arg for word in node.keywords}) < len(node.keywords):
        return Malformed(f"{name[:100]}: an argument is given twice")
    try:
        given = {word.arg or ONLY: ast.literal_eval(word.value) for word in node.keywords}
        return Call(name, {ONLY: ast.literal_eval(node.args[0]), **given} if node.args else given)
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return Malformed(f"{name[:100]}: arguments are plain values: numbers, text, lists, dicts")


PYTHONIC = Format(
    "pythonic",
    _read_pythonic,
    lambda tools: (
        "You may call these tools:\n"
        + "\n".join(map(str, tools))
        + "\nFor calls, write nothing but a list of them, such as [name(argument=1)]"
    ),
    inside=lambda text: _BARE.match(text.strip()) is not None,
)
"""Python calls with plain values: [add(a=1, b=2)], as Llama 3.2 and Gemma write them."""

FORMATS = (HERMES, LLAMA, MISTRAL, REACT, PYTHONIC)
