"""Pages of MiniWoB++ in a real Chromium, solved by scripts that read the same text as a policy.

These tests fail where there is no Chromium: apt-get install chromium-headless-shell (or chromium).
"""

from __future__ import annotations

import asyncio
import importlib.util
import re
from collections.abc import Callable

import pytest

from ludus.envs.web import miniwob
from ludus.envs.web.browser import Chromium
from ludus.envs.web.miniwob import FLAGS, MiniWoB, Visit, pages
from ludus.envs.web.page import told
from ludus.types import CannotFork, End, Explained, Image, Step


@pytest.fixture(scope="module")
def chromium():
    made = Chromium(deadline=60, flags=FLAGS)
    yield made
    made.close()


Solver = Callable[[Visit], str]


def number(visit: Visit, role: str, name: str, nth: int = 0) -> int:
    there = told(visit.sight.page, "tree").elements
    found = [at for at, each in enumerate(there, 1) if (each.role, each.name) == (role, name)]
    return found[nth]


def quoted(visit: Visit) -> list[str]:
    return re.findall(r'"([^"]*)"', visit.asked)


def click_button(visit: Visit) -> str:
    return f"click [{number(visit, 'button', quoted(visit)[0])}]"


def enter_text(visit: Visit) -> str:
    if not visit.history:
        return f"type [{number(visit, 'textbox', '')}] [{quoted(visit)[0]}] [0]"
    return f"click [{number(visit, 'button', 'Submit')}]"


def login(visit: Visit) -> str:
    typed = len(visit.history)
    if typed < 2:
        return f"type [{number(visit, 'textbox', '', typed)}] [{quoted(visit)[typed]}] [0]"
    return f"click [{number(visit, 'button', 'Login')}]"


def choose(visit: Visit) -> str:
    wanted = visit.asked.removeprefix("Select ").split(" from the list")[0]
    if not visit.history:
        there = told(visit.sight.page, "tree").elements
        return (
            f"type [{next(n for n, e in enumerate(there, 1) if e.role == 'combobox')}] [{wanted}]"
        )
    return f"click [{number(visit, 'button', 'Submit')}]"


def checkboxes(visit: Visit) -> str:
    asked = visit.asked.removeprefix("Select ").removesuffix(" and click Submit.")
    wanted = [] if asked == "nothing" else asked.split(", ")
    for name in wanted[len(visit.history) :]:
        return f"click [{number(visit, 'checkbox', name)}]"
    return f"click [{number(visit, 'button', 'Submit')}]"


def colour(visit: Visit) -> str:
    wanted = visit.asked.removeprefix("Click on the ").split()[0]
    there = told(visit.sight.page, "tree").elements
    return f"click [{next(n for n, e in enumerate(there, 1) if e.name.startswith(wanted + ' '))}]"


SOLVERS: dict[str, Solver] = {
    "click-test": lambda visit: f"click [{number(visit, 'button', 'Click Me!')}]",
    "click-button": click_button,
    "enter-text": enter_text,
    "login-user": login,
    "choose-list": choose,
    "click-checkboxes": checkboxes,
    "click-color": colour,
}


async def solved(env: MiniWoB, task: object, solver: Solver) -> Step:
    step = await env.reset(task, 0)  # type: ignore[arg-type]
    try:
        for _ in range(12):
            if step.end is not None:
                return step
            step = await env.step(step.state, solver(step.state))
        raise AssertionError(f"no end: {step.observation}")
    finally:
        await env.close(step.state)


@pytest.mark.parametrize("page", SOLVERS)
def test_a_script_that_does_what_is_asked_is_paid_by_the_page(page: str, chromium: Chromium):
    env = MiniWoB((page,), each=8, chromium=chromium)

    async def both() -> None:
        for task in env.tasks("test"):
            step = await solved(env, task, SOLVERS[page])
            assert (step.end, step.reward, step.info["raw"]) == (End.SOLVED, 1.0, 1)

    asyncio.run(both())


