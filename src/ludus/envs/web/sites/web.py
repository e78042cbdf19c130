"""What the four sites share: requests and answers as plain values, the HTML of a page, and databases that are values.

A site is a list of routes; a route is a function of a database and a request. No page has a script or loads anything,
so a browser shows all there is, and so does a reader of the HTML alone.
"""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from html import escape
from typing import Any, Literal
from urllib.parse import quote_plus

Method = Literal["GET", "POST"]


@dataclass(frozen=True)
class Ask:
    """A request: `fields` are those of the query of a GET, and of the form of a POST."""

    method: Method
    path: str
    fields: Mapping[str, str]


@dataclass(frozen=True)
class Answer:
    """A page; or, with `to`, the address of the page to show instead."""

    html: str = ""
    status: int = 200
    to: str = ""


@dataclass(frozen=True)
class Route:
    """`handle(database, request, *groups of the pattern)`; the pattern is matched with the whole path."""

    method: Method
    pattern: str
    handle: Callable[..., Answer]


def respond(routes: Sequence[Route], database: sqlite3.Connection, ask: Ask) -> Answer:
    """What the first fitting route answers; a page that says so where there is none."""
    for route in routes:
        found = re.fullmatch(route.pattern, ask.path)
        if found is not None and route.method == ask.method:
            return route.handle(database, ask, *found.groups())
    return missing()


def missing() -> Answer:
    return Answer(page("not found", "", heading("not found")), 404)


# ---------------------------------------------------------------------------------------------- databases


@contextmanager
def opened(data: bytes) -> Iterator[sqlite3.Connection]:
    """A database in memory with this content; what is written to it is lost unless `serialize` is called."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.deserialize(data)
        yield database


def empty(schema: str) -> bytes:
    """A database with tables and nothing in them; its pages are small, since the tables are."""
    with closing(sqlite3.connect(":memory:", isolation_level=None)) as database:
        database.executescript(f"pragma page_size = 512; {schema}")
        return database.serialize()


def content(data: bytes) -> dict[str, list[tuple[Any, ...]]]:
    """Table -> its rows in an order of their own: what two databases are compared by."""
    with opened(data) as database:
        names = database.execute("select name from sqlite_master where type = 'table'").fetchall()
        return {
            name: sorted(database.execute(f"select * from {name}").fetchall(), key=repr)
            for (name,) in names
        }


def written(data: bytes, writes: Sequence[tuple[str, tuple[Any, ...]]]) -> bytes:
    """The database after some statements."""
    with opened(data) as database:
        for statement, given in writes:
            database.execute(statement, given)
        return database.serialize()


def one(database: sqlite3.Connection, query: str, *given: Any) -> Any:
    """The first row, or None."""
    return database.execute(query, given).fetchone()


def every(database: sqlite3.Connection, query: str, *given: Any) -> list[Any]:
    return database.execute(query, given).fetchall()


# ---------------------------------------------------------------------------------------------- pages

STYLE = "body{font:16px sans-serif;margin:1em}nav a{margin-right:1em}li form{display:inline}li{margin:.3em}"


def page(title: str, links: str, *blocks: str) -> str:
    """A whole page; `links` are those on top."""
    top = f"<nav>{links}</nav>" if links else ""
    return (
        f'<!doctype html><html lang="en"><head><title>{escape(title)}</title>'
        f"<style>{STYLE}</style></head><body>{top}<main>{''.join(blocks)}</main></body></html>"
    )


def link(text: str, to: str) -> str:
    return f'<a href="{escape(to)}">{escape(text)}</a>'


def plain(text: object) -> str:
    """What was typed by somebody, or comes out of a table: shown as it is, whatever is in it."""
    return escape(str(text))


def links(*pairs: tuple[str, str]) -> str:
    return " ".join(link(*pair) for pair in pairs)


def heading(text: str) -> str:
    return f"<h1>{escape(text)}</h1>"


def line(*parts: str) -> str:
    """A paragraph of HTML, as `rows` is a list of it."""
    return f"<p>{' '.join(parts)}</p>"


def rows(parts: Sequence[str]) -> str:
    return f"<ul>{''.join(f'<li>{part}</li>' for part in parts)}</ul>" if parts else line("nothing")


def form(to: str, *controls: str, method: Literal["get", "post"] = "post") -> str:
    # autocomplete: a browser would fill in what was typed before when it goes back
    return f'<form action="{escape(to)}" method="{method}" autocomplete="off">{" ".join(controls)}</form>'


def field(label: str, value: str = "", name: str = "") -> str:
    """`name` is what it is sent as, the label by default."""
    value = f' value="{escape(value)}"' if value else ""
    return f'<label>{escape(label)} <input name="{name or label}"{value} maxlength="60"></label>'


def hidden(name: str, value: object) -> str:
    return f'<input type="hidden" name="{name}" value="{escape(str(value))}">'


def tick(label: str, on: bool) -> str:
    return f'<label><input type="checkbox" name="{label}"{" checked" * on}> {escape(label)}</label>'


def choice(label: str, options: Sequence[str], chosen: str) -> str:
    told = "".join(
        f"<option{' selected' * (each == chosen)}>{escape(each)}</option>" for each in options
    )
    return f'<label>{escape(label)} <select name="{label}">{told}</select></label>'


def button(text: str) -> str:
    return f"<button>{escape(text)}</button>"


def act(text: str, to: str, *extra: str) -> str:
    """A button that does one thing."""
    return form(to, *extra, button(text))


def paged(ask: Ask, found: Sequence[Any], size: int) -> tuple[Sequence[Any], str]:
    """The part of a list that a page shows, and the links to what comes before and after it."""
    asked = ask.fields.get("page", "1")
    at = max(
        1, min(int(asked) if asked.isdecimal() and len(asked) < 6 else 1, -(-len(found) // size))
    )
    query = f"{ask.path}?q={quote_plus(ask.fields.get('q', ''))}&page="
    around = [("previous", f"{query}{at - 1}")] * (at > 1)
    around += [("next", f"{query}{at + 1}")] * (at * size < len(found))
    return found[(at - 1) * size : at * size], line(links(*around)) if around else ""


def said(ask: Ask, name: str) -> str:
    """What was typed into a field, on one line and not longer than the field takes."""
    return " ".join(ask.fields.get(name, "").split())[:60]
