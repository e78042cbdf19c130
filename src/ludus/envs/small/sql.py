"""Text to SQL on real SQLite databases: a schema, a question, one query; what it is worth is what it returns.

A query is a model's text and therefore hostile. `run` lets it read and nothing else: the connection is read-only, an
authoriser inside SQLite allows select, read and known functions (so no write, no attach, no pragma), and a budget of
SQLite's own steps ends what does not end by itself, the same on every machine; seconds are only the net below it.

The generated databases have three tables whose names and columns differ from task to task, and questions that need
none to three joins. They are values (bytes of a database file), so no rollout can change another one's.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ludus.envs.world import Split, draw_for, listed, one_of, place_of, refuse_if_over
from ludus.rewards.sql import Row, execution_match, extract_sql, graded, well_formed
from ludus.types import End, Key, Message, Step, Task

# ---------------------------------------------------------------------------------------------- running a query


@dataclass(frozen=True)
class Limits:
    """What a query may cost: steps of SQLite's virtual machine, wall-clock seconds, rows, bytes of one value or row.

    Enough for databases of the size of the generated ones; raise them for real ones (`rewards.sql.time_limit`). Memory
    stays below about rows x length, and temporary tables on disk below about steps x length / 10.
    """

    steps: int = 2_000_000
    seconds: float = 10.0
    rows: int = 10_000
    length: int = 1_000


@dataclass(frozen=True)
class Result:
    """`rows` is None unless the status is ok; `message` then says what SQLite said."""

    status: Literal["ok", "error", "limit"]
    rows: tuple[Row, ...] | None = None
    message: str = ""


ALLOWED = {
    sqlite3.SQLITE_SELECT,
    sqlite3.SQLITE_READ,
    sqlite3.SQLITE_FUNCTION,
    sqlite3.SQLITE_RECURSIVE,
}
# Functions that end soon on short arguments, reach nothing outside and answer alike each time (dates apart). A call is
# one step however long it takes: printf('%.*c', 2000000000, 'x') would run for half a minute, and is not among them.
FUNCTIONS = frozenset(
    "count sum total avg min max group_concat string_agg abs round sign ceil ceiling floor trunc mod power sqrt exp "
    "ln log log2 log10 length lower upper trim ltrim rtrim substr substring replace instr like glob concat concat_ws "
    "hex quote typeof unicode char coalesce ifnull nullif iif date time datetime julianday strftime unixepoch "
    "row_number rank dense_rank percent_rank cume_dist ntile lag lead first_value last_value nth_value "
    "json_extract json_array_length json_each -> ->> likely unlikely".split()
)
OFTEN = 1000  # steps between two looks at the budget


def run(database: bytes | Path, query: str, limits: Limits | None = None) -> Result:
    """Run one query on a database file, or on the bytes of one. It never raises on the query, hangs or writes."""
    limits = limits or Limits()
    with closing(_connect(database)) as connection:
        return _run(connection, query, limits)


def _connect(database: bytes | Path) -> sqlite3.Connection:
    if isinstance(database, bytes):
        connection = sqlite3.connect(":memory:")
        connection.deserialize(database)
        return connection
    if not database.is_file():
        raise FileNotFoundError(f"no database at {database}; give the path of an SQLite file")
    return sqlite3.connect(f"{database.resolve().as_uri()}?mode=ro", uri=True)


def _run(connection: sqlite3.Connection, query: str, limits: Limits) -> Result:
    left = limits.steps // OFTEN
    deadline = time.monotonic() + limits.seconds

    def stop() -> bool:
        nonlocal left
        left -= 1
        return left < 0 or time.monotonic() > deadline

    def allow(action: int, first: str | None, second: str | None, *_: object) -> int:
        if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() not in FUNCTIONS:
            return sqlite3.SQLITE_DENY
        return sqlite3.SQLITE_OK if action in ALLOWED else sqlite3.SQLITE_DENY

    connection.text_factory = lambda raw: raw.decode("utf-8", "replace")
    connection.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, limits.length)
    connection.setlimit(sqlite3.SQLITE_LIMIT_SQL_LENGTH, 10_000)
    connection.setlimit(sqlite3.SQLITE_LIMIT_LIKE_PATTERN_LENGTH, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_COLUMN, 100)
    connection.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
    connection.execute("pragma query_only = on")
    connection.set_authorizer(allow)
    connection.set_progress_handler(stop, OFTEN)
    try:
        cursor = connection.execute(query)
        if cursor.description is None:
            return Result("error", message="the query returns no table")
        rows = cursor.fetchmany(limits.rows + 1)
    except sqlite3.OperationalError as error:
        return Result("limit" if str(error) == "interrupted" else "error", message=str(error))
    except (sqlite3.Error, sqlite3.Warning, ValueError, OverflowError, MemoryError) as error:
        # ValueError: text that is no UTF-8; the others are SQLite's, with as many names as ways to be wrong.
        return Result("error", message=str(error))
    if len(rows) > limits.rows:
        return Result("limit", message=f"more than {limits.rows} rows")
    return Result("ok", tuple(rows))


def database_of(script: str) -> bytes:
    """The bytes of a new database that an SQL script of our own makes."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("pragma page_size = 512")  # a generated database has four pages
        connection.executescript(script)
        return connection.serialize()


