"""What a task on the sites asks for, how its success is judged, and the hand of somebody who knows the way."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ludus.envs.web.page import Told, only

Writes = tuple[tuple[str, tuple[Any, ...]], ...]


@dataclass(frozen=True)
class Goal:
    """One task.

    start   the address that it begins at
    given   what its solver has to know, and an agent has to read: out of the text, or out of the pages
    writes  what it changes in the database: nothing else may change
    answer  what must be answered; "" where nothing is asked for
    page    the path of the page that must be in front at the end; "" where any may be
    """

    kind: str
    text: str
    start: str
    given: tuple[str, ...]
    writes: Writes = ()
    answer: str = ""
    page: str = ""

    @property
    def identity(self) -> tuple[object, ...]:
        """What tells it from others. Where few things can be asked for, what is right then tells them apart too."""
        return self.text, self.given, self.answer


@dataclass(frozen=True)
class Kind:
    """A template of tasks.

    draw   (database, rng) -> a goal; None where this database has none
    solve  (hand, *given) -> the next action
    steps  that it takes from its start when nothing has to be looked for
    """

    name: str
    draw: Callable[[sqlite3.Connection, np.random.Generator], Goal | None]
    solve: Callable[..., str]
    steps: int


def cleaned(answer: str) -> str:
    """As answers are compared: without case, outer quotes and the space around."""
    return " ".join(answer.casefold().split()).strip("'\"").strip()


class Hand:
    """What is on the page, for a scripted solver: it reads lines and writes actions.

    line  of the page that it used last, so that whoever plays can scroll there
    """

    def __init__(self, told: Told, path: str) -> None:
        self.told, self.path, self.line = told, path, 0

    def read(self, pattern: str) -> str | None:
        """The first group of the first line that fits."""
        for at, text in enumerate(self.told.lines):
            if found := re.search(pattern, text):
                self.line = at
                return found[1]
        return None

    def on(self, heading: str) -> bool:
        return f"heading '{heading}'" in self.told.lines

    def number(self, role: str, name: str) -> int | None:
        at = only(self.told.elements, role, name)
        if at is not None:
            self.read(rf"(\[{at}\] )")
        return at

    def click(self, role: str, name: str) -> str | None:
        """The click on what is called so, if it is there."""
        at = self.number(role, name)
        return None if at is None else f"click [{at}]"

    def row(self, pattern: str) -> str | None:
        """The click on the number that the first group of the pattern catches."""
        at = self.read(pattern)
        return None if at is None else f"click [{at}]"

    def fill(self, role: str, name: str, text: str, enter: bool = False) -> str | None:
        """What still has to be typed into a field; None where it holds that text, or is not there."""
        at = self.number(role, name)
        if at is None or self.told.elements[at - 1].value == text:
            return None
        return f"type [{at}] [{text}] [{int(enter)}]"

    def tick(self, name: str) -> str | None:
        at = self.number("checkbox", name)
        if at is None or "checked" in self.told.elements[at - 1].states:
            return None
        return f"click [{at}]"

    def choose(self, name: str, option: str) -> str | None:
        """The click on an option that is not chosen yet."""
        at = self.number("combobox", name)
        if at is None or self.told.elements[at - 1].value == option:
            return None
        return self.click("option", option)

    def go(self, path: str, *names: str) -> str:
        """The first link of these names that is there; else the address, which always leads on."""
        clicks = (self.click("link", name) for name in names)
        return next((each for each in clicks if each), f"goto [{path}]")


def stop(answer: str | None = "") -> str:
    return f"stop [{answer or ''}]"
