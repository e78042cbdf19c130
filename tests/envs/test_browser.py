"""A real Chromium: what it shows, what it does, and what happens when a page hangs or the browser dies.

These tests fail where there is no Chromium: apt-get install chromium-headless-shell (or chromium).
"""

from __future__ import annotations

import asyncio
import os
import signal
import uuid
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from ludus.envs.browser import BrowserLost, Chromium, Window, chromium_path
from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.page import Misread, only, parse, told
from ludus.envs.websites import Websites
from ludus.types import End, Explained

PAGE = """<!doctype html><title>all sorts</title>
<nav><a href="other.html">other</a> <a href="other.html" target="_blank">beside</a></nav>
<h1>All <i>sorts</i></h1>
<p>said: <span id="said">nothing</span></p>
<label>name <input id="name" value="old"></label>
<label><input type="checkbox" id="on"> on</label>
<select aria-label="colour" id="colour"><option>red<option>blue<option disabled>green</select>
<label>day <input type="date" id="day"></label>
<textarea aria-label="notes"></textarea>
<button onclick="say(confirm('sure?') ? 'sure' : 'not sure')">ask</button>
<button onclick="setTimeout(() => say('at last'), 0)">wait</button>
<div id="hover" onmouseover="say('over')">hover here</div>
<button style="position:absolute; top:3000px" onclick="say('far')">far</button>
<button style="display:none">hidden</button>
<script>
const say = text => { document.getElementById('said').textContent = text };
for (const each of document.querySelectorAll('input, select'))
    each.addEventListener('change', () => say(each.id + ' ' + (each.type === 'checkbox' ? each.checked : each.value)));
document.getElementById('name').addEventListener('keydown', event => { if (event.key === 'Enter') say('entered'); });
</script>"""
OTHER = "<!doctype html><title>other</title><h1>Other</h1>"
HANGS = "<!doctype html><title>hangs</title><h1>Hangs</h1><script>setTimeout(() => { for (;;) ; }, 50)</script>"


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, html in (("page", PAGE), ("other", OTHER), ("hangs", HANGS)):
        (folder / f"{name}.html").write_text(html)
    return folder


@pytest.fixture(scope="module")
def chromium():
    made = Chromium(deadline=60)
    yield made
    made.close()


def at_page(
    chromium: Chromium, url: str, play: Callable[[Window], Coroutine[Any, Any, None]]
) -> None:
    async def played() -> None:
        window = await chromium.open(url)
        try:
            await play(window)
        finally:
            await window.close()

    asyncio.run(played())


async def act(window: Window, role: str, name: str, action: str) -> str:
    """Do what the action says, `#` being the number of the element, and give the lines of the page after it."""
    page = told((await window.look()).page, "tree")
    number = only(page.elements, role, name) if "#" in action else None
    await window.do(parse(action.replace("#", str(number))), page, 99)
    return "\n".join(told((await window.look()).page).lines)


def test_a_page_reads_as_its_accessibility_tree(chromium: Chromium, pages: Path):
    async def play(window: Window) -> None:
        sight = await window.look()
        assert told(sight.page).lines[:4] == (
            "[1] link 'other' [2] link 'beside'",
            "heading 'All sorts'",
            "said: nothing",
            "[3] textbox 'name': old [4] checkbox 'on' [5] combobox 'colour': red [6] option 'red' selected "
            "[7] option 'blue' [8] option 'green' disabled [9] Date 'day' [10] textbox 'notes' [11] button 'ask' "
            "[12] button 'wait' hover here [13] button 'far'",
        )
        tree = told(sight.page, "tree").lines
        assert tree[0] == "[1] RootWebArea 'all sorts'" and "\t[2] link 'other'" in tree
        assert not any("hidden" in line for line in tree)
        assert (await window.picture()).data.startswith(b"\x89PNG")

    at_page(chromium, (pages / "page.html").as_uri(), play)


def test_what_can_be_done_on_a_page(chromium: Chromium, pages: Path):
    async def play(window: Window) -> None:
        for role, name, action, seen in [
            ("textbox", "name", "type [#] [new] [0]", "textbox 'name': new"),
            ("textbox", "name", "type [#] [] [0]", "textbox 'name' "),
            ("textbox", "name", "type [#] [newer]", "said: name newer"),
            ("checkbox", "on", "click [#]", "said: on true"),
            ("option", "blue", "click [#]", "said: colour blue"),
            ("combobox", "colour", "type [#] [RED]", "said: colour red"),
            ("Date", "day", "type [#] [2026-02-03] [0]", "said: day 2026-02-03"),
            ("button", "ask", "click [#]", "said: sure"),
            ("button", "wait", "click [#]", "said: at last"),
            ("StaticText", "hover here", "hover [#]", "said: over"),
            ("button", "far", "click [#]", "said: far"),
            ("textbox", "notes", "type [#] [two words]", "textbox 'notes': two words"),
            ("", "", "press [Shift+Tab]", "said: far"),
            ("link", "other", "click [#]", "heading 'Other'"),
            ("", "", "go_back", "heading 'All sorts'"),
            ("link", "beside", "click [#]", "heading 'Other'"),
            ("", "", "close_tab", "heading 'All sorts'"),
        ]:
            assert seen in await act(window, role, name, action), action

    at_page(chromium, (pages / "page.html").as_uri(), play)