# ---------------------------------------------------------------------------------------------- generated databases

PEOPLE = tuple("child worker player".split())
GROUPS = tuple("team class shop".split())
PLACES = tuple("city land town".split())
NUMBERS = tuple("age pay score".split())
SIZES = tuple("size rank".split())
NAMES = tuple("Ann Bob Cleo Dan Eve Finn Gus Hal Ida Jo Kit Lou Max Ned Oz Pia".split())
COLOURS = tuple("red blue green white black brown".split())
TOWNS = tuple("Oslo Rome Bern Lima Kyiv Baku".split())


@dataclass(frozen=True)
class Schema:
    """The names of a database: people belong to groups, groups to places, and people have a boss among people."""

    person: str
    group: str
    place: str
    number: str
    size: str

    @property
    def ddl(self) -> str:
        return (
            f"create table {self.person} (id int, name text, {self.number} int, {self.group} int, boss int);\n"
            f"create table {self.group} (id int, name text, {self.place} int);\n"
            f"create table {self.place} (id int, name text, {self.size} int);"
        )


@dataclass(frozen=True)
class Query:
    """A query in parts, so that noise can replace one of them. `columns` and `where` may name any joined table."""

    columns: tuple[str, ...]
    source: str
    joins: tuple[str, ...] = ()
    where: tuple[str, str, str] | None = None  # column, comparison, value

    def __str__(self) -> str:
        joined = "".join(f" join {join}" for join in self.joins)
        where = f" where {' '.join(self.where)}" if self.where else ""
        return f"select {', '.join(self.columns)} from {self.source}{joined}{where}"


def joined(schema: Schema, joins: int) -> tuple[str, ...]:
    """The first `joins` of person -> (boss ->) group -> place; three joins go by way of the boss."""
    person, path = schema.person, ()
    if joins == 3:
        person, path = "b", (f"{schema.person} b on {schema.person}.boss = b.id",)
    to_group = f"{schema.group} on {person}.{schema.group} = {schema.group}.id"
    to_place = f"{schema.place} on {schema.group}.{schema.place} = {schema.place}.id"
    return (*path, to_group, to_place)[:joins]


