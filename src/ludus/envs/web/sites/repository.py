"""A place for code: projects with stars, commits, and issues that are assigned and closed."""

from __future__ import annotations

import sqlite3

import numpy as np

from ludus.envs.small.shop import NAMES
from ludus.envs.web.sites.forum import titles
from ludus.envs.web.sites.goal import Goal, Hand, Kind, stop
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

PROJECTS = ("anchor", "button", "candle", "drum")
VERBS = ("fix", "add", "test")
PARTS = ("parser", "menu", "cache", "clock")
NOBODY = "nobody"
TEAM = 4  # people who can be assigned to
SHOWN = 6

SCHEMA = """
create table projects(name text, stars int, starred int);
create table team(name text);
create table issues(id integer primary key, project text, title text, status text, assignee text);
create table commits(project text, author text, message text);
"""


def fill(database: sqlite3.Connection, rng: np.random.Generator, size: int) -> None:
    """`size` issues, and four commits in each of the projects."""
    team = [NAMES[at] for at in rng.permutation(len(NAMES))[:TEAM]]
    database.executemany("insert into team values (?)", [(name,) for name in team])
    for project in PROJECTS:
        stars = int(rng.integers(10, 100))
        database.execute("insert into projects values (?, ?, 0)", (project, stars))
        messages = [f"{verb} {part}" for verb in VERBS for part in PARTS]
        for at in rng.permutation(len(messages))[:4]:
            commit = (project, one_of(rng, team), messages[at])
            database.execute("insert into commits values (?, ?, ?)", commit)
    for at, title in enumerate(titles(rng, size)):
        status = "open" if rng.random() < 0.7 else "closed"
        assignee = one_of(rng, (NOBODY, *team))
        database.execute(
            "insert into issues values (?, ?, ?, ?, ?)",
            (at + 1, PROJECTS[at % len(PROJECTS)], title, status, assignee),
        )


# ---------------------------------------------------------------------------------------------- pages

TOP = links(("projects", "/repository"))


def front(db: sqlite3.Connection, ask: Ask) -> Answer:
    each = [link(name, f"/repository/{name}") for name in PROJECTS]
    return Answer(page("projects", TOP, heading("projects"), rows(each)))


