"""A real Chromium: what it shows, what it does, and what happens when a page hangs or the browser dies.

These tests fail where there is no Chromium: apt-get install chromium-headless-shell (or chromium).
"""

from __future__ import annotations

import asyncio
import os
import signal
import threading
import time
import uuid
from collections.abc import Callable, Coroutine
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.web.browser import BrowserLost, Chromium, Window, chromium_path
from ludus.envs.web.page import Misread, only, parse, told
from ludus.envs.web.websites import Websites
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


def test_an_open_that_was_given_up_gives_its_window_back(pages: Path):
    few = Chromium(most=1, deadline=60)

    async def play() -> None:
        await (await few.open()).close()
        opening = asyncio.create_task(few.open())
        await asyncio.sleep(0.01)
        time.sleep(2)  # the window is made meanwhile, and cannot be handed over
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        again = await asyncio.wait_for(few.open((pages / "other.html").as_uri()), 20)
        assert (await again.look()).tabs == ("other",)
        await again.close()

    asyncio.run(play())
    few.close()


def test_a_fork_with_all_windows_in_use_ends_as_lost():
    few = Chromium(most=1, patience=0.5, deadline=60)
    world = Websites(browser=True, chromium=few, train=40, test=20)

    async def play() -> None:
        step = await world.reset(world.tasks()[0], 0)
        with pytest.raises(BrowserLost, match="all 1 windows were in use"):
            await world.fork(step.state)
        await world.close(step.state)
        await world.close((await world.reset(world.tasks()[0], 0)).state)

    asyncio.run(play())
    few.close()


def test_closing_the_browser_ends_who_waits_and_leaves_the_next_one_alone(pages: Path):
    few = Chromium(most=1, deadline=60)
    url = (pages / "other.html").as_uri()

    async def play() -> None:
        old = await few.open(url)
        waiting = asyncio.create_task(few.open(url))
        await asyncio.sleep(0.3)
        few.close()
        with pytest.raises(BrowserLost, match="closed"):
            await asyncio.wait_for(waiting, 20)
        new = await few.open(url)
        await old.close()
        with pytest.raises(BrowserLost, match="closed"):
            await old.look()
        waiting = asyncio.create_task(few.open(url))
        await asyncio.sleep(0.3)
        assert not waiting.done()  # the window of the old browser has freed none of this one
        assert (await new.look()).tabs == ("other",)
        await new.close()
        await (await waiting).close()

    asyncio.run(play())
    few.close()


def below(process: int) -> set[int]:
    """The processes that one has started, and those that they have."""
    tasks = Path(f"/proc/{process}/task").glob("*/children")
    children = {int(each) for task in tasks for each in task.read_text().split()}
    return children.union(*map(below, children))


def test_a_browser_that_does_not_start_leaves_no_process(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LUDUS_CHROMIUM", "false")
    before = below(os.getpid())
    chromium = Chromium(deadline=20)
    with pytest.raises(BrowserLost):
        asyncio.run(chromium.open())
    assert below(os.getpid()) <= before
    chromium.close()


class Odd(BaseHTTPRequestHandler):
    """A page with a link to a file of this machine, the same as a redirection, and a download."""

    def do_GET(self) -> None:
        self.send_response(302 if self.path == "/led" else 200)
        if self.path == "/led":
            self.send_header("Location", "file:///etc/hostname")
        if self.path == "/zip":
            self.send_header("Content-Disposition", "attachment; filename=a.zip")
        self.send_header("Content-Type", "application/zip" if self.path == "/zip" else "text/html")
        self.end_headers()
        if self.path != "/led":
            self.wfile.write(b"<title>odd</title><a href='file:///etc/hostname'>file</a><input>")

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads it."""


@pytest.fixture(scope="module")
def odd():
    server = ThreadingHTTPServer(("127.0.0.1", 0), Odd)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def test_what_a_policy_writes_never_leads_to_files_and_never_ends_the_window(
    chromium: Chromium, odd: str
):
    def refused(action: str, why: str) -> Callable[[Window], Coroutine[Any, Any, None]]:
        async def play(window: Window) -> None:
            with pytest.raises(Misread, match=why):
                await act(window, "", "", action)
            assert (await window.look()).url in (f"{odd}/", "chrome-error://chromewebdata/")

        return play

    addresses = (
        "file:///etc/hostname",
        "FILE:/etc/hostname",
        "\x01file:///etc/hostname",
        f"view-source:{odd}",
        "data:text/html,hi",
        "chrome://version",
        "javascript:location='file:///etc/hostname'",
        "/etc/hostname",
        f"{odd}/led",
        f"{odd}/zip",
    )
    for each in addresses:
        at_page(chromium, f"{odd}/", refused(f"goto [{each}]", "cannot be reached"))
    for key in ("é", "中", "\u212a", "Control+ä"):
        at_page(chromium, f"{odd}/", refused(f"press [{key}]", "no such key"))

    async def clicked(window: Window) -> None:
        assert "link 'file'" in await act(window, "link", "file", "click [#]")
        assert "link 'file'" not in await act(window, "", "", "goto [about:blank]")

    at_page(chromium, f"{odd}/", clicked)


def test_without_a_browser_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("LUDUS_CHROMIUM", raising=False)
    with pytest.raises(Explained, match="apt-get install chromium"):
        chromium_path()
    monkeypatch.setenv("LUDUS_CHROMIUM", "/nowhere/chrome")
    with pytest.raises(Explained, match="/nowhere/chrome is not on the path"):
        chromium_path()