def test_what_cannot_be_done_says_why(chromium: Chromium, pages: Path):
    async def play(window: Window) -> None:
        for role, name, action, why in [
            ("link", "other", "type [#] [word]", "nothing can be typed into a link"),
            ("combobox", "colour", "type [#] [pink]", "no option 'pink'"),
            ("Date", "day", "type [#] [tomorrow]", "it is a date"),
            ("", "", "go_back", "nothing to go back to"),
            ("", "", "goto [http://example.org]", "cannot be reached"),  # offline
            ("", "", "goto [nonsense]", "cannot be reached"),
            ("", "", "click [999]", "no element [999]"),
        ]:
            with pytest.raises(Misread) as told_:
                await act(window, role, name, action)
            assert why in str(told_.value)
            if "example" in action:
                await window.goto((pages / "page.html").as_uri())

    at_page(chromium, (pages / "page.html").as_uri(), play)


def test_an_element_that_is_gone_is_said_to_be_gone(chromium: Chromium, pages: Path):
    async def play(window: Window) -> None:
        page = told((await window.look()).page)
        at, name = (only(page.elements, *each) for each in (("button", "ask"), ("textbox", "name")))
        await window.script(
            "document.querySelectorAll('button, input').forEach(each => each.remove())"
        )
        with pytest.raises(Misread, match="not to be seen"):
            await window.do(parse(f"click [{at}]"), page, 99)
        with pytest.raises(Misread, match="not there"):
            await window.do(parse(f"type [{name}] [a]"), page, 99)

    at_page(chromium, (pages / "page.html").as_uri(), play)


def test_a_page_that_hangs_ends_its_own_window(pages: Path):
    chromium = Chromium(deadline=8)

    async def play() -> None:
        good = await chromium.open((pages / "page.html").as_uri())
        bad = await chromium.open((pages / "hangs.html").as_uri())
        await asyncio.sleep(0.5)
        with pytest.raises(BrowserLost, match="did not answer within 8 s"):
            await bad.look()
        await bad.close()
        assert (await good.look()).tabs == ("all sorts",)
        await good.close()

    asyncio.run(play())
    assert chromium.restarts == 0
    chromium.close()


def killed(mark: str) -> None:
    """Kill the browser that was started with this flag."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                told_ = (entry / "cmdline").read_bytes().decode(errors="replace")
            except OSError:  # it has just ended
                continue
            if mark in told_ and "--type=" not in told_:
                os.kill(int(entry.name), signal.SIGKILL)


def test_a_browser_that_was_killed_ends_its_rollouts_as_crashed_and_is_started_again():
    mark = f"--ludus-test={uuid.uuid4().hex}"
    chromium = Chromium(deadline=30, flags=(mark,))
    env = Guarded(Websites(browser=True, chromium=chromium, train=40, test=20), deadline=90)
    task = env.tasks("test")[0]

    async def play() -> None:
        one, two = await env.reset(task, 0), await env.reset(task, 0)
        killed(mark)
        for step in (one, two):
            with pytest.raises(EnvFault) as fault:
                await env.step(step.state, "click [1]")
            assert fault.value.end is End.ENV_CRASHED and not fault.value.end.scorable
            await env.close(step.state)
        again = await env.reset(task, 0)
        assert again.observation == one.observation
        await env.close(again.state)

    asyncio.run(play())
    assert chromium.restarts == 1
    chromium.close()


def test_windows_wait_for_their_turn_and_one_that_could_not_begin_gives_it_back(pages: Path):
    few = Chromium(most=1, deadline=60)
    url = (pages / "other.html").as_uri()

    async def play() -> list[str]:
        with pytest.raises(BrowserLost, match="cannot be reached"):
            await few.open("http://example.org")
        first = await few.open(url)
        second = asyncio.create_task(few.open(url))
        await asyncio.sleep(0.3)
        order = ["waits" if not second.done() else "does not wait"]
        await first.close()
        await (await second).close()
        return order

    assert asyncio.run(play()) == ["waits"]
    few.close()


def test_without_a_browser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LUDUS_CHROMIUM", raising=False)
    with pytest.raises(Explained, match="apt-get install chromium"):
        chromium_path()
    monkeypatch.setenv("LUDUS_CHROMIUM", "/nowhere/chrome")
    with pytest.raises(Explained, match="/nowhere/chrome is not on the path"):
        chromium_path()
