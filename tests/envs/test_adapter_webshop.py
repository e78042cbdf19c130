"""ludus.envs.adapters.webshop: its messages and its reading everywhere; the real shop where LUDUS_WEBSHOP is
PYTHON:FOLDER, an interpreter with WebShop's requirements and its repository with data and index (no package has it)."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from ludus.envs.adapters.webshop import DATA, WebShop, actions, wanted
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.types import End, Explained, Step

PLACE = os.environ.get("LUDUS_WEBSHOP", "")
real = pytest.mark.skipif(
    not PLACE, reason="WebShop is on no registry; set LUDUS_WEBSHOP=PYTHON:FOLDER"
)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ("search[Red Shoes]", "search[red shoes]"),
        ("Thought: buy [it]\nAction: click[Buy Now].", "click[buy now]"),
        ("Action: search[a]\nAction: click[large (wide)]", "click[large (wide)]"),
        ("click[large [wide]]", ""),
        ("Action: Click [< Prev]", "click[< prev]"),
        ("search[<r>]", ""),
        ("search[ <A> red]", ""),
        ("search[]", ""),
        ("search[  ]", ""),
        ("buy it", ""),
        ("", ""),
        ("research[x]", ""),
        ("search[\ud800]", "search[?]"),
    ],
)
def test_an_action_is_read_as_the_shop_writes_it(said: str, read: str):
    assert wanted(said) == read


def test_very_long_actions_are_cut():
    assert len(wanted("search[" + "x" * 100_000 + "]")) < 1100


def test_what_can_be_done_on_a_page():
    page = {"bar": True, "clicks": ["b01", "< prev", "large [wide]"]}
    assert actions(page) == ("search[...]", "click[b01]", "click[< prev]")
    assert actions({"bar": False, "clicks": []}) == ()


def repository(folder: Path) -> Path:
    (folder / "web_agent_site").mkdir(parents=True)
    (folder / "search_engine" / "indexes_1k").mkdir(parents=True)
    (folder / "data").mkdir()
    for name in DATA:
        (folder / name).write_text("[]")
    return folder


def test_what_is_missing_says_what_to_type(tmp_path: Path):
    with pytest.raises(
        Explained, match=r"(?s)is not in .*git clone .*setup.sh -d small.*lacks the engine"
    ):
        WebShop(sys.executable, str(tmp_path)).tasks()
    folder = repository(tmp_path / "WebShop")
    (folder / DATA[1]).unlink()
    with pytest.raises(Explained, match=f"lacks {DATA[1]}; git clone"):
        WebShop(sys.executable, str(folder)).tasks()
    (folder / DATA[1]).write_text("{}")
    with pytest.raises(Explained, match="lacks search_engine/indexes_100k"):
        WebShop(sys.executable, str(folder), products=100_000).tasks()
    with pytest.raises(Explained, match=r"(?s)did not start: ModuleNotFoundError.*setup.sh"):
        WebShop(sys.executable, str(folder)).tasks()
    with pytest.raises(Explained, match="cannot be started"):
        WebShop(str(tmp_path / "python"), str(folder)).tasks()
    with pytest.raises(ValueError, match="products=7; give 100"):
        WebShop("python", str(folder), products=7)


def test_a_process_that_never_answers_is_ended(tmp_path: Path):
    slow = tmp_path / "python"
    slow.write_text("#!/bin/sh\nexec sleep 60\n")
    slow.chmod(0o755)
    env = WebShop(str(slow), str(repository(tmp_path / "WebShop")), starts=0.3)
    before = time.monotonic()
    with pytest.raises(Explained, match=r"gave no answer for 0\.3 s"):
        env.tasks()
    assert time.monotonic() - before < 20 and env.front.worker is None


# ------------------------------------------------------------------------------------ the real shop


@pytest.fixture(scope="module")
def env() -> Iterator[WebShop]:
    python, _, folder = PLACE.partition(":")
    env = WebShop(python, folder, test=5, train=10)
    yield env
    env.front.close()


def reset(env: WebShop, index: int = 0) -> Step:
    return checked(asyncio.run(env.reset(env.tasks()[index], 0)), env.name)


def act(env: WebShop, step: Step, *said: str) -> Step:
    for action in said:
        step = checked(asyncio.run(env.step(step.state, action)), env.name)
    return step


def product(step: Step) -> str:
    return next(a for a in step.info["actions"] if a.startswith("click[b0"))


@real
def test_a_product_is_searched_looked_at_and_bought(env: WebShop):
    step = reset(env)
    assert "Instruction" in str(step.observation) and "search[...]" in step.info["actions"]
    found = act(env, step, "I search.\nAction: search[red mug]")
    assert found.info["valid"] and found.end is None
    item = act(env, found, product(found))
    assert "click[buy now]" in item.info["actions"]
    nothing = act(env, item, "click[no such thing]", "buy it", "search[<a> mug]")
    assert nothing.observation == item.observation and not nothing.info["valid"]
    options = item.info["actions"][item.info["actions"].index("click[buy now]") + 1 :]
    for option in options[:1]:
        nothing = act(env, nothing, option)
        description = act(env, nothing, "click[description]")
        assert description.info["anchor"] != nothing.info["anchor"]
        nothing = act(env, description, "click[< prev]")
    bought = act(env, nothing, "click[buy now]")
    assert bought.end in (End.SOLVED, End.FAILED) and 0 <= bought.reward <= 1
    assert (bought.end is End.SOLVED) == (bought.reward == 1)
    with pytest.raises(ValueError, match="call reset"):
        act(env, bought, "search[mug]")


@real
def test_sessions_and_forks_do_not_see_each_other(env: WebShop):
    one, two = reset(env), reset(env)
    assert one == two
    found = act(env, one, "search[red mug]")
    child = asyncio.run(env.fork(found.state))
    assert child == found.state
    left = act(env, found, product(found))
    right = act(env, Step(child, ""), "click[back to search]")
    assert "click[buy now]" in left.info["actions"] and "search[...]" in right.info["actions"]
    assert "search[...]" in act(env, two, "click[buy now]").info["actions"]
    listed = replace(env, listed=True)
    assert "You can: search[...]" in str(reset(listed).observation)


@real
def test_hostile_actions_change_nothing(env: WebShop):
    step = reset(env)
    for said in ("", "\ud800", "search[<r>]", "click[search]", "x" * 50_000, "click[\0]"):
        step = act(env, step, said)
        assert step.reward == 0 and step.end is None and "search[...]" in step.info["actions"]


@real
def test_a_process_that_dies_is_a_fault_and_is_started_again(env: WebShop):
    step = reset(env)
    worker = step.state.held.thing[0]
    worker.process.kill()
    with pytest.raises(EnvFault, match="WebShop's process") as fault:
        asyncio.run(Guarded(env).step(step.state, "search[mug]"))
    assert fault.value.end is End.ENV_CRASHED
    before, restarts = step.observation, env.front.restarts
    again = reset(env)
    assert again.observation == before and env.front.restarts == restarts + 1
    asyncio.run(env.close(step.state))
    asyncio.run(env.close(again.state))
    with pytest.raises(ValueError, match="was closed"):
        act(env, again, "search[mug]")