def project(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    found = one(db, "select stars, starred from projects where name = ?", name)
    if found is None:
        return missing()
    where = f"/repository/{name}"
    star = "starred" if found[1] else act("star", f"{where}/star")
    there = links(
        ("issues", f"{where}/issues"),
        ("commits", f"{where}/commits"),
        ("new issue", f"{where}/new"),
    )
    return Answer(page(name, TOP, heading(name), line(there), rows([f"stars {found[0]} {star}"])))


def star(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    db.execute(
        "update projects set stars = stars + 1, starred = 1 where name = ? and not starred", (name,)
    )
    return Answer(to=f"/repository/{name}")


def commits(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    found = every(db, "select author, message from commits where project = ? order by rowid", name)
    shown, around = paged(ask, found, SHOWN)
    each = [f"{message} by {author}" for author, message in shown]
    return Answer(page("commits", TOP, heading(f"commits of {name}"), rows(each), around))


def issues(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    found = every(db, "select id, title, status from issues where project = ? order by id", name)
    shown, around = paged(ask, found, SHOWN)
    each = [f"{link(title, f'/repository/issue/{n}')} {status}" for n, title, status in shown]
    return Answer(page("issues", TOP, heading(f"issues of {name}"), rows(each), around))


def people(db: sqlite3.Connection) -> list[str]:
    return [NOBODY, *(name for (name,) in every(db, "select name from team order by rowid"))]


def issue(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    found = one(db, "select project, title, status, assignee from issues where id = ?", int(number))
    if found is None:
        return missing()
    name, title, status, assignee = found
    where = f"/repository/issue/{number}"
    turn = act("close" if status == "open" else "reopen", f"{where}/turn")
    give = form(f"{where}/assign", choice("assignee", people(db), assignee), button("save"))
    told = line(plain(f"{status} in {name}, assigned to {assignee}"))
    return Answer(page(title, TOP, heading(title), told, give, turn))


def turn(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    db.execute(
        "update issues set status = case status when 'open' then 'closed' else 'open' end where id = ?",
        (int(number),),
    )
    return Answer(to=f"/repository/issue/{number}")


def assign(db: sqlite3.Connection, ask: Ask, number: str) -> Answer:
    if said(ask, "assignee") in people(db):
        db.execute(
            "update issues set assignee = ? where id = ?", (said(ask, "assignee"), int(number))
        )
    return Answer(to=f"/repository/issue/{number}")


def new(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    if name not in PROJECTS:
        return missing()
    write = form(
        f"/repository/{name}/new",
        field("title"),
        choice("assignee", people(db), NOBODY),
        button("create"),
    )
    return Answer(page("new issue", TOP, heading(f"new issue in {name}"), write))


def create(db: sqlite3.Connection, ask: Ask, name: str) -> Answer:
    if name not in PROJECTS:
        return missing()
    if not said(ask, "title") or said(ask, "assignee") not in people(db):
        return Answer(page("new issue", TOP, heading("an issue has a title")), 400)
    number = db.execute(
        "insert into issues(project, title, status, assignee) values (?, ?, 'open', ?)",
        (name, said(ask, "title"), said(ask, "assignee")),
    ).lastrowid
    return Answer(to=f"/repository/issue/{number}")


N, NAME = r"([0-9]{1,9})", r"([a-z]+)"
ROUTES = (
    Route("GET", "/repository", front),
    Route("GET", f"/repository/issue/{N}", issue),
    Route("POST", f"/repository/issue/{N}/turn", turn),
    Route("POST", f"/repository/issue/{N}/assign", assign),
    Route("GET", f"/repository/{NAME}", project),
    Route("POST", f"/repository/{NAME}/star", star),
    Route("GET", f"/repository/{NAME}/commits", commits),
    Route("GET", f"/repository/{NAME}/issues", issues),
    Route("GET", f"/repository/{NAME}/new", new),
    Route("POST", f"/repository/{NAME}/new", create),
)


# ---------------------------------------------------------------------------------------------- tasks


def to_project(hand: Hand, name: str) -> str:
    return hand.click("link", name) or hand.go("/repository", "projects")


def commit_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    name, author, message = one_of(rng, every(db, "select * from commits order by rowid"))
    text = f"answer who made the commit {message} in {name}"
    return Goal("commit", text, "/repository", (message, name), answer=author)


def who_committed(hand: Hand, message: str, name: str) -> str:
    if hand.on(f"commits of {name}"):
        return stop(hand.read(rf"^{message} by (.+)"))
    return (hand.click("link", "commits") if hand.on(name) else None) or to_project(hand, name)


def star_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal:
    name = one_of(rng, PROJECTS)
    (stars,) = one(db, "select stars from projects where name = ?", name)
    writes = (("update projects set stars = stars + 1, starred = 1 where name = ?", (name,)),)
    text = f"give {name} a star and answer how many it has then"
    return Goal("star", text, "/repository", (name,), writes, str(stars + 1))


def give_star(hand: Hand, name: str) -> str:
    if not hand.on(name):
        return to_project(hand, name)
    return hand.click("button", "star") or stop(hand.read(r"^stars ([0-9]+)"))


def some_issue(db: sqlite3.Connection, rng: np.random.Generator) -> tuple[int, str, str, str, str]:
    return one_of(rng, every(db, "select * from issues order by id"))


def to_issue(hand: Hand, title: str, name: str) -> str:
    if hand.on(f"issues of {name}"):
        onwards = hand.click("link", title) or hand.click("link", "next")
        if onwards:
            return onwards
    return (hand.click("link", "issues") if hand.on(name) else None) or to_project(hand, name)


def close_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    number, name, title, status, _ = some_issue(db, rng)
    if status != "open":
        return None
    writes = (("update issues set status = 'closed' where id = ?", (number,)),)
    text = f"close the issue {title} in {name}"
    return Goal("close", text, "/repository", (title, name), writes)


def close_it(hand: Hand, title: str, name: str) -> str:
    if not hand.on(title):
        return to_issue(hand, title, name)
    return hand.click("button", "close") or stop()


def assign_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    number, name, title, _, assignee = some_issue(db, rng)
    wanted = one_of(rng, people(db))
    if wanted == assignee:
        return None
    writes = (("update issues set assignee = ? where id = ?", (wanted, number)),)
    text = f"assign the issue {title} in {name} to {wanted}"
    return Goal("assign", text, "/repository", (title, name, wanted), writes)


def assign_it(hand: Hand, title: str, name: str, wanted: str) -> str:
    if not hand.on(title):
        return to_issue(hand, title, name)
    if hand.read(rf"assigned to ({wanted})$"):
        return stop()
    return hand.choose("assignee", wanted) or hand.click("button", "save") or stop()


def issue_goal(db: sqlite3.Connection, rng: np.random.Generator) -> Goal | None:
    (title,), name, wanted = titles(rng, 1), one_of(rng, PROJECTS), one_of(rng, people(db)[1:])
    if one(db, "select 1 from issues where title = ?", title):
        return None
    write = "insert into issues(project, title, status, assignee) values (?, ?, 'open', ?)"
    text = f"open an issue {title} in {name} and assign it to {wanted}"
    writes = ((write, (name, title, wanted)),)
    return Goal("issue", text, "/repository", (title, name, wanted), writes)


def open_issue(hand: Hand, title: str, name: str, wanted: str) -> str:
    if hand.on(title):
        return stop()
    if hand.on(f"new issue in {name}"):
        return (
            hand.fill("textbox", "title", title)
            or hand.choose("assignee", wanted)
            or hand.click("button", "create")
            or stop()
        )
    return (hand.click("link", "new issue") if hand.on(name) else None) or to_project(hand, name)


KINDS = (
    Kind("commit", commit_goal, who_committed, 3),
    Kind("star", star_goal, give_star, 3),
    Kind("close", close_goal, close_it, 5),
    Kind("assign", assign_goal, assign_it, 6),
    Kind("issue", issue_goal, open_issue, 6),
)
