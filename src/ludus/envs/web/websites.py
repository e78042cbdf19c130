"""Web sites of WebArena's four kinds to train browser agents on, read by a plain reader or in a real Chromium.

    task: cancel the order of the red hat
    [1] link 'shop' [2] link 'cart' [3] link 'orders' [4] link 'account'
    [5] textbox 'search' [6] button 'find'
    ...
                                                  click [3]
    [5] link 'order 31' blue cup sent
    [6] link 'order 57' red hat open              click [6] ... click [5] ... stop []

The sites are ludus.envs.web.sites. Success is judged when the agent stops, from the database (what was asked for has
been changed and nothing else), the answer and the page in front. Without a browser a state is a value and a step takes
a fraction of a millisecond; `browser=True` shows the same pages in Chromium, where they read the same.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, lru_cache
from typing import Any
from urllib.parse import parse_qsl, quote, unquote, urlencode, urljoin

import numpy as np

from ludus.envs.small.shop import COLOURS, ITEMS, NAMES
from ludus.envs.web import plain_browser
from ludus.envs.web.browser import Chromium, Window
from ludus.envs.web.page import (
    CONTROLS,
    FIELDS,
    INSTRUCTION,
    LISTS,
    NOWHERE,
    UNREACHABLE,
    Act,
    Form,
    Misread,
    Sight,
    keys_of,
    observation,
    parse,
    told,
)
from ludus.envs.web.sites import KINDS, SITES, forum, fresh, repository, visit
from ludus.envs.web.sites.goal import Goal, Hand, cleaned
from ludus.envs.web.sites.server import COOKIE, Server
from ludus.envs.web.sites.shop import CITIES
from ludus.envs.web.sites.web import Ask, content, opened, written
from ludus.envs.world import Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.types import CannotFork, End, Key, Message, Part, Step, Task

PROMPT = Message("system", INSTRUCTION)
BRIEF = Message(
    "system",
    "Do the task. Write one action: click [number], type [number] [text] [1], go_back, stop [answer].",
)  # for small models: what the sites' own tasks need
HOST = "http://sites"  # what an address may begin with, beside a path


@dataclass(frozen=True)
class Start:
    """What a task begins with: a goal and a database that it can be reached in. `kind` is one of KINDS."""

    kind: str
    goal: Goal
    data: bytes = field(repr=False)


@dataclass(frozen=True)
class State:
    """A value: the database as it is now, and the browser."""

    start: Start
    data: bytes = field(repr=False)
    browser: plain_browser.Browser
    over: bool = False

    @property
    def sight(self) -> Sight:
        return plain_browser.sight(self.browser)


@dataclass(eq=False)
class Visit:
    """A handle: a window of Chromium, the name of its session, and each action with what it showed."""

    start: Start
    window: Window
    session: str
    sight: Sight
    history: list[tuple[str, str]] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class Websites:
    """
    sites     some of SITES
    kinds     of tasks, some of KINDS; by default all of the sites. Tasks take them in turn
    browser   in Chromium, instead of the plain reader
    size      products, threads and so on of a site
    rows      lines of a page that are seen at once; the others are scrolled to
    prompt    PROMPT names all actions; BRIEF is shorter
    remind    tell the task in every observation, as WebArena's prompt does; else in the first
    pictures  show what Chromium draws, beside the text
    chromium  to share one with others, or to set how many windows there may be
    """

    sites: tuple[str, ...] = tuple(SITES)
    kinds: tuple[str, ...] = ()
    browser: bool = False
    size: int = 6
    form: Form = "lines"
    rows: int = 24
    remind: bool = True
    pictures: bool = False
    train: int = 1024
    test: int = 128
    seed: int = 0
    prompt: Message = PROMPT
    name: str = "websites"
    chromium: Chromium | None = field(default=None, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.sites or not set(self.sites) <= SITES.keys():
            raise ValueError(f"sites={self.sites}; give some of {', '.join(SITES)}")
        wrong = [
            each for each in self.kinds if each not in KINDS or each.split()[0] not in self.sites
        ]
        if wrong:
            raise ValueError(f"no kinds {wrong} on {self.sites}; there are {', '.join(KINDS)}")
        if not 4 <= self.size <= 24 or self.rows < 4:
            raise ValueError(
                f"size={self.size}, rows={self.rows}; give a size of 4 to 24 and 4 rows or more"
            )
        if self.pictures and not self.browser:
            raise ValueError("pictures are what Chromium draws; give browser=True as well")

    @property
    def asked(self) -> tuple[str, ...]:
        """The kinds of tasks that there are."""
        return self.kinds or tuple(kind for kind in KINDS if kind.split()[0] in self.sites)

    def start(self, split: Split, index: int) -> Start:
        return _start(self.sites, self.asked, self.size, self.seed, split, index)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        sites = [name for name in SITES if name in self.sites]
        # A sign with a space before it is one token only where it is listed.
        signs = ("'", "|")
        return *listed(self.prompt.text, _SAID, *sites, *(_WORDS[name] for name in sites)), *signs

    def expert(self, state: State | Visit) -> str:
        """The solver of the task's kind; it scrolls to what it uses first."""
        sight, goal = state.sight, state.start.goal
        lines, shown = told(sight.page), told(sight.page, self.form)
        hand = Hand(lines, path_of(sight.url))
        action = KINDS[state.start.kind].solve(hand, *goal.given)
        if action.startswith("goto"):
            return action
        line = hand.line
        if self.form == "tree":  # a solver reads lines; in the tree all is numbered, a line each
            at = re.match(r"\w+ \[([0-9]+)\]", action) if not action.startswith("stop") else None
            node = lines.elements[int(at[1]) - 1] if at else None
            line = shown.elements.index(node) if node else sight.screen * self.rows
            action = action.replace(f"[{at[1]}]", f"[{line + 1}]", 1) if at else action
        wanted, seen = line // self.rows, sight.screen
        if wanted == seen:
            return action
        return "scroll [down]" if wanted > seen else "scroll [up]"

    def beginner(self, state: State | Visit, rng: np.random.Generator) -> str:
        """Clicks on anything, types words of the task into fields, and stops now and then with something it read."""
        page = told(state.sight.page, self.form)
        words = state.start.goal.text.split()
        if page.lines and rng.random() < 0.1:
            return f"stop [{one_of(rng, one_of(rng, page.lines).split()).strip('[]')}]"
        choices = ["go_back"]
        for at, each in enumerate(page.elements, 1):
            if each.role in FIELDS:
                choices.append(f"type [{at}] [{one_of(rng, words)}] [{int(rng.integers(2))}]")
            elif each.role in CONTROLS - LISTS:
                choices.append(f"click [{at}]")
        return one_of(rng, choices)

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for index in range(self.train if split == "train" else self.test):
            kind = self.asked[index % len(self.asked)]
            made.append(
                Task(
                    id=f"{self.name}-{split}-{index}",
                    prompt=(self.prompt,),
                    env=self.name,
                    difficulty=KINDS[kind].steps,
                    domain=kind,
                    extras={"split": split, "index": index},
                )
            )
        return made

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes what is on the pages and what is asked for."""
        start = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        if self.browser:
            visit = await self._visited(start)
            return Step(visit, await self._shown(visit, first=True))
        fetch, after = _fetching(start.data)
        browser = plain_browser.opened(start.goal.start, fetch)
        state = State(start, after(), browser)
        return Step(state, self._told(state.sight, start.goal, first=True))

    async def step(self, state: State | Visit, action: str) -> Step:
        """`info["valid"]` is False where the action could not be read or done; nothing has then happened."""
        refuse_if_over(state.over)
        if isinstance(state, Visit):
            return await self._visit_step(state, action)
        seen, goal = state.sight, state.start.goal
        info = {"anchor": self._told(seen, goal), "valid": True, "path": path_of(seen.url)}
        try:
            act = _here(parse(action))
            if act.verb == "stop":
                return _judged(
                    replace(state, over=True), state.start, state.data, seen.url, act.text, info
                )
            numbered = told(seen.page, self.form)
            fetch, after = _fetching(state.data)
            browser = plain_browser.do(state.browser, act, numbered, self.rows, fetch)
        except Misread as wrong:
            return Step(state, self._told(seen, goal, wrong), info={**info, "valid": False})
        state = replace(state, data=after(), browser=browser)
        return Step(state, self._told(state.sight, goal), info=info)

    async def fork(self, state: State | Visit) -> State | Visit:
        """A state is its own copy; a window is led through the same actions again."""
        if isinstance(state, State):
            return state
        copy = await self._visited(state.start)
        try:
            for action, seen in state.history:
                step = await self._visit_step(copy, action)
                if Message("user", step.observation).text != seen:
                    raise CannotFork(f"{action!r} shows something else when it is done again")
        except BaseException:
            await self.close(copy)
            raise
        return copy

    async def close(self, state: State | Visit) -> None:
        if isinstance(state, Visit):
            state.over = True
            _server().end(state.session)
            await state.window.close()

    def _told(
        self, seen: Sight, goal: Goal, wrong: Misread | None = None, *, first: bool = False
    ) -> str:
        asked = f"task: {goal.text}" if first or self.remind else ""
        lines = [part for part in (str(wrong) if wrong else "", asked) if part]
        return observation(seen, self.form, self.rows, "\n".join(lines))

    # ------------------------------------------------------------------------------------ in Chromium

    async def _visited(self, start: Start) -> Visit:
        server, chromium = _server(), self.chromium or _chromium()
        session = server.begin(start.data)
        try:
            cookie = {"name": COOKIE, "value": session, "url": server.url}
            window = await chromium.open(server.url + start.goal.start, cookies=[cookie])
            try:
                return Visit(start, window, session, await _looked(window))
            except BaseException:
                await asyncio.shield(window.close())
                raise
        except BaseException:
            server.end(session)
            raise

    async def _visit_step(self, visit: Visit, action: str) -> Step:
        seen, goal = visit.sight, visit.start.goal
        info = {"anchor": self._told(seen, goal), "valid": True, "path": path_of(seen.url)}
        wrong = None
        try:
            act = _here(parse(action))
            if act.verb == "stop":
                visit.over = True
                data = _server().data(visit.session)
                step = _judged(visit, visit.start, data, seen.url, act.text, info)
                visit.history.append((action, ""))
                return step
            if act.verb == "goto":
                act = replace(act, text=_server().url + act.text)
            await visit.window.do(act, told(seen.page, self.form), self.rows)
        except Misread as misread:
            wrong, info["valid"] = misread, False
        visit.sight = await _looked(visit.window)
        shown = await self._shown(visit, wrong)
        visit.history.append((action, Message("user", shown).text))
        return Step(visit, shown, info=info)

    async def _shown(
        self, visit: Visit, wrong: Misread | None = None, *, first: bool = False
    ) -> str | tuple[Part, ...]:
        text = self._told(visit.sight, visit.start.goal, wrong, first=first)
        return (text, await visit.window.picture()) if self.pictures else text


async def _looked(window: Window) -> Sight:
    seen = await window.look()
    return replace(seen, url=seen.url.removeprefix(_server().url))


@cache
def _server() -> Server:
    return Server()


@cache
def _chromium() -> Chromium:
    return Chromium()


def _judged(
    after: State | Visit, start: Start, data: bytes, url: str, answer: str, info: Mapping[str, Any]
) -> Step:
    """The end of an episode: 1 if everything that was asked for is so, and nothing else has changed."""
    if solved(start, data, url, answer):
        return Step(after, "", 1.0, End.SOLVED, info)
    return Step(after, "", 0.0, End.FAILED, info)


def solved(start: Start, data: bytes, url: str, answer: str) -> bool:
    goal = start.goal
    return (
        (not goal.answer or cleaned(answer) == cleaned(goal.answer))
        and (not goal.page or path_of(url) == goal.page)
        and content(data) == content(written(start.data, goal.writes))
    )


def path_of(url: str) -> str:
    return url.partition("?")[0]


def _here(act: Act) -> Act:
    """The action where both readers do the same: of the keys only Enter, and addresses of the sites in one spelling."""
    if act.verb == "press" and keys_of(act.text) != "Enter":
        raise Misread(plain_browser.ENTER_ONLY)
    return replace(act, text=_address(act.text)) if act.verb == "goto" else act


def _address(text: str) -> str:
    """The path and query of an address of the sites, as a browser would write them; only the sites can be reached."""
    path = text.removeprefix(HOST) or "/"
    if not path.startswith("/") or path.startswith("//") or "\\" in path:
        raise Misread(UNREACHABLE)
    path, _, query = path.partition("#")[0].partition("?")
    parts = (quote(unquote(part), safe="!$&'()*+,;=:@") for part in path.split("/"))
    path = urljoin(f"{HOST}/", "/".join(parts)).removeprefix(HOST)  # without . and ..
    if path.startswith("//"):
        raise Misread(UNREACHABLE)
    query = urlencode(parse_qsl(query, keep_blank_values=True))
    return f"{path}?{query}" if query else path


@lru_cache(maxsize=1024)
def _start(
    sites: tuple[str, ...], kinds: tuple[str, ...], size: int, seed: int, split: Split, index: int
) -> Start:
    """The goal and database of a task; no goal of the test split is one of the training split."""
    name = kinds[index % len(kinds)]
    key = Key(seed, ("websites", split, index, name))

    def draw(rng: np.random.Generator) -> Start | None:
        data = fresh(sites, size, rng)
        with opened(data) as database:
            goal = KINDS[name].draw(database, rng)
        return None if goal is None else Start(name, goal, data)

    return draw_for(split, key, draw, lambda start: start.goal.identity)


def _fetching(data: bytes) -> tuple[plain_browser.Fetch, Any]:
    """What gets pages out of a database, and the database after it."""

    def fetch(method: Any, address: str, fields: Mapping[str, str]) -> tuple[str, str]:
        nonlocal data
        path, query = plain_browser.split(address)
        answer, data = visit(data, Ask(method, path, fields if method == "POST" else query))
        return fetch("GET", answer.to, {}) if answer.to else (address, answer.html)

    return fetch, lambda: data


_SAID = (
    "task link button textbox combobox option checkbox heading checked selected more above below Tab current "
    "next previous nothing not found sites search find save no such action write element on this page tab "
    f"this is the only tab {NOWHERE[-1]} {NOWHERE[1]} {UNREACHABLE} can be typed into a has no option"
)
_WORDS = {
    "shop": " ".join(
        (
            *COLOURS,
            *ITEMS,
            *CITIES,
            "cart orders account price stock amount add remove order cancel open sent cancelled city save answer the "
            "of change my to no such amount",
        )
    ),
    "forum": " ".join(
        (
            *forum.BOARDS,
            *forum.QUALITIES,
            *forum.TOPICS,
            *forum.REMARKS,
            *NAMES,
            "boards profile motto new thread in by votes vote voted comment post me title text answer who wrote the "
            "for show with most on write a has",
        )
    ),
    "repository": " ".join(
        (
            *repository.PROJECTS,
            *repository.VERBS,
            *repository.PARTS,
            *forum.QUALITIES,
            *forum.TOPICS,
            *NAMES,
            "projects issues commits new issue stars star starred of by open closed close reopen in assigned to "
            "assignee nobody title create answer who made the commit give a and how many it has then assign an",
        )
    ),
    "manager": " ".join(
        (
            *forum.QUALITIES,
            *forum.TOPICS,
            *NAMES,
            *ITEMS,
            *CITIES,
            "pages reviews customers title status draft published menu in the waiting approved approve stars orders "
            "city answer of customer review by publish page rename to and put it a has",
        )
    ),
}
