"""A forum: boards with threads, votes and comments, and the user's own profile."""

from __future__ import annotations

import sqlite3

import numpy as np

from ludus.envs.small.shop import NAMES
from ludus.envs.web.sites.goal import Goal, Hand, Kind, stop
from ludus.envs.web.sites.web import (
    Answer,
    Ask,
    Route,
    act,
    button,
    every,
    field,
    form,
    heading,
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
)
from ludus.envs.world import one_of

BOARDS = ("garden", "music", "travel", "food")
QUALITIES = tuple("old new small big slow fast".split())
TOPICS = tuple("train song tree soup bike map rain boat".split())
REMARKS = tuple("good bad funny sad".split())
ME = "me"
SHOWN = 6

SCHEMA = """
create table threads(id integer primary key, board text, title text, author text, body text, votes int, voted int);
create table comments(thread int, author text, body text);
create table profile(motto text);
"""


def titles(rng: np.random.Generator, count: int) -> list[str]:
    """Different ones."""
    every_title = [f"{quality} {topic}" for quality in QUALITIES for topic in TOPICS]
    return [every_title[at] for at in rng.permutation(len(every_title))[:count]]


def fill(database: sqlite3.Connection, rng: np.random.Generator, size: int) -> None:
    """`size` threads, the same number on each board as far as that goes, with different votes."""
    votes = rng.permutation(np.arange(1, 10 * size))[:size].tolist()
    for at, title in enumerate(titles(rng, size)):
        author, remark = one_of(rng, NAMES), one_of(rng, REMARKS)
        database.execute(
            "insert into threads values (?, ?, ?, ?, ?, ?, 0)",
            (at + 1, BOARDS[at % len(BOARDS)], title, author, remark, votes[at]),
        )
        if rng.random() < 0.5:
            comment = (at + 1, one_of(rng, NAMES), one_of(rng, REMARKS))
            database.execute("insert into comments values (?, ?, ?)", comment)
    database.execute("insert into profile values (?)", (one_of(rng, REMARKS),))


# ---------------------------------------------------------------------------------------------- pages

TOP = links(("boards", "/forum"), ("profile", "/forum/profile"))


def front(db: sqlite3.Connection, ask: Ask) -> Answer:
    each = [link(board, f"/forum/board/{board}") for board in BOARDS]
    return Answer(page("boards", TOP, heading("boards"), rows(each)))


