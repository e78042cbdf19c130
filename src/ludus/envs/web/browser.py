"""A real browser: headless Chromium through Playwright, one process with many windows that know nothing of each other.

    chromium = Chromium()
    window = await chromium.open("https://example.org")
    sight = await window.look()                   # the accessibility tree, as Chromium gives it to a screen reader
    await window.do(parse("click [3]"), told(sight.page), rows=24)

It lives in a thread with an event loop of its own, so it serves whatever loop asks. A page that hangs ends its own
window; a browser that died ends the windows it had, and the next `open` starts another one, counted in `restarts`.
Both are a `BrowserLost`, which ends a rollout as crashed: the policy had no part in it.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import math
import os
import re
import shutil
import threading
from collections.abc import Coroutine, Mapping, Sequence
from concurrent.futures import Future
from typing import Any, TypeVar

from ludus.envs.web.page import (
    FIELDS,
    LISTS,
    NOWHERE,
    UNREACHABLE,
    Act,
    Misread,
    Node,
    Sight,
    Told,
    keys_of,
    without_labels,
)
from ludus.types import Explained, Image

T = TypeVar("T")
SIZE = (1280, 720)  # WebArena's


class BrowserLost(RuntimeError):
    """A page hung, or the browser died."""


def chromium_path() -> str:
    """Where Chromium is: LUDUS_CHROMIUM, or what is called so on the path.

    Debian has it with and without windows; without, a page takes half the time and a third of the memory.
    """
    named = os.environ.get("LUDUS_CHROMIUM")
    names = [named] if named else ["chromium-headless-shell", "chromium", "google-chrome"]
    for name in names:
        if found := shutil.which(name):
            return found
    raise Explained(
        f"there is no Chromium: {' or '.join(names)} is not on the path. Install it (Debian: apt-get install "
        "chromium-headless-shell, or chromium), or set LUDUS_CHROMIUM to where it is"
    )


def _playwright() -> Any:
    try:
        from playwright.async_api import async_playwright
    except ImportError as error:
        raise Explained(
            "a browser is driven by Playwright; pip install playwright (its own browsers are not needed)"
        ) from error
    return async_playwright


# --disable-dev-shm-usage: containers give /dev/shm 64 MB, and a page that needs more would crash.
# --font-render-hinting, --force-device-scale-factor: the same picture on every machine.
FLAGS = (
    "--disable-dev-shm-usage",
    "--font-render-hinting=none",
    "--force-device-scale-factor=1",
    "--force-color-profile=srgb",
)
# Pages then reach this machine alone: no name is looked up.
OFFLINE = "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"


class Chromium:
    """
    most      windows at once; further ones wait
    patience  seconds that one waits for others to close; a fork needs a window beside the one it copies
    deadline  seconds for one call of a window
    offline   pages reach servers of this machine alone
    sandbox   Chromium's own, around the code of the pages. It cannot start as root (and in most containers), so it is
              off there: show pages that you trust, or run as an ordinary user
    """

    def __init__(
        self,
        *,
        most: int = 8,
        patience: float = 600.0,
        deadline: float = 20.0,
        offline: bool = True,
        sandbox: bool | None = None,
        flags: Sequence[str] = (),
    ) -> None:
        if most < 1 or min(deadline, patience) <= 0:
            raise ValueError(
                f"most={most}, deadline={deadline}, patience={patience}; give a window and some seconds"
            )
        self.most, self.patience, self.deadline = most, patience, deadline
        self.offline, self.flags = offline, tuple(flags)
        self.sandbox = os.geteuid() != 0 if sandbox is None else sandbox
        self.restarts = 0
        self._lock = threading.Lock()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._driver: Any = None
        self._browser: Any = None

    async def open(
        self,
        url: str = "about:blank",
        *,
        size: tuple[int, int] = SIZE,
        cookies: Sequence[Mapping[str, Any]] = (),
        storage: str | None = None,
        geolocation: Mapping[str, float] | None = None,
    ) -> Window:
        """A window of its own cookies and history.

        storage      a file of Playwright's storage state, to be logged in from the start
        geolocation  where the pages are told to be: latitude and longitude
        """

        made: list[Window] = []

        async def opened() -> Window:
            try:
                async with asyncio.timeout(self.patience):
                    await self._free.acquire()
            except TimeoutError:
                raise BrowserLost(
                    f"all {self.most} windows were in use for {self.patience:g} s; give Chromium more with most="
                ) from None
            context = None
            try:
                async with asyncio.timeout(3 * self.deadline):  # the browser may have to be started
                    browser = await self._running()
                    context = await browser.new_context(
                        viewport={"width": size[0], "height": size[1]},
                        storage_state=storage,
                        accept_downloads=False,
                        geolocation=geolocation,
                        permissions=["geolocation"] if geolocation else [],
                    )
                    if cookies:
                        await context.add_cookies(list(cookies))
                    begun = Window(self, context)
                    await begun._begin(url)
                    made.append(begun)
                    return begun
            except TimeoutError:
                raise BrowserLost(f"no window within {3 * self.deadline:g} s") from None
            except Misread as misread:
                raise BrowserLost(f"{url}: {misread}") from misread
            finally:
                if not made:
                    await asyncio.shield(self._let_go(context))

        async def taken_back() -> None:
            for window in made:
                if not window.lost:
                    await self._let_go(window._context)

        try:
            return await self.run(opened(), math.inf)
        except asyncio.CancelledError:
            # The window may have been made, and not handed over: nobody else knows of it.
            self._begun(taken_back(), math.inf)
            raise

    def close(self) -> None:
        """End the browser and its windows; the next `open` starts another."""
        with self._lock:  # an `open` at the same time waits here
            if self._loop is None:
                return
            with contextlib.suppress(Exception):
                asyncio.run_coroutine_threadsafe(self._all_ended(), self._loop).result(15)
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._loop = None
            atexit.unregister(self.close)

    # ------------------------------------------------------------------------------------ the thread

    async def run(self, work: Coroutine[Any, Any, T], deadline: float | None = None) -> T:
        """Run it in the browser's thread, and wait for it here."""
        future = self._begun(work, deadline or self.deadline)
        try:
            return await asyncio.wrap_future(future)
        except BaseException:
            future.cancel()
            raise

    def _begun(self, work: Coroutine[Any, Any, T], limit: float) -> Future[T]:
        """What it will return, run in the browser's thread; that is started where there is none."""

        async def in_time() -> T:
            task = asyncio.current_task()
            assert task is not None
            self._at_work.add(task)
            try:
                async with asyncio.timeout(None if limit == math.inf else limit):
                    return await work
            except TimeoutError:
                raise BrowserLost(f"the browser did not answer within {limit:g} s") from None
            except asyncio.CancelledError:
                if self._closing:
                    raise BrowserLost("the browser was closed") from None
                raise
            except (Misread, Explained, BrowserLost):
                raise
            except Exception as error:  # Playwright's: a page crashed, or a process died
                raise BrowserLost(f"{type(error).__name__}: {error}"[:500]) from error
            finally:
                self._at_work.discard(task)

        with self._lock:
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._free = asyncio.Semaphore(self.most)
                self._starting = asyncio.Lock()
                self._at_work: set[asyncio.Task[Any]] = set()
                self._closing = False
                threading.Thread(target=_forever, args=(self._loop,), daemon=True).start()
                atexit.register(self.close)
            return asyncio.run_coroutine_threadsafe(in_time(), self._loop)

    async def _running(self) -> Any:
        async with self._starting:
            if self._browser is not None and not self._browser.is_connected():
                self.restarts += 1
                await self._ended()
            if self._browser is None:
                where, playwright = chromium_path(), _playwright()
                self._driver = await playwright().start()
                try:
                    self._browser = await self._driver.chromium.launch(
                        executable_path=where,
                        chromium_sandbox=self.sandbox,
                        args=[*FLAGS, *([OFFLINE] if self.offline else []), *self.flags],
                    )
                except BaseException:
                    await asyncio.shield(self._ended())
                    raise
            return self._browser

    async def _ended(self) -> None:
        browser, driver, self._browser, self._driver = self._browser, self._driver, None, None
        for end in (browser and browser.close, driver and driver.stop):
            if end is not None:
                with contextlib.suppress(Exception):
                    await asyncio.wait_for(end(), 5)

    async def _all_ended(self) -> None:
        self._closing = True
        works = list(self._at_work)
        for task in works:
            task.cancel()
        if works:
            await asyncio.wait(works, timeout=3)
        await self._ended()

    async def _let_go(self, context: Any) -> None:
        """Close the context of a window, if it got one; where even that hangs, end the whole browser."""
        owner = None if context is None else context.browser
        try:
            if context is not None:
                await asyncio.wait_for(context.close(), min(5.0, self.deadline))
        except Exception:
            async with self._starting:
                if owner is not None and owner is self._browser and owner.is_connected():
                    self.restarts += 1
                    await self._ended()
        finally:
            self._free.release()


