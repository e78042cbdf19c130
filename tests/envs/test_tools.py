"""Tools from functions, the formats that calls are written in, and an environment of tasks with tools."""

from __future__ import annotations

import asyncio
import json
from typing import Any, Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ludus.envs.tools.formats import (
    FORMATS,
    HERMES,
    LLAMA,
    LONGEST_MESSAGE,
    MISTRAL,
    PYTHONIC,
    REACT,
    Format,
)
from ludus.envs.tools.sandbox import Limits, Sandbox, SandboxMissing, require
from ludus.envs.tools.tool import LONGEST_ANSWER, Answer, Call, Malformed, Tool, answered
from ludus.envs.tools.with_tools import WithTools, numeric, program, shell
from ludus.types import CannotFork, End, Env, Image, Message, Task


def add(a: int, b: int = 1) -> int:
    """The sum
    of two numbers."""
    return a + b


async def look(query: str, order: Literal["new", "old"] = "new", tags: list[str] | None = None):
    """Find pages."""
    return {"query": query, "order": order, "tags": tags}


def breaks(how: str) -> str:
    raise {"late": TimeoutError, "fork": CannotFork}.get(how, KeyError)(how)


TOOLS = [Tool.of(add), Tool.of(look), Tool.of(breaks)]


def ask(name: str, **arguments: Any) -> Answer:
    return asyncio.run(answered(TOOLS, Call(name, arguments)))


def test_a_signature_becomes_a_schema():
    assert TOOLS[0].parameters == {
        "additionalProperties": False,
        "properties": {"a": {"type": "integer"}, "b": {"type": "integer", "default": 1}},
        "required": ["a"],
        "type": "object",
    }
    assert str(TOOLS[0]) == "add(a, b): The sum of two numbers."
    described: Any = TOOLS[1].schema["function"]
    assert described["name"] == "look" and described["parameters"]["required"] == ["query"]
    assert described["parameters"]["properties"]["order"]["enum"] == ["new", "old"]
    json.dumps(TOOLS[1].schema)


def test_functions_that_cannot_be_tools():
    with pytest.raises(TypeError, match="write x: str"):
        Tool.of(eval("lambda x: x"))

    def many(*things: str) -> None: ...

    with pytest.raises(TypeError, match="cannot be given by name"):
        Tool.of(many)


def test_answers():
    assert ask("add", a=1, b=2) == Answer("3", True)
    assert ask("add", a="41") == Answer("42", True)
    assert json.loads(ask("look", query="ā").text) == {"query": "ā", "order": "new", "tags": None}


@pytest.mark.parametrize(
    ("name", "arguments", "says"),
    [
        ("add", {}, "add: a is missing"),
        ("add", {"a": 1.5}, "a: Input should be a valid integer"),
        ("add", {"a": "one"}, "got 'one'"),
        ("add", {"a": None}, "got None"),
        ("add", {"a": 1, "c": 2}, "there is no argument c"),
        ("add", {"a": "9" * 10_000}, "a: "),
        ("look", {"query": "x", "order": "best"}, "'new' or 'old'"),
        ("look", {"query": "x", "tags": [1]}, "tags.0"),
        ("find", {"query": "x"}, "no tool 'find'; the tools are add, look, breaks"),
        ("breaks", {"how": "x"}, "breaks: KeyError: 'x'"),
        ("breaks", {"how": "fork"}, "CannotFork"),
    ],
)
def test_wrong_calls_are_told(name: str, arguments: dict[str, Any], says: str):
    answer = ask(name, **arguments)
    assert not answer.ok and answer.text.startswith("error: ") and says in answer.text
    assert len(answer.text) < LONGEST_ANSWER + 100


def test_only_time_running_out_is_raised():
    with pytest.raises(TimeoutError):
        ask("breaks", how="late")


def test_long_answers_are_cut_in_the_middle():
    tool = Tool("long", "", {}, lambda: "a" + "x" * 99_998 + "z")
    text = asyncio.run(answered([tool], Call("long"))).text
    assert "... (96000 more characters) ..." in text and len(text) < LONGEST_ANSWER + 50
    assert (text[0], text[-1]) == ("a", "z")


