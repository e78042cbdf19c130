"""MiniWoB++: 134 pages, each a task in a sentence, from the package of that name (arXiv:1802.08802).

    task: Enter the username "nathalie" and the password "n3" into the text fields and press login.
    Tab 0 (current): Login User Task
    [1] RootWebArea 'Login User Task'
            [2] StaticText 'Username'
            [3] textbox ''
            [4] StaticText 'Password'
            [5] textbox ''
            [6] button 'Login'

The pages run in Chromium and pay by their own JavaScript. Their limit of some seconds is switched off, because a policy
that thinks longer is no worse; nothing moves by itself any longer than it must (jQuery's effects are off). What has
neither text nor role, as the circles to click on or a star without a name, is told by its shape, colour and place.

All pages can be read; those that want something dragged or drawn cannot be solved with WebArena's actions (`DRAGGED`).
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

from ludus.envs.web.browser import BrowserLost, Chromium, Window
from ludus.envs.web.page import INSTRUCTION, Form, Misread, Sight, observation, parse, told
from ludus.envs.world import Split, place_of, refuse_if_over
from ludus.types import CannotFork, End, Explained, Message, Part, Step, Task

DRAGGED = frozenset(
    "bisect-angle circle-center drag-box drag-circle drag-cube drag-items drag-items-grid drag-shapes drag-shapes-2 "
    "drag-single-shape drag-sort-numbers draw-circle draw-line find-midpoint highlight-text highlight-text-2 "
    "resize-textarea right-angle text-editor use-colorwheel use-colorwheel-2".split()
)
SIZE = (500, 300)  # the pages take 160 x 210 of it, what opens over them a little more
FLIGHT_SIZE = (375, 667)
FLAGS = ("--allow-file-access-from-files",)  # some pages are in a frame of another page
AFTER = 1_000_000  # seeds of the test split begin here

BEGIN = """([seed, mode]) => {
    if (window.jQuery) jQuery.fx.off = true;
    core.EPISODE_MAX_TIME = 2147483647;  // the longest that setTimeout knows, 24 days
    core.setDataMode(mode);
    Math.seedrandom(seed);
    core.startEpisodeReal();
    core.hideDisplay();
    for (const id of ['query', 'click-canvas', 'sync-task-cover'])
        document.getElementById(id)?.setAttribute('aria-hidden', 'true');
    return core.getUtterance();
}"""
OUTCOME = "[WOB_DONE_GLOBAL, WOB_RAW_REWARD_GLOBAL, String(WOB_REWARD_REASON ?? '')]"
# Gives a name to what a screen reader would pass over: shapes, and elements without text that are told by their looks.
NAMED = """() => {
    const colours = {'255,0,0': 'red', '0,128,0': 'green', '0,255,0': 'lime', '0,0,255': 'blue', '255,255,0': 'yellow',
        '0,255,255': 'cyan', '255,0,255': 'magenta', '255,165,0': 'orange', '128,0,128': 'purple', '255,192,203':
        'pink', '128,128,128': 'grey', '0,0,0': 'black', '255,255,255': 'white', '165,42,42': 'brown', '128,128,0':
        'olive', '0,0,128': 'navy', '0,128,128': 'teal'};
    const colour = text => {
        const [r, g, b, a] = (text.match(/[0-9.]+/g) || []).map(Number);
        if (r === undefined || a === 0) return '';
        return colours[`${r},${g},${b}`] || `rgb(${r},${g},${b})`;
    };
    const area = document.getElementById('wrap') || document.body;
    const shapes = 'circle rect polygon ellipse path line image text'.split(' ');
    for (const each of area.querySelectorAll('*')) {
        if (each.closest('#query') || each.dataset.told === 'no') continue;
        const box = each.getBoundingClientRect(), style = getComputedStyle(each);
        if (!box.width || !box.height || style.visibility === 'hidden') continue;
        const tag = each.tagName.toLowerCase(), told = each.dataset.told === 'yes';
        if (!told) {
            const bare = !each.children.length && !each.textContent.trim();
            const silent = !each.hasAttribute('role') && !each.hasAttribute('aria-label') && !each.title;
            const plain = ['div', 'span', 'i', 'td', 'li', 'img', 'canvas', 'a', 'button'].includes(tag);
            const shape = each instanceof SVGElement && shapes.includes(tag);
            if (!(shape || (bare && silent && plain && !each.alt))) { each.dataset.told = 'no'; continue; }
            each.dataset.told = 'yes';
            if (!['a', 'button'].includes(tag)) each.setAttribute('role', 'img');
        }
        const fill = each instanceof SVGElement ? style.fill : style.backgroundColor;
        const called = each instanceof SVGElement ? [tag, each.textContent.trim()] : [each.id, ...each.classList];
        const middle = `at ${Math.round(box.x + box.width / 2)} ${Math.round(box.y + box.height / 2)}`;
        const size = `${Math.round(box.width)} wide ${Math.round(box.height)} high`;
        each.setAttribute('aria-label', [colour(fill), ...called, size, middle].filter(Boolean).join(' '));
    }
}"""


def _chromium() -> Chromium:
    return Chromium(flags=FLAGS)


@cache
def folder() -> Path:
    """The pages of the package, which need not be imported (that would want Selenium)."""
    spec = importlib.util.find_spec("miniwob")
    if spec is None or not spec.submodule_search_locations:
        raise Explained(
            "the pages of MiniWoB++ come with its package; pip install --no-deps miniwob (what it would bring along, "
            "Selenium, is not needed)"
        )
    return Path(spec.submodule_search_locations[0]) / "html"


@cache
def pages() -> Mapping[str, Path]:
    """Name -> file of all tasks of the package; those of FlightWoB are called flight.AA and so on."""
    small = {page.stem: page for page in folder().glob("miniwob/*.html")}
    flights = {
        f"flight.{page.parent.name}": page for page in folder().glob("flight/*/wrapper.html")
    }
    return dict(sorted((small | flights).items()))


@dataclass(eq=False)
class Visit:
    """A handle: the window, what is asked for, and each action with what it showed."""

    task: Task
    window: Window
    asked: str
    sight: Sight
    history: list[tuple[str, str]] = field(default_factory=list)
    over: bool = False


@dataclass(frozen=True)
class MiniWoB:
    """
    pages     some of pages(); by default all
    each      tasks of every page in the training split; the test split has a quarter of that, with other seeds
    pays      page: what the page says, -1 to 1; success: 1 for what the page pays with 1, else 0
    rows      lines of a page that are seen at once
    pictures  show what Chromium draws, beside the text
    """

    pages: tuple[str, ...] = ()
    each: int = 40
    pays: Literal["page", "success"] = "success"
    form: Form = "tree"
    rows: int = 60
    pictures: bool = False
    name: str = "miniwob"
    chromium: Chromium = field(default_factory=_chromium, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.each < 4:
            raise ValueError(f"each={self.each}; give 4 or more")
        if wrong := sorted(set(self.pages) - pages().keys()) if self.pages else []:
            raise ValueError(f"no pages {wrong}; ludus.envs.web.miniwob.pages() has them all")

    @property
    def asked(self) -> tuple[str, ...]:
        return self.pages or tuple(pages())

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        """Page by page in turn, each time with other seeds."""
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(Message("system", INSTRUCTION),),
                env=self.name,
                domain=self.asked[index % len(self.asked)],
                extras={"split": split, "index": index},
            )
            for index in range(self._counts()[split])
        ]

    def _counts(self) -> Mapping[Split, int]:
        return {"train": self.each * len(self.asked), "test": self.each // 4 * len(self.asked)}

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the page and the seed of its random numbers."""
        visit = await self._visited(task)
        return Step(visit, await self._shown(visit))

    async def step(self, state: Visit, action: str) -> Step:
        """`info["raw"]` is the page's own reward once it is over, and `info["reason"]` what it says about it."""
        refuse_if_over(state.over)
        info: dict[str, Any] = {"valid": True}
        wrong = None
        try:
            act = parse(action)
            if act.verb == "stop":
                state.over = True
                state.history.append((action, ""))
                return Step(state, "", 0.0, End.GAVE_UP, info)
            if act.verb in ("goto", "new_tab"):
                raise Misread("there is only this page")
            await state.window.do(act, told(state.sight.page, self.form), self.rows)
        except Misread as misread:
            wrong, info["valid"] = misread, False
        done, raw, reason = await state.window.script(OUTCOME)
        if done:
            state.over = True
            state.history.append((action, ""))
            paid = raw if self.pays == "page" else float(raw >= 1)
            end = End.SOLVED if raw >= 1 else End.FAILED
            return Step(state, "", float(paid), end, {**info, "raw": raw, "reason": reason})
        state.sight = await _looked(state.window)
        shown = await self._shown(state, wrong)
        state.history.append((action, Message("user", shown).text))
        return Step(state, shown, info=info)

    async def fork(self, state: Visit) -> Visit:
        """Another window, led through the same actions; CannotFork where the page then shows something else."""
        copy = await self._visited(state.task)
        try:
            for action, seen in state.history:
                step = await self.step(copy, action)
                if Message("user", step.observation).text != seen:
                    raise CannotFork(
                        f"{state.task.domain} shows something else when {action!r} is done again; some pages move with "
                        "time. Begin such branches at reset"
                    )
        except BaseException:
            await self.close(copy)
            raise
        return copy

    async def close(self, state: Visit) -> None:
        state.over = True
        await state.window.close()

    async def _visited(self, task: Task) -> Visit:
        split, index = place_of(self, task, self._counts())
        page = self.asked[index % len(self.asked)]
        seed = index // len(self.asked) + (AFTER if split == "test" else 0)
        size = FLIGHT_SIZE if page.startswith("flight.") else SIZE
        window = await self.chromium.open(pages()[page].as_uri(), size=size)
        try:
            given = json.dumps([str(seed), split])
            asked = str(await window.script(f"({BEGIN})({given})"))
            for _ in range(200):
                if await window.script("WOB_TASK_READY"):
                    break
                await asyncio.sleep(0.05)
            else:
                raise BrowserLost(
                    f"{page} is not ready after 10 s; its Chromium wants FLAGS of this file"
                )
            return Visit(task, window, asked, await _looked(window))
        except BaseException:
            await window.close()
            raise

    async def _shown(self, visit: Visit, wrong: Misread | None = None) -> str | tuple[Part, ...]:
        first = "\n".join((*((str(wrong),) if wrong else ()), f"task: {visit.asked}"))
        text = observation(visit.sight, self.form, self.rows, first)
        return (text, await visit.window.picture()) if self.pictures else text


async def _looked(window: Window) -> Sight:
    await window.script(NAMED)
    return await window.look()