def ask(
    rng: np.random.Generator,
    schema: Schema,
    joins: int,
    towns: Sequence[str],
    colours: Sequence[str],
) -> tuple[str, Query]:
    """A question and the query that answers it."""
    person, number = schema.person, schema.number
    name, value = f"{person}.name", f"{person}.{number}"
    wanted, columns = (
        (f"name of each {person}", (name,)),
        (f"name and {number} of each {person}", (name, value)),
        (f"count of {person}", ("count(*)",)),
        (f"highest {number} of any {person}", (f"max({value})",)),
    )[int(rng.integers(4))]
    if joins == 0:
        bound = int(rng.integers(20, 60))
        word, comparison = one_of(rng, (("over", ">"), ("under", "<")))
        where = (value, comparison, str(bound))
        condition = f"with {number} {word} {bound}"
    elif joins == 1:
        colour = one_of(rng, colours)
        where = (f"{schema.group}.name", "=", f"'{colour}'")
        condition = f"in {schema.group} {colour}"
    else:
        town = one_of(rng, towns)
        where = (f"{schema.place}.name", "=", f"'{town}'")
        condition = (
            f"in {schema.place} {town}" if joins == 2 else f"with boss in {schema.place} {town}"
        )
    return f"{wanted} {condition}?", Query(columns, person, joined(schema, joins), where)


@dataclass(frozen=True)
class State:
    """`script` made the database; its text, not the file's bytes (which name a version of SQLite), tells it apart."""

    script: str = field(repr=False)
    database: bytes = field(repr=False)
    schema: Schema
    question: str
    gold: Query
    rows: tuple[Row, ...]
    over: bool = False


@dataclass(frozen=True)
class Judged:
    """What a reward may look at: `rows` is None for a query that failed."""

    text: str
    sql: str
    rows: tuple[Row, ...] | None
    gold: tuple[Row, ...]


def executes_right(judged: Judged) -> float:
    """Execution match; `lambda j: graded(j.rows, j.gold).score` is the graded reward."""
    return execution_match(judged.rows, judged.gold)


@dataclass(frozen=True)
class TextToSQL:
    """One turn: the schema and a question are shown, the answer is a query, in a fence and tags or bare.

    joins   least and most joins that a question needs, 0 to 3; tasks take the numbers in turn
    reward  (judged) -> number; solved is always execution match
    """

    joins: tuple[int, int] = (0, 3)
    reward: Callable[[Judged], float] = executes_right
    limits: Limits = field(default_factory=Limits)
    people: int = 8
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "sql"

    def __post_init__(self) -> None:
        low, high = self.joins
        if not 0 <= low <= high <= 3:
            raise ValueError(f"joins={self.joins}; give (least, most) from 0 to 3")
        if not 2 <= self.people <= len(NAMES):
            raise ValueError(f"people={self.people}; give 2 to {len(NAMES)}")

    def start(self, split: Split, index: int) -> State:
        """The test split gets the pairs of database and question that hash to it."""
        return _start(self.joins, self.people, self.seed, split, index)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        names = (*PEOPLE, *GROUPS, *PLACES, *NUMBERS, *SIZES, *NAMES, *COLOURS, *TOWNS)
        sql = "create table id int name text boss select from join on where count max b"
        asked = "name of each and highest any with over under in question"
        return (*listed(INSTRUCTION.text, sql, asked, *names), *SYMBOLS)

    def expert(self, state: State) -> str:
        return str(state.gold)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        """The right query with one part replaced: it runs, for the most part, and answers something else."""
        return str(noisy(rng, state))

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        low, high = self.joins
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(INSTRUCTION,),
                env=self.name,
                difficulty=low + index % (high - low + 1),
                extras={"split": split, "index": index},
            )
            for index in range(self.train if split == "train" else self.test)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes database and question."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, f"{state.schema.ddl}\nquestion: {state.question}")

    async def step(self, state: State, action: str) -> Step:
        """`info` has every score and whether the query ran, whatever the reward is made of."""
        refuse_if_over(state.over)
        sql = extract_sql(action)
        result = run(state.database, sql, self.limits)
        right = execution_match(result.rows, state.rows)
        info: dict[str, Any] = {
            "status": result.status,
            "execution": right,
            **graded(result.rows, state.rows)._asdict(),
            "well_formed": float(well_formed(action)),
        }
        reward = self.reward(Judged(action, sql, result.rows, state.rows))
        told = "right" if right else "wrong" if result.rows is not None else "failed"
        return Step(
            replace(state, over=True), told, reward, End.SOLVED if right else End.FAILED, info
        )

    async def fork(self, state: State) -> State:
        return state