def board(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    if name not in BOARDS:
        return missing()
    found = every(db, "select id, title, votes from threads where board = ? order by id", name)
    shown, around = paged(ask, found, SHOWN)
    each = [
        f"{link(title, f'/forum/thread/{number}')} votes {votes}" for number, title, votes in shown
    ]
    write = line(link("new thread", f"/forum/new/{name}"))
    return Answer(page(name, TOP, heading(name), write, rows(each), around))


def thread(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(
        db, "select title, author, body, votes, voted from threads where id = ?", int(number)
    )
    if found is None:
        return missing()
    title, author, body, votes, voted = found
    where = f"/forum/thread/{number}"
    told = [
        f"{who}: {what}"
        for who, what in every(
            db, "select author, body from comments where thread = ? order by rowid", int(number)
        )
    ]
    vote = "voted" if voted else act("vote", f"{where}/vote")
    blocks = (
        heading(title),
        line(plain(f"by {author}")),
        line(plain(body)),
        rows([f"votes {votes} {vote}"]),
        rows([plain(each) for each in told]) if told else "",
        form(f"{where}/comment", field("comment"), button("post")),
    )
    return Answer(page(title, TOP, *blocks))


def vote(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    db.execute(
        "update threads set votes = votes + 1, voted = 1 where id = ? and not voted", (int(number),)
    )
    return Answer(to=f"/forum/thread/{number}")


def comment(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    if one(db, "select 1 from threads where id = ?", int(number)) is None:
        return missing()
    if said(ask, "comment"):
        db.execute("insert into comments values (?, ?, ?)", (int(number), ME, said(ask, "comment")))
    return Answer(to=f"/forum/thread/{number}")


def new(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    if name not in BOARDS:
        return missing()
    write = form(f"/forum/new/{name}", field("title"), field("text"), button("post"))
    return Answer(page("new thread", TOP, heading(f"new thread in {name}"), write))


def post(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    if name not in BOARDS:
        return missing()
    if not said(ask, "title"):
        return Answer(page("new thread", TOP, heading("a thread has a title")), 400)
    number = db.execute(
        "insert into threads(board, title, author, body, votes, voted) values (?, ?, ?, ?, 1, 1)",
        (name, said(ask, "title"), ME, said(ask, "text")),
    ).lastrowid
    return Answer(to=f"/forum/thread/{number}")


def profile(db: sqlite3.Connection, ask: Ask) -> Answer:
    (motto,) = one(db, "select motto from profile")
    change = form("/forum/profile", field("motto", motto), button("save"))
    return Answer(page("profile", TOP, heading("profile"), change))


def save(db: sqlite3.Connection, ask: Ask) -> Answer:
    db.execute("update profile set motto = ?", (said(ask, "motto"),))
    return Answer(to="/forum/profile")


N, BOARD = r"([0-9]{1,9})", r"([a-z]+)"
ROUTES = (
    Route("GET", "/forum", front),
    Route("GET", f"/forum/board/{BOARD}", board),
    Route("GET", f"/forum/thread/{N}", thread),
    Route("POST", f"/forum/thread/{N}/vote", vote),
    Route("POST", f"/forum/thread/{N}/comment", comment),
    Route("GET", f"/forum/new/{BOARD}", new),
    Route("POST", f"/forum/new/{BOARD}", post),
    Route("GET", "/forum/profile", profile),
    Route("POST", "/forum/profile", save),
)


# ---------------------------------------------------------------------------------------------- tasks


def some_thread(db: sqlite3.Connection, rng: np.random.Generator) -> tuple[int, str, str, str]:
    return one_of(rng, every(db, "select id, board, title, author from threads order by id"))


def author_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    _, where, title, author = some_thread(db, rng)
    text = f"answer who wrote the thread {title} in {where}"
    return Goal("author", text, "/forum", (title, where), answer=author)


def to_board(hand: Hand, where: str) -> str:
    return hand.click("link", where) or hand.go("/forum", "boards")


def to_thread(hand: Hand, title: str, where: str) -> str:
    on_board = hand.on(where)
    next_page = hand.click("link", "next") if on_board else None
    return (hand.click("link", title) if on_board else None) or next_page or to_board(hand, where)


def author(hand: Hand, title: str, where: str) -> str:
    return stop(hand.read(r"^by (.+)")) if hand.on(title) else to_thread(hand, title, where)


def vote_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    number, where, title, _ = some_thread(db, rng)
    writes = (("update threads set votes = votes + 1, voted = 1 where id = ?", (number,)),)
    return Goal("vote", f"vote for the thread {title} in {where}", "/forum", (title, where), writes)


def vote_it(hand: Hand, title: str, where: str) -> str:
    if hand.on(title):
        return hand.click("button", "vote") or stop()
    return to_thread(hand, title, where)


def top_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    where = one_of(rng, BOARDS)
    found = every(db, "select id, title from threads where board = ? order by votes desc", where)
    if not found:
        return None
    number, title = found[0]
    text = f"show the thread with the most votes in {where}"
    return Goal("top", text, "/forum", (where, title), page=f"/forum/thread/{number}")


def show_top(hand: Hand, where: str, title: str) -> str:
    return stop() if hand.on(title) else to_thread(hand, title, where)


def comment_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    number, where, title, _ = some_thread(db, rng)
    remark = one_of(rng, REMARKS)
    writes = (("insert into comments values (?, ?, ?)", (number, ME, remark)),)
    text = f"comment {remark} on the thread {title} in {where}"
    return Goal("comment", text, "/forum", (remark, title, where), writes)


def comment_it(hand: Hand, remark: str, title: str, where: str) -> str:
    if not hand.on(title):
        return to_thread(hand, title, where)
    if hand.read(rf"^({ME}: {remark})"):
        return stop()
    return hand.fill("textbox", "comment", remark, enter=True) or hand.go("/forum", "post")


def thread_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    (title,), where, remark = titles(rng, 1), one_of(rng, BOARDS), one_of(rng, REMARKS)
    if one(db, "select 1 from threads where title = ?", title):
        return None
    write = (
        "insert into threads(board, title, author, body, votes, voted) values (?, ?, ?, ?, 1, 1)"
    )
    text = f"write a thread {title} with the text {remark} in {where}"
    writes = ((write, (where, title, ME, remark)),)
    return Goal("thread", text, "/forum", (title, remark, where), writes)


def write_thread(hand: Hand, title: str, remark: str, where: str) -> str:
    if hand.on(title):
        return stop()
    if hand.on(f"new thread in {where}"):
        return (
            hand.fill("textbox", "title", title)
            or hand.fill("textbox", "text", remark)
            or hand.click("button", "post")
            or stop()
        )
    written = hand.click("link", title) if hand.on(where) else None
    return (
        written
        or (hand.click("link", "new thread") if hand.on(where) else None)
        or to_board(hand, where)
    )


KINDS = (
    Kind("author", author_goal, author, 3),
    Kind("vote", vote_goal, vote_it, 4),
    Kind("top", top_goal, show_top, 3),
    Kind("comment", comment_goal, comment_it, 4),
    Kind("thread", thread_goal, write_thread, 6),
)
