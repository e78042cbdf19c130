"""A content manager: the pages of a web site as drafts and published ones, reviews to let through, and customers."""

from __future__ import annotations

import sqlite3

import numpy as np

from ludus.envs.small.shop import ITEMS, NAMES
from ludus.envs.web.sites.forum import titles
from ludus.envs.web.sites.goal import Goal, Hand, Kind, stop
from ludus.envs.web.sites.shop import CITIES
from ludus.envs.web.sites.web import (
    Answer,
    Ask,
    Route,
    act,
    button,
    choice,
    every,
    field,
    form,
    heading,
    hidden,
    line,
    link,
    links,
    missing,
    one,
    page,
    paged,
    plain,
    rows,
    said,
    tick,
)
from ludus.envs.world import one_of

STATUSES = ("draft", "published")
SHOWN = 6

SCHEMA = """
create table pages(id integer primary key, title text, status text, menu int);
create table reviews(id integer primary key, author text, item text, stars int, status text);
create table customers(id integer primary key, name text, city text, orders int);
"""


def fill(database: sqlite3.Connection, rng: np.random.Generator, size: int) -> None:
    """`size` pages and customers, and half as many reviews, each by another person."""
    for at, title in enumerate(titles(rng, size), 1):
        row = (at, title, one_of(rng, STATUSES), int(rng.integers(2)))
        database.execute("insert into pages values (?, ?, ?, ?)", row)
    order = rng.permutation(len(NAMES))
    for at in range(1, min(size, len(NAMES)) + 1):
        customer = (at, NAMES[order[at - 1]], one_of(rng, CITIES), int(rng.integers(1, 10)))
        database.execute("insert into customers values (?, ?, ?, ?)", customer)
    order = rng.permutation(len(NAMES))
    for at in range(1, min(1 + size // 2, len(NAMES)) + 1):
        review = (at, NAMES[order[at - 1]], one_of(rng, ITEMS), int(rng.integers(1, 6)))
        database.execute("insert into reviews values (?, ?, ?, ?, 'waiting')", review)


# ---------------------------------------------------------------------------------------------- pages

TOP = links(
    ("pages", "/manager"), ("reviews", "/manager/reviews"), ("customers", "/manager/customers")
)


def front(db: sqlite3.Connection, ask: Ask) -> Answer:
    shown, around = paged(ask, every(db, "select id, title, status from pages order by id"), SHOWN)
    each = [f"{link(title, f'/manager/page/{n}')} {status}" for n, title, status in shown]
    return Answer(page("pages", TOP, heading("pages"), rows(each), around))


def a_page(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(db, "select title, status, menu from pages where id = ?", int(number))
    if found is None:
        return missing()
    title, status, menu = found
    shown = f"{status}, in the menu" if menu else status
    edit = form(
        f"/manager/page/{number}",
        field("title", title),
        choice("status", STATUSES, status),
        tick("menu", bool(menu)),
        button("save"),
    )
    return Answer(page(title, TOP, heading(title), line(shown), edit))


def save(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    if not said(ask, "title") or said(ask, "status") not in STATUSES:
        return Answer(page("pages", TOP, heading("a page has a title and a status")), 400)
    db.execute(
        "update pages set title = ?, status = ?, menu = ? where id = ?",
        (said(ask, "title"), said(ask, "status"), "menu" in ask.fields, int(number)),
    )
    return Answer(to=f"/manager/page/{number}")


def reviews(db: sqlite3.Connection, ask: Ask) -> Answer:
    found = every(db, "select * from reviews order by id")
    shown, around = paged(ask, found, SHOWN)
    each = []
    for number, author, item, stars, status in shown:
        chosen = (
            act("approve", "/manager/reviews", hidden("id", number))
            if status == "waiting"
            else status
        )
        each.append(f"{author}: {item} {stars} stars {chosen}")
    return Answer(page("reviews", TOP, heading("reviews"), rows(each), around))


def approve(db: sqlite3.Connection, ask: Ask) -> Answer:
    db.execute("update reviews set status = 'approved' where id = ?", (said(ask, "id"),))
    return Answer(to="/manager/reviews")


def customers(db: sqlite3.Connection, ask: Ask) -> Answer:
    wanted = said(ask, "q")
    found = [
        row
        for row in every(db, "select id, name, orders from customers order by id")
        if wanted.casefold() in row[1].casefold()
    ]
    shown, around = paged(ask, found, SHOWN)
    look = form("/manager/customers", field("search", wanted, "q"), button("find"), method="get")
    each = [f"{link(name, f'/manager/customer/{n}')} {orders} orders" for n, name, orders in shown]
    return Answer(page("customers", TOP, heading("customers"), look, rows(each), around))


def customer(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(db, "select name, city, orders from customers where id = ?", int(number))
    if found is None:
        return missing()
    name, city, orders = found
    told = (line(plain(f"city {city}")), line(f"{orders} orders"))
    return Answer(page(name, TOP, heading(name), *told))


N = r"([0-9]{1,9})"
ROUTES = (
    Route("GET", "/manager", front),
    Route("GET", f"/manager/page/{N}", a_page),
    Route("POST", f"/manager/page/{N}", save),
    Route("GET", "/manager/reviews", reviews),
    Route("POST", "/manager/reviews", approve),
    Route("GET", "/manager/customers", customers),
    Route("GET", f"/manager/customer/{N}", customer),
)


# ---------------------------------------------------------------------------------------------- tasks


def lives_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    name, city = one_of(rng, every(db, "select name, city from customers order by id"))
    text = f"answer the city of the customer {name}"
    return Goal("lives", text, "/manager", (name,), answer=city)


def where_lives(hand: Hand, name: str) -> str:
    if hand.on(name):
        return stop(hand.read(r"^city (.+)"))
    there = hand.on("customers")
    return (
        (hand.click("link", name) if there else None)
        or (hand.fill("textbox", "search", name, enter=True) if there else None)
        or hand.go("/manager/customers", "customers")
    )


def approve_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    number, author, item = one_of(
        rng, every(db, "select id, author, item from reviews order by id")
    )
    writes = (("update reviews set status = 'approved' where id = ?", (number,)),)
    text = f"approve the review of the {item} by {author}"
    return Goal("approve", text, "/manager", (author, item), writes)


def approve_it(hand: Hand, author: str, item: str) -> str:
    if not hand.on("reviews"):
        return hand.go("/manager/reviews", "reviews")
    if hand.read(rf"^{author}: {item} [0-9] stars (approved)"):
        return stop()
    wanted = hand.row(rf"^{author}: {item} [0-9] stars \[([0-9]+)\] button 'approve'")
    return wanted or hand.go("/manager/reviews", "next")


def publish_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    number, title, status, _ = one_of(rng, every(db, "select * from pages order by id"))
    if status != "draft":
        return None
    writes = (("update pages set status = 'published' where id = ?", (number,)),)
    return Goal("publish", f"publish the page {title}", "/manager", (title,), writes)


def to_page(hand: Hand, title: str) -> str:
    there = hand.on("pages")
    onwards = (hand.click("link", title) or hand.click("link", "next")) if there else None
    return onwards or hand.go("/manager", "pages")


def publish(hand: Hand, title: str) -> str:
    if not hand.on(title):
        return to_page(hand, title)
    if hand.read("^(published)"):
        return stop()
    return hand.choose("status", "published") or hand.click("button", "save") or stop()


def rename_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    number, old, _, menu = one_of(rng, every(db, "select * from pages order by id"))
    (title,) = titles(rng, 1)
    if menu or one(db, "select 1 from pages where title = ?", title):
        return None
    writes = (("update pages set title = ?, menu = 1 where id = ?", (title, number)),)
    text = f"rename the page {old} to {title} and put it in the menu"
    return Goal("rename", text, "/manager", (old, title), writes)


def rename(hand: Hand, old: str, title: str) -> str:
    if hand.on(old):
        return (
            hand.fill("textbox", "title", title)
            or hand.tick("menu")
            or hand.click("button", "save")
            or stop()
        )
    if hand.on(title):
        done = hand.read("(in the menu)")
        return stop() if done else hand.tick("menu") or hand.click("button", "save") or stop()
    if hand.on("pages") and hand.number("link", title):
        return hand.click("link", title) or stop()
    return to_page(hand, old)


KINDS = (
    Kind("lives", lives_goal, where_lives, 3),
    Kind("approve", approve_goal, approve_it, 3),
    Kind("publish", publish_goal, publish, 4),
    Kind("rename", rename_goal, rename, 5),
)