def test_an_argument_is_not_given_twice():
    answer = asyncio.run(answered(TOOLS, PYTHONIC.parse("[add(1, a=2)]").calls[0]))
    assert answer == Answer("error: add: a is given twice, by its place and by its name", False)
    assert asyncio.run(answered(TOOLS, PYTHONIC.parse("[add(1, b=2)]").calls[0])).text == "3"


@pytest.mark.parametrize(
    ("given", "answer"),
    [
        (Image(b"png"), Answer("", True, (Image(b"png"),))),
        (("A hat:", Image(b"png"), "red"), Answer("A hat:\nred", True, (Image(b"png"),))),
        (("a", 1), Answer('["a", 1]', True)),
        ((1, Image(b"png")), None),
    ],
)
def test_pictures_are_passed_on(given: Any, answer: Answer | None):
    got = asyncio.run(answered([Tool("show", "", {}, lambda: given)], Call("show")))
    if answer is None:
        assert not got.ok and "nothing but text and pictures" in got.text
    else:
        assert got == answer


ADD = Call("add", {"a": 1, "b": 2})
LOOK = Call("look", {"query": "cats"})
WRITTEN: list[tuple[Format, str, str, list[Call]]] = [
    (
        HERMES,
        'I add.\n<tool_call>\n{"name": "add", "arguments": {"a": 1, "b": 2}}\n</tool_call>\n'
        '<tool_call>{"name": "look", "arguments": "{\\"query\\": \\"cats\\"}"}</tool_call>',
        "I add.",
        [ADD, LOOK],
    ),
    (
        LLAMA,
        '<|python_tag|>{"name": "add", "parameters": {"a": 1, "b": 2}}; '
        '{"name": "look", "parameters": {"query": "cats"}}',
        "",
        [ADD, LOOK],
    ),
    (
        MISTRAL,
        'Well.[TOOL_CALLS][{"name": "add", "arguments": {"a": 1, "b": 2}},'
        '{"name": "look", "arguments": {"query": "cats"}}]</s>',
        "Well.",
        [ADD, LOOK],
    ),
    (
        MISTRAL,
        '[TOOL_CALLS]add[ARGS]{"a": 1, "b": 2}[TOOL_CALLS]look{"query": "cats"}',
        "",
        [ADD, LOOK],
    ),
    (
        REACT,
        'Thought: sum\nAction: add\nAction Input: {"a": 1, "b": 2}\nObservation: 9\nFinal Answer: 9',
        "Thought: sum",
        [ADD],
    ),
    (REACT, "Action: look[cats]", "", [Call("look", {"": "cats"})]),
    (REACT, "Action: look\nAction Input: cats", "", [Call("look", {"": "cats"})]),
    (REACT, "Action: add(a=1, b=2)", "", [ADD]),
    (PYTHONIC, "[add(a=1, b=2), look(query='cats')]", "", [ADD, LOOK]),
    (PYTHONIC, "First:\n```python\nadd(a=1, b=2)\n```", "First:", [ADD]),
]


@pytest.mark.parametrize(("form", "message", "text", "calls"), WRITTEN)
def test_calls_are_read(form: Format, message: str, text: str, calls: list[Call]):
    parsed = form.parse(message)
    assert list(parsed.calls) == calls and parsed.text == text


@pytest.mark.parametrize(("form", "message", "text", "calls"), WRITTEN)
def test_behind_long_thoughts_calls_and_answers_are_read(
    form: Format, message: str, text: str, calls: list[Call]
):
    thought = "<think>" + "I wonder about {7}. " * 1500 + "</think>\n"
    alone = form is LLAMA or (form is PYTHONIC and "```" not in message)
    assert list(form.parse(thought + message).calls) == ([] if alone else calls)
    parsed = form.parse(thought + "Final Answer: 42")
    assert not parsed.calls and parsed.text.endswith("Final Answer: 42")
    assert not form.parse("x" * 10 + '{"name": "add"}'.ljust(LONGEST_MESSAGE)).calls