def _forever(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    loop.run_forever()


class Window:
    """Tabs of one session. Make one with `Chromium.open`."""

    def __init__(self, chromium: Chromium, context: Any) -> None:
        self.chromium, self.closed = chromium, False
        self._context, self._loop = context, asyncio.get_running_loop()
        self._tabs: list[_Tab] = []
        self._at = 0

    async def goto(self, url: str) -> None:
        await self._run(self._tab.goto(url))

    async def look(self) -> Sight:
        async def looked() -> Sight:
            tab = self._tab
            await tab.settle()
            titles = tuple([await each.title() for each in self._tabs])
            return Sight(await tab.tree(), tab.page.url, titles, self._at, tab.screen)

        return await self._run(looked())

    async def picture(self) -> Image:
        """What is in the viewport, as a PNG."""
        return Image(await self._run(self._tab.page.screenshot(animations="disabled")))

    async def script(self, source: str) -> Any:
        """What a function or an expression of JavaScript returns in the page in front."""
        return await self._run(self._tab.page.evaluate(source))

    async def content(self) -> str:
        """The HTML of the page in front, as it is now."""
        return await self._run(self._tab.page.content())

    async def do(self, act: Act, seen: Told, rows: int) -> None:
        """Do it on what was seen, so many rows at once, and wait until the page has settled.

        Misread where it cannot be done; `stop` does nothing.
        """
        await self._run(self._do(act, seen, rows))

    async def close(self) -> None:
        if not self.closed and not self.lost:
            self.closed = True
            closing = self.chromium._begun(self.chromium._let_go(self._context), math.inf)
            with contextlib.suppress(BrowserLost):
                await asyncio.shield(asyncio.wrap_future(closing))  # it goes on if nobody waits

    @property
    def lost(self) -> bool:
        """Whether its browser was closed; there may be another one by now."""
        return self.chromium._loop is not self._loop

    async def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self.lost:
            work.close()
            raise BrowserLost("the browser was closed, and this window with it")
        return await self.chromium.run(work)

    # ------------------------------------------------------------------------------------ in the browser's thread

    @property
    def _tab(self) -> _Tab:
        if not self._tabs:
            raise BrowserLost("the browser died, or this window was closed")
        return self._tabs[self._at]

    async def _begin(self, url: str) -> None:
        self._context.on("page", self._appeared)
        await self._context.new_page()
        await self._tab.ready()
        if url != "about:blank":
            await self._tab.goto(url)

    def _appeared(self, page: Any) -> None:
        """A tab that was asked for, or that a page opened; it comes to the front."""
        self._tabs.append(_Tab(page))
        self._at = len(self._tabs) - 1
        page.on("dialog", _accepted)
        page.on("close", self._vanished)

    def _vanished(self, page: Any) -> None:
        self._tabs = [tab for tab in self._tabs if tab.page is not page]
        self._at = max(0, min(self._at, len(self._tabs) - 1))

    async def _do(self, act: Act, seen: Told, rows: int) -> None:
        tab, tabs = self._tab, len(self._tabs)
        opened = tab.opened
        match act.verb:
            case "click":
                await tab.click(seen.element(act.number))
            case "hover":
                await tab.page.mouse.move(*await tab.middle(seen.element(act.number)))
            case "type":
                await tab.type(seen.element(act.number), act.text, act.enter)
            case "press":
                await tab.page.keyboard.press(keys_of(act.text))
            case "scroll":
                sign = 1 if act.text == "down" else -1
                tab.screen = seen.scrolled(tab.screen, act.text, rows)
                await tab.page.evaluate(f"window.scrollBy(0, {sign} * window.innerHeight)")
            case "new_tab":
                await self._context.new_page()
            case "tab_focus":
                if act.number >= len(self._tabs):
                    raise Misread(f"no tab {act.number}")
                self._at = act.number
                await self._tab.page.bring_to_front()
            case "close_tab":
                if len(self._tabs) == 1:
                    raise Misread("this is the only tab")
                await tab.page.close()
            case "goto":
                await tab.goto(reachable(act.text))
            case "go_back":
                await tab.travel(-1)
            case "go_forward":
                await tab.travel(1)
            case "stop":
                return
        await tab.settle()
        for _ in range(
            200
        ):  # a tab that the page opens appears a moment later, unless it is refused
            if tab.opened == opened or len(self._tabs) > tabs:
                break
            await asyncio.sleep(0.01)
        await self._tab.settle()


INTERRUPTED = 5  # times that a page is gone to again
# Of what Playwright says: nobody answers, this is no address, what is there is no page.
NOT_REACHED = ("net::", "invalid URL", "unsupported protocol", "Download is starting")


def reachable(address: str) -> str:
    """An address that a policy may go to. Others lead to the files of this machine, or into the browser itself.

    Only what is typed in has to be looked at: Chromium lets no page of http or https lead there.
    """
    if address != "about:blank" and not re.match("https?://", address, re.IGNORECASE):
        raise Misread(UNREACHABLE)
    return address


class _Tab:
    """One page, and whether it is on the way to another."""

    def __init__(self, page: Any) -> None:
        self.page, self.screen, self.opened = page, 0, 0
        self._session: Any = None
        self._idle = asyncio.Event()
        self._idle.set()

    async def ready(self) -> Any:
        """The session of Chromium's own protocol with this tab."""
        if self._session is None:
            self._session = await self.page.context.new_cdp_session(self.page)
            tree = await self._session.send("Page.getFrameTree")
            self._frame = tree["frameTree"]["frame"]["id"]
            for event in ("Page.frameRequestedNavigation", "Page.frameStartedNavigating"):
                self._session.on(event, self._left)
            self._session.on("Page.frameStoppedLoading", self._arrived)
            self._session.on("Page.windowOpen", self._opens)
            self._session.on("Page.frameNavigated", self._navigated)
            await self._session.send("Page.enable")
            await self.page.wait_for_load_state("load")
        return self._session

    def _left(self, event: Mapping[str, Any]) -> None:
        if event["frameId"] == self._frame and event.get("navigationType") != "sameDocument":
            self._idle.clear()

    def _opens(self, event: Mapping[str, Any]) -> None:
        self.opened += 1

    def _arrived(self, event: Mapping[str, Any]) -> None:
        if event["frameId"] == self._frame:
            self._idle.set()

    def _navigated(self, event: Mapping[str, Any]) -> None:
        if event["frame"]["id"] == self._frame:
            self.screen = 0

    async def settle(self) -> None:
        """Until what an action set off has happened: its handlers, and the page that it leads to."""
        await self.ready()
        for _ in range(2):
            # A form is sent, and a click is handled, in a task of the page's own: two of ours come after it.
            with contextlib.suppress(Exception):  # the page may go away under this
                await self.page.evaluate(
                    "new Promise(done => setTimeout(() => setTimeout(done, 0), 0))"
                )
            if self._idle.is_set():
                return
            await self._idle.wait()

    async def goto(self, url: str) -> None:
        """The page that says that the one before could not be reached may still be on its way: then once more."""
        for attempt in range(1 + INTERRUPTED):
            try:
                return await self.moved(self.page.goto(url, wait_until="load"))
            except Exception as error:
                if attempt == INTERRUPTED or "interrupted by another navigation" not in str(error):
                    raise
            await self.page.wait_for_load_state("load")
            await asyncio.sleep(0.1 * attempt)

    async def travel(self, steps: int) -> None:
        """Through the history; the empty page that every tab begins with is no part of it."""
        got = await (await self.ready()).send("Page.getNavigationHistory")
        there = got["currentIndex"] + steps
        if not 0 <= there < len(got["entries"]) or got["entries"][there]["url"] == "about:blank":
            raise Misread(NOWHERE[steps])
        move = self.page.go_back if steps < 0 else self.page.go_forward
        await self.moved(move(wait_until="load"))

    async def moved(self, work: Coroutine[Any, Any, Any]) -> None:
        try:
            await work
        except Exception as error:
            told = str(error)
            if any(each in told for each in NOT_REACHED):
                raise Misread(UNREACHABLE) from None
            raise

    async def title(self) -> str:
        return await self.page.title()

    async def tree(self) -> Node:
        """Of the page and of the frames in it, as far as they are of one site."""
        session = await self.ready()
        got = await session.send("Accessibility.getFullAXTree")
        frames: dict[int, Node] = {}
        if any(node.get("role", {}).get("value") == "Iframe" for node in got["nodes"]):
            tree = await session.send("Page.getFrameTree")
            for frame in _below(tree["frameTree"]):
                with contextlib.suppress(Exception):  # of another site, or gone meanwhile
                    at = {"frameId": frame}
                    owner = await session.send("DOM.getFrameOwner", at)
                    inside = await session.send("Accessibility.getFullAXTree", at)
                    frames[owner["backendNodeId"]] = from_chromium(inside["nodes"], frames)
        return without_labels(from_chromium(got["nodes"], frames))

    # ------------------------------------------------------------------------------------ on an element

    async def click(self, node: Node) -> None:
        if node.role == "option" and await self._on(node, CHOOSE, None):
            return
        if node.role in LISTS and await self._on(node, IS_SELECT):
            # Its options are on the page; those that would pop up are outside of it and catch the next click.
            return await self._on(node, "function() { this.focus(); }")
        await self.page.mouse.click(*await self.middle(node))

    async def type(self, node: Node, text: str, enter: bool) -> None:
        if node.role in LISTS and await self._on(node, IS_SELECT):
            if not await self._on(node, CHOOSE, text):
                raise Misread(f"'{node.name}' has no option '{text}'")
            return
        kind = await self._on(node, KIND)
        if kind == GONE:
            raise Misread(f"'{node.name or node.role}' is not there any more")
        if kind is None:
            raise Misread(f"nothing can be typed into a {node.role}")
        if kind in VALUED:
            if not await self._on(node, SET, text):
                raise Misread(f"'{node.name}' does not take '{text}'; it is a {kind}")
        else:
            await self._on(node, TAKE)
            if text:
                await self.page.keyboard.type(text)
            else:
                await self.page.keyboard.press("Delete")
        if enter:
            await self.page.keyboard.press("Enter")

    async def middle(self, node: Node) -> tuple[float, float]:
        """Where the middle of an element is in the viewport; it is scrolled into sight."""
        session = await self.ready()
        try:
            await session.send("DOM.scrollIntoViewIfNeeded", {"backendNodeId": node.key})
            quads = (await session.send("DOM.getContentQuads", {"backendNodeId": node.key}))[
                "quads"
            ]
        except Exception as error:
            if "closed" in str(error):
                raise
            quads = []
        if not quads:
            raise Misread(f"'{node.name or node.role}' is not to be seen any more")
        x, y = quads[0][0::2], quads[0][1::2]
        return sum(x) / 4, sum(y) / 4

    async def _on(self, node: Node, function: str, *given: Any) -> Any:
        """What a function of JavaScript returns, with the element as its `this`."""
        session = await self.ready()
        try:
            found = await session.send("DOM.resolveNode", {"backendNodeId": node.key})
        except Exception as error:
            if "closed" in str(error):
                raise
            raise Misread(f"'{node.name or node.role}' is not there any more") from None
        got = await session.send(
            "Runtime.callFunctionOn",
            {
                "objectId": found["object"]["objectId"],
                "functionDeclaration": function,
                "arguments": [{"value": each} for each in given],
                "returnByValue": True,
            },
        )
        return got["result"].get("value")


def _below(tree: Mapping[str, Any]) -> list[str]:
    """The ids of the frames in a frame, the innermost first."""
    inside = tree.get("childFrames", ())
    return [one for each in inside for one in (*_below(each), each["frame"]["id"])]


async def _accepted(dialog: Any) -> None:
    with contextlib.suppress(Exception):  # the page may have gone
        await dialog.accept()


VALUED = frozenset("date time datetime-local month week color range".split())  # typed as a whole
SENT = """
    this.dispatchEvent(new Event('input', {bubbles: true}));
    this.dispatchEvent(new Event('change', {bubbles: true}));
"""
IS_SELECT = "function() { return this.tagName === 'SELECT'; }"
# Of an option: choose it. Of a list: choose the option that is called so.
CHOOSE = """function(name) {
    const list = this.closest('select');
    if (!list) return false;
    const same = each => each.label.trim().toLowerCase() === (name || '').trim().toLowerCase();
    const option = this.tagName === 'OPTION' ? this : [...list.options].find(same);
    if (!option || option.disabled) return false;
    option.selected = list.multiple ? !option.selected : true;
    (function() { SENT }).call(list);
    return true;
}""".replace("SENT", SENT)
GONE = "gone"
KIND = """function() {
    if (!this.isConnected) return 'gone';
    const element = this.nodeType === 1 ? this : this.parentElement;
    if (element.isContentEditable || element.tagName === 'TEXTAREA') return 'text';
    const not = ['button', 'submit', 'reset', 'checkbox', 'radio', 'file', 'image', 'hidden'];
    return element.tagName === 'INPUT' && !not.includes(element.type) ? element.type : null;
}"""
TAKE = """function() {
    const element = this.nodeType === 1 ? this : this.parentElement;
    element.focus();
    if (element.select) element.select();
    else document.getSelection().selectAllChildren(element);
}"""
SET = f"""function(value) {{
    const before = this.value;
    this.focus();
    this.value = value;
    if (this.value !== value.toLowerCase() && this.value !== value) {{ this.value = before; return false; }}
    {SENT}
    return true;
}}"""


# ---------------------------------------------------------------------------------------------- Chromium's tree

ROLES = {
    "LayoutTable": "table",
    "LayoutTableRow": "row",
    "LayoutTableCell": "cell",
    "gridcell": "cell",
}
DROPPED = frozenset(("InlineTextBox", "ListMarker", "LineBreak"))
# Shown by what is in them: their own name says the same again.
NAMELESS = frozenset("row cell LabelText paragraph".split())
STATES = ("checked", "selected", "expanded", "disabled", "required", "pressed")


def from_chromium(nodes: Sequence[Mapping[str, Any]], frames: Mapping[int, Node]) -> Node:
    """The tree of `Accessibility.getFullAXTree`, without what is ignored there or said twice.

    frames  the trees of the pages in frames, by the key of the element that holds each
    """
    by_id = {node["nodeId"]: node for node in nodes}

    def made(node: Mapping[str, Any]) -> list[Node]:
        role = str(node.get("role", {}).get("value", ""))
        role = ROLES.get(role, role)
        if role in DROPPED:
            return []
        inside = [by_id[each] for each in node.get("childIds", ()) if each in by_id]
        if node.get("ignored") or role in ("generic", "MenuListPopup", "rowgroup"):
            return [one for each in inside for one in made(each)]
        name = " ".join(str(node.get("name", {}).get("value", "")).split())
        key = node.get("backendDOMNodeId", 0)
        if role == "StaticText":
            return [Node(role, name, key=key)] if name else []
        children = () if role in FIELDS else tuple(one for each in inside for one in made(each))
        if key in frames:
            children = (frames[key],)
        value = " ".join(str(node.get("value", {}).get("value", "")).split())
        states = {each["name"]: each["value"].get("value") for each in node.get("properties", ())}
        true = tuple(each for each in STATES if states.get(each) in (True, "true", "mixed"))
        return [Node(role, "" if role in NAMELESS else name, value, true, key, children)]

    roots = made(nodes[0]) if nodes else []
    return roots[0] if roots else Node("RootWebArea")