def test_what_is_wrong_is_not_paid(chromium: Chromium):
    async def wrong(pays: str) -> Step:
        env = MiniWoB(("click-button",), each=8, pays=pays, chromium=chromium)  # type: ignore[arg-type]

        def other(visit: Visit) -> str:
            there = told(visit.sight.page, "tree").elements
            buttons = [
                n
                for n, e in enumerate(there, 1)
                if e.role == "button" and e.name != quoted(visit)[0]
            ]
            return f"click [{buttons[0]}]"

        return await solved(env, env.tasks("train")[0], other)

    for pays, paid in (("success", 0.0), ("page", -1.0)):
        step = asyncio.run(wrong(pays))
        assert (step.end, step.reward, step.info["raw"]) == (End.FAILED, paid, -1)


def test_a_task_is_the_same_again_and_others_differ(chromium: Chromium):
    env = MiniWoB(("login-user",), each=8, chromium=chromium, pictures=True)
    train, test = env.tasks("train"), env.tasks("test")
    assert len(train) == 8 and len(test) == 2

    async def seen() -> list[tuple[str, bytes]]:
        found = []
        for task in (train[0], train[0], train[1], test[0]):
            step = await env.reset(task, 0)
            text, picture = step.observation
            assert isinstance(text, str) and isinstance(picture, Image)
            found.append((text, picture.data))
            await env.close(step.state)
        return found

    one, again, other, held_out = asyncio.run(seen())
    assert one == again
    assert len({one[0], other[0], held_out[0]}) == 3


def test_the_time_limit_of_the_page_is_off_and_a_policy_may_stop(chromium: Chromium):
    env = MiniWoB(("click-test",), chromium=chromium)

    async def play() -> None:
        step = await env.reset(env.tasks("test")[0], 0)
        limit = await step.state.window.script("core.EPISODE_MAX_TIME")
        assert isinstance(limit, int) and limit > 10**9
        for elsewhere in ("goto [http://example.org]", "goto [file:///etc/hostname]", "new_tab"):
            refused = await env.step(step.state, elsewhere)
            assert "only this page" in str(refused.observation) and not refused.info["valid"]
        refused = await env.step(step.state, "what now?")
        assert "no such action" in str(refused.observation) and refused.end is None
        stopped = await env.step(step.state, "stop [done]")
        assert (stopped.end, stopped.reward) == (End.GAVE_UP, 0.0)
        with pytest.raises(ValueError, match="call reset"):
            await env.step(stopped.state, "click [1]")
        await env.close(stopped.state)

    asyncio.run(play())


def test_a_fork_does_the_same_again(chromium: Chromium):
    env = MiniWoB(("enter-text",), chromium=chromium)

    async def play() -> None:
        step = await env.reset(env.tasks("test")[0], 0)
        step = await env.step(step.state, enter_text(step.state))
        copy = await env.fork(step.state)
        ends = [await env.step(state, enter_text(state)) for state in (copy, step.state)]
        assert [end.end for end in ends] == [End.SOLVED, End.SOLVED]
        copy.history[0] = (copy.history[0][0], "something else")
        with pytest.raises(CannotFork, match="shows something else"):
            await env.fork(copy)
        for end in ends:
            await env.close(end.state)

    asyncio.run(play())


def test_a_page_in_a_frame_can_be_read_and_used(chromium: Chromium):
    env = MiniWoB(("flight.AA",), each=4, rows=200, chromium=chromium)

    async def play() -> None:
        step = await env.reset(env.tasks("train")[0], 0)
        there = told(step.state.sight.page, "tree").elements
        at = next(n for n, each in enumerate(there, 1) if each.name.startswith("To ,"))
        step = await env.step(step.state, f"type [{at}] [Boston] [0]")
        # the page may by now offer airports, so the numbers may be others
        assert re.search(r"textbox 'To , required[^']*': Boston", str(step.observation))
        await env.close(step.state)

    asyncio.run(play())


def test_all_pages_of_the_package_are_there():
    assert len(pages()) == 134 and {"click-test", "use-slider", "flight.AA"} <= pages().keys()
    assert all(file.exists() for file in pages().values())
    assert pages().keys() > miniwob.DRAGGED
    with pytest.raises(ValueError, match="no pages"):
        MiniWoB(("click-nothing",))


def test_without_the_package_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    miniwob.folder.cache_clear()
    with pytest.raises(Explained, match="pip install --no-deps miniwob"):
        miniwob.folder()