def test_an_argument_without_a_name_is_the_first():
    call = REACT.parse("Action: look[cats]").calls[0]
    assert '"query": "cats"' in asyncio.run(answered(TOOLS, call)).text


@pytest.mark.parametrize("form", FORMATS, ids=lambda form: form.name)
def test_what_is_taught_names_the_tools_and_plain_text_is_no_call(form: Format):
    taught = form.teach(TOOLS)
    assert all(tool.name in taught and tool.description.split()[0] in taught for tool in TOOLS[:2])
    assert form.parse("The answer is 42 (or so).").calls == ()
    assert form.parse("").calls == ()


BROKEN: list[tuple[Format, str]] = [
    (HERMES, '<tool_call>{"name": "add", "arguments": {"a": 1}}'),
    (HERMES, "<tool_call>add(1)</tool_call>"),
    (HERMES, "<tool_call>[]</tool_call>"),
    (HERMES, '<tool_call>{"name": 3}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": [1]}</tool_call>'),
    (HERMES, '<tool_call>{"name": "add", "arguments": "{"}</tool_call>'),
    (HERMES, f"<tool_call>{'[' * 9000}</tool_call>"),
    (HERMES, f'<tool_call>{{"name": "add", "arguments": {{"a": {"9" * 9000}}}}}</tool_call>'),
    (LLAMA, '{"name": "add", '),
    (LLAMA, '{"name": "add"} and more'),
    (MISTRAL, "[TOOL_CALLS]"),
    (MISTRAL, "[TOOL_CALLS][]"),
    (MISTRAL, '[TOOL_CALLS][{"name": "add"}'),
    (MISTRAL, "[TOOL_CALLS]add{1}"),
    (REACT, "Action:"),
    (REACT, "Action: add\nAction Input: {1}"),
    (REACT, "Action: add(1, 2)"),
    (PYTHONIC, "add(a=open('x'))"),
    (PYTHONIC, "[add(a=1), 3, b()]"),
    (PYTHONIC, "add(1, 2)"),
    (PYTHONIC, "add(**{})"),
    (PYTHONIC, "add(a=1, a=2)"),
    (PYTHONIC, f"a{'.a' * 400}()"),
    (PYTHONIC, f"a{'()' * 400}"),
    (REACT, f"Action: a{'.a' * 400}()"),
    (HERMES, f'<tool_call>{{"name": "add", "arguments": {{"a": "{"x" * 30_000}"}}}}</tool_call>'),
    (LLAMA, f'{{"name": "add", "parameters": {{"a": "{"x" * 30_000}"}}}}'),
    (LLAMA, f'{{"name": "add", "parameters": {{"a": "{"x" * 9}"}}}};{{' + " " * 30_000),
    (MISTRAL, f'[TOOL_CALLS][{{"name": "add", "arguments": {{"a": "{"x" * 30_000}"}}}}]'),
    (REACT, f"Action: look\nAction Input: {'x' * 30_000}"),
    (PYTHONIC, f"[add(a='{'x' * 30_000}')]"),
    (PYTHONIC, f"add(a={'(' * 9000}1{')' * 9000})"),
    (PYTHONIC, f"add(a={'-' * 15000}1)"),
    (PYTHONIC, "add(a='\x00')"),
]


@pytest.mark.parametrize(("form", "message"), BROKEN)
def test_broken_calls_are_observations(form: Format, message: str):
    calls = form.parse(message).calls
    wrong = [call for call in calls if isinstance(call, Malformed)]
    assert wrong
    answer = asyncio.run(answered(TOOLS, wrong[0]))
    assert not answer.ok and 10 < len(answer.text) < 500


PIECES = st.sampled_from(
    '<tool_call> </tool_call> [TOOL_CALLS] Action: Action\x20Input: [ ] { } ( ) "name" : add , "a" '
    "\\ ' ```python ``` \n ; = 1 \ud800 \x00 ** . <|python_tag|> Observation: [ARGS]".split(" ")
)


@settings(max_examples=150, deadline=None)
@given(st.lists(PIECES, max_size=25))
def test_no_text_raises(pieces: list[str]):
    for message in ("".join(pieces), " ".join(pieces)):
        for form in FORMATS:
            for call in form.parse(message).calls:
                assert isinstance(asyncio.run(answered(TOOLS, call)), Answer)


