"""Web sites of WebArena's four kinds: a shop, a forum, a place for code, and a content manager.

Each is one file with its tables, pages and tasks. They share one database, which is a value: an episode begins with
bytes that its task makes, and goes on with those that its last request left.

    data = fresh(("shop", "forum"), 6, rng)
    answer, data = visit(data, Ask("POST", "/shop/account", {"city": "Rome"}))
"""

from __future__ import annotations

import sqlite3
from collections.abc import Mapping, Sequence
from functools import cache, lru_cache
from types import ModuleType

import numpy as np

from ludus.envs.web.sites import forum, manager, repository, shop
from ludus.envs.web.sites.goal import Kind
from ludus.envs.web.sites.web import (
    Answer,
    Ask,
    Route,
    empty,
    heading,
    link,
    opened,
    page,
    respond,
    rows,
)

SITES: Mapping[str, ModuleType] = {
    "shop": shop,
    "forum": forum,
    "repository": repository,
    "manager": manager,
}
KINDS: Mapping[str, Kind] = {
    f"{name} {kind.name}": kind for name, site in SITES.items() for kind in site.KINDS
}
"""`shop price` and so on -> the template."""


def front(database: sqlite3.Connection, ask: Ask) -> Answer:
    return Answer(page("sites", "", heading("sites"), rows([link(s, f"/{s}") for s in SITES])))


ROUTES = (Route("GET", "/", front), *(route for site in SITES.values() for route in site.ROUTES))


@cache
def _tables() -> bytes:
    return empty("".join(site.SCHEMA for site in SITES.values()))


def fresh(sites: Sequence[str], size: int, rng: np.random.Generator) -> bytes:
    """A database in which these sites have something on their pages."""
    with opened(_tables()) as database:
        database.execute("begin")
        for name in SITES:
            if name in sites:
                SITES[name].fill(database, rng, size)
        database.execute("commit")
        return database.serialize()


def visit(data: bytes, ask: Ask) -> tuple[Answer, bytes]:
    """What the sites answer, and the database after it. A GET changes nothing."""
    if ask.method == "GET":
        return _got(data, ask.path, tuple(sorted(ask.fields.items()))), data
    with opened(data) as database:
        return respond(ROUTES, database, ask), database.serialize()


@lru_cache(maxsize=2048)
def _got(data: bytes, path: str, fields: tuple[tuple[str, str], ...]) -> Answer:
    """Kept, because the attempts of a group ask for the same pages of the same database."""
    with opened(data) as database:
        return respond(ROUTES, database, Ask("GET", path, dict(fields)))