INSTRUCTION = Message("system", "Write one SQL query that answers the question.")
SYMBOLS = ("=", "<", ">", "*", "'")


@lru_cache(maxsize=4096)
def _start(joins: tuple[int, int], people: int, seed: int, split: Split, index: int) -> State:
    """Kept, since a group asks for the same start again and again, and making one takes milliseconds."""
    low, high = joins
    key = Key(seed, ("sql", people, split, index))
    needed = low + index % (high - low + 1)
    return draw_for(
        split,
        key,
        lambda rng: draw(rng, people, needed),
        lambda state: (state.question, state.script),
    )


def draw(rng: np.random.Generator, people: int, joins: int) -> State | None:
    """A database and a question about it; None where the answer would be no row, zero, or all there is."""
    schema = Schema(*(one_of(rng, names) for names in (PEOPLE, GROUPS, PLACES, NUMBERS, SIZES)))
    towns = [TOWNS[place] for place in rng.permutation(len(TOWNS))[:3]]
    colours = [COLOURS[place] for place in rng.permutation(len(COLOURS))[:4]]
    names = [NAMES[place] for place in rng.permutation(len(NAMES))[:people]]
    places = [(i + 1, town, int(rng.integers(1, 10))) for i, town in enumerate(towns)]
    groups = [(i + 1, colour, int(rng.integers(1, 4))) for i, colour in enumerate(colours)]
    persons = []
    for i, name in enumerate(names):
        boss = int(rng.integers(1, people + 1))
        of = int(rng.integers(1, 5))
        # Nobody is their own boss; the NULL in place of one is a case that joins must get right.
        persons.append(
            (i + 1, name, int(rng.integers(10, 70)), of, None if boss == i + 1 else boss)
        )
    inserts = [
        f"insert into {table} values ({', '.join(_literal(cell) for cell in row)});"
        for table, rows in (
            (schema.person, persons),
            (schema.group, groups),
            (schema.place, places),
        )
        for row in rows
    ]
    script = "\n".join((schema.ddl, *inserts))
    database = database_of(script)
    question, gold = ask(rng, schema, joins, towns, colours)
    rows = run(database, str(gold)).rows
    everything = run(database, str(replace(gold, where=None))).rows
    if not rows or rows[0] in ((0,), (None,)) or set(rows) == set(everything or ()):
        return None
    return State(script, database, schema, question, gold, rows)


def noisy(rng: np.random.Generator, state: State) -> Query:
    """The gold query with its columns, its condition, the value in it or its joins replaced."""
    gold, schema = state.gold, state.schema
    assert gold.where is not None
    name, value = f"{schema.person}.name", f"{schema.person}.{schema.number}"
    column, comparison, told = gold.where
    columns = [
        c for c in ((name,), (value,), (value, name), ("count(*)",), ("*",)) if c != gold.columns
    ]
    others = [f"'{word}'" for word in (*COLOURS, *TOWNS)] + [str(n) for n in range(20, 60)]
    kinds = [other for other in others if other[0] == told[0] and other != told]
    flipped = {">": "<", "<": ">", "=": ">"}[comparison]
    match int(rng.integers(5)):
        case 0:
            return replace(gold, columns=one_of(rng, columns))
        case 1:
            return replace(gold, where=None)
        case 2:
            return replace(gold, where=(column, flipped, told))
        case 3 if gold.joins:
            return replace(gold, joins=gold.joins[:-1])
        case _:
            return replace(gold, where=(column, comparison, one_of(rng, kinds)))


def _literal(cell: int | str | None) -> str:
    return "null" if cell is None else f"'{cell}'" if isinstance(cell, str) else str(cell)