# ---------------------------------------------------------------------------------------------- the environment

TASKS = [
    Task("t0", (Message("system", "Be brief."), Message("user", "What is 40 + 2?")), answer=42)
]


def env(tools: list[Tool] | None = None, **changes: Any) -> WithTools:
    return WithTools({"train": TASKS, "test": []}, tools or TOOLS, numeric(), **changes)


def played(world: WithTools, *actions: str) -> list[Any]:
    async def run() -> list[Any]:
        steps = [await world.reset(world.tasks()[0], 0)]
        for action in actions:
            steps.append(await world.step(steps[-1].state, action))
        return steps

    return asyncio.run(run())


def called(name: str, **arguments: Any) -> str:
    return f"<tool_call>{json.dumps({'name': name, 'arguments': arguments})}</tool_call>"


def test_an_episode():
    world = env()
    assert isinstance(world, Env)
    (task,) = world.tasks()
    assert [said.role for said in task.prompt] == ["system", "system"]
    assert '"add"' in task.prompt[0].text and task.prompt[1].text == "Be brief."
    opening, called_once, end = played(world, called("add", a=40, b=2), "Answer: it is 42.0")
    assert opening.observation == "What is 40 + 2?" and opening.end is None
    assert called_once.observation == "42" and called_once.info == {"calls": 1, "wrong": 0}
    assert (end.reward, end.end, end.info["answer"]) == (1.0, End.SOLVED, "it is 42.0")
    with pytest.raises(ValueError, match="this episode is over"):
        asyncio.run(world.step(end.state, "again"))
    assert played(world, "41")[-1].end is End.FAILED and played(world, "")[-1].end is End.FAILED


def test_wrong_calls_go_on():
    world = env(at_once=2)
    step = played(world, "<tool_call>{</tool_call>" + called("add") + called("add", a=1))[-1]
    assert step.end is None and step.info == {"calls": 3, "wrong": 3}
    lines = step.observation.splitlines()
    assert "no JSON" in lines[0] and "a is missing" in lines[1] and "first 2 calls" in lines[2]


def test_rewards_may_be_async_and_pictures_are_kept():
    async def half(task: Task, answer: str) -> float:
        return 0.5

    shown = Task("p", (Message("user", ("Look: ", Image(b"png"))),))
    world = WithTools({"train": [shown]}, TOOLS, half, solved=0.5)
    opening, end = played(world, "x")
    assert opening.observation == ("Look: ", Image(b"png")) and end.end is End.SOLVED


def test_pictures_of_tools_are_seen_behind_the_text():
    show = Tool("show", "", {}, lambda: ("a hat", Image(b"png")))
    step = played(env([show, TOOLS[0]]), called("show") + called("add", a=1))[-1]
    assert step.observation == ("a hat\n2", Image(b"png"))


def test_what_it_refuses():
    with pytest.raises(ValueError, match="each name to one tool"):
        env([TOOLS[0], TOOLS[0]])
    with pytest.raises(ValueError, match="at_once=0"):
        env(at_once=0)
    with pytest.raises(ValueError, match="take tasks from"):
        asyncio.run(env().reset(TASKS[0], 0))


def test_programs_as_tools():
    try:
        require()
    except SandboxMissing as missing:
        pytest.skip(str(missing))
    box = Sandbox(Limits(cpu=1, wall=8))
    world = env([program(box), shell(box)])
    steps = played(
        world,
        called("python", code="print(6 * 7)"),
        called("python", code="1 / 0"),
        called("shell", script="echo hi; cat /etc/shadow; exit 3"),
        called("python", code="print('x' * 5000); 1 / 0"),
    )
    assert steps[1].observation == "42"
    assert "ZeroDivisionError" in steps[2].observation and "[exit 1]" in steps[2].observation
    assert "hi" in steps[3].observation and steps[3].observation.endswith("[exit 3]")
    assert "ZeroDivisionError" in steps[4].observation
    assert not any(step.end for step in steps)
