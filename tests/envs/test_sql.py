"""Queries on real SQLite: what is refused, what is cut off, and that nothing is left behind."""

from __future__ import annotations

import asyncio
import hashlib
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ludus.envs.small.sql import (
    Judged,
    Limits,
    Query,
    Schema,
    State,
    TextToSQL,
    database_of,
    joined,
    noisy,
    run,
)
from ludus.rewards.sql import graded, weighted, well_formed
from ludus.types import End

SCRIPT = """
create table t (id int, name text, dept text, pay int);
insert into t values (1, 'Ann', 'x', 10), (2, 'Bob', 'x', 20), (3, 'Cid', 'y', 20), (4, 'Dan', 'y', null);
"""
DATABASE = database_of(SCRIPT)
WORLD = TextToSQL(train=40, test=24)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "t?#%.sqlite"  # characters that mean something in a URI
    path.write_bytes(DATABASE)
    return path


def state_of(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


@pytest.mark.parametrize(
    "query",
    [
        "drop table t",
        "delete from t",
        "insert into t values (5, 'Eve', 'x', 1)",
        "update t set pay = 0",
        "create table u (id int)",
        "create temp table u (id int)",
        "create view v as select 1",
        "attach 'other.sqlite' as other",
        "vacuum",
        "vacuum into 'copy.sqlite'",
        "pragma query_only = off",
        "pragma journal_mode = wal",
        "begin",
        "select 1; drop table t",
        "with gone as (select 1) delete from t",
        "replace into t values (1, 'Ann', 'x', 99)",
        "select load_extension('evil')",
        "select random()",
        "select printf('%.*c', 2000000000, 'x')",
        "select readfile('t')",
        "select * from pragma_table_info('t')",
        "reindex",
        "explain drop table t",
    ],
)
def test_only_reading_is_allowed(query: str, file: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(file.parent)
    before = state_of(file.parent)
    for database in (file, DATABASE):
        result = run(database, query)
        assert result.status == "error" and result.rows is None and result.message
    assert state_of(file.parent) == before


def test_a_word_in_a_text_is_no_write(file: Path):
    assert run(file, "select 'drop table t; delete' as it").rows == (("drop table t; delete",),)


ENDLESS = "with recursive n(x) as (select 1 union all select x + 1 from n)"


@pytest.mark.parametrize(
    ("query", "message"),
    [
        (f"{ENDLESS} select count(*) from n", "interrupted"),
        (f"{ENDLESS} select x from n order by x desc", "interrupted"),
        (f"{ENDLESS} select x from n", "more than 10000 rows"),
        (
            "select count(*) from t a, t b, t c, t d, t e, t f, t g, t h, t i, t j, t k",
            "interrupted",
        ),
    ],
)
def test_what_does_not_end_is_ended_by_steps(query: str, message: str):
    start = time.monotonic()
    results = [run(DATABASE, query) for _ in range(2)]
    assert time.monotonic() - start < 10  # seconds are only the net; steps decide
    assert results[0] == results[1] and results[0].status == "limit"
    assert results[0].message == message


def test_seconds_end_it_where_steps_do_not():
    limits = Limits(steps=10**12, seconds=0.2)
    assert run(DATABASE, f"{ENDLESS} select count(*) from n", limits).status == "limit"


@pytest.mark.parametrize(
    "query",
    [
        "",
        "-- nothing",
        "select",
        "select nam from t",
        "select '\x00'",
        "select '\ud800'",
        f"select {'(' * 5000}1{')' * 5000}",
        f"select {','.join('1' * 101)}",
        "select zeroblob(1000000000)",
        f"select replace(replace('{'a' * 20}', 'a', '{'b' * 20}'), 'b', '{'c' * 20}')",
        f"select '{'a' * 20_000}'",
        f"select 'a' like '{'%a' * 100}'",
    ],
)
def test_what_is_no_query_or_too_large_is_an_error(query: str):
    assert run(DATABASE, query).status == "error"


def test_text_that_is_no_utf8_comes_back():
    assert run(DATABASE, "select cast(x'ff41' as text)").rows == (("\ufffdA",),)


def test_the_engine_is_sqlite():
    assert run(DATABASE, "select 1 / 2").rows == ((0,),)  # 0.5 in others


def test_a_missing_file_is_said():
    with pytest.raises(FileNotFoundError, match="give the path"):
        run(Path("nowhere.sqlite"), "select 1")


def test_runs_depend_on_nothing_that_ran_before(file: Path):
    """Card think2sql (b): 1,000 runs in random order equal fresh ones."""
    rng = np.random.default_rng(0)
    state = WORLD.start("test", 3)
    queries = [str(noisy(rng, state)) for _ in range(40)] + ["drop table t", "select nam from t"]
    fresh = {query: run(state.database, query) for query in queries}
    for place in rng.integers(len(queries), size=1000):
        assert run(state.database, queries[place]) == fresh[queries[place]]
    assert run(file, "select * from t") == run(DATABASE, "select * from t")


# ---------------------------------------------------------------------------------------------- the generated tasks


def test_joins_word_for_word():
    schema = Schema("child", "team", "city", "age", "size")
    texts = [str(Query(("child.name",), "child", joined(schema, n))) for n in range(4)]
    assert texts == [
        "select child.name from child",
        "select child.name from child join team on child.team = team.id",
        "select child.name from child join team on child.team = team.id join city on team.city = city.id",
        "select child.name from child join child b on child.boss = b.id join team on b.team = team.id "
        "join city on team.city = city.id",
    ]


def tables(state: State) -> Iterator[dict[int, dict[str, Any]]]:
    """People, groups and places, each by its id."""
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.deserialize(state.database)
        connection.row_factory = sqlite3.Row
        for name in (state.schema.person, state.schema.group, state.schema.place):
            yield {row["id"]: dict(row) for row in connection.execute(f"select * from {name}")}


def read_off(state: State) -> list[tuple[object, ...]]:
    """The answer to the question without SQL, by walking the tables from each person."""
    people, groups, places = tables(state)
    schema, words = state.schema, state.question.rstrip("?").split()

    def fits(person: dict[str, Any]) -> bool:
        if words[-2] in ("over", "under"):
            above = person[schema.number] - int(words[-1])
            return above > 0 if words[-2] == "over" else above < 0
        who = people.get(person["boss"]) if "boss" in words else person
        if who is None:
            return False
        group = groups[who[schema.group]]
        named = group if words[-2] == schema.group else places[group[schema.place]]
        return named["name"] == words[-1]

    kept = [person for person in people.values() if fits(person)]
    if words[0] == "count":
        return [(len(kept),)]
    if words[0] == "highest":
        return [(max(person[schema.number] for person in kept),)]
    columns = ("name", schema.number) if words[1] == "and" else ("name",)
    return [tuple(person[column] for column in columns) for person in kept]


def test_gold_answers_are_the_rows_that_a_reader_finds():
    for index in range(40):
        state = WORLD.start("train", index)
        assert sorted(map(str, state.rows)) == sorted(map(str, read_off(state))), state.question


def test_tasks_take_the_joins_in_turn_and_no_answer_is_empty():
    for index, task in enumerate(WORLD.tasks("train")):
        state = WORLD.start("train", index)
        assert len(state.gold.joins) == task.difficulty == index % 4
        assert state.rows and state.rows[0] not in ((0,), (None,))
        everything = run(state.database, str(replace(state.gold, where=None))).rows
        assert set(everything or ()) != set(state.rows)


def test_an_answer_in_tags_and_fences_and_what_the_info_says():
    state = WORLD.start("test", 0)
    text = f"<reasoning>\nso\n</reasoning>\n<answer>\n```sql\n{state.gold}\n```\n</answer>"
    step = asyncio.run(WORLD.step(state, text))
    assert step.end is End.SOLVED and step.reward == 1
    assert step.info == {
        "status": "ok",
        "execution": 1.0,
        "precision": 1.0,
        "recall": 1.0,
        "cardinality": 1.0,
        "well_formed": 1.0,
    }
    failed = asyncio.run(WORLD.step(state, "select nothing at all"))
    assert (failed.end, failed.reward, failed.info["status"]) == (End.FAILED, 0, "error")


def test_another_reward_does_not_change_what_is_solved():
    def mixture(judged: Judged) -> float:
        return weighted(graded(judged.rows, judged.gold).score, well_formed(judged.text), 0.05)

    world = replace(WORLD, reward=mixture)
    state = next(
        state for i in range(24) if len((state := world.start("test", i)).gold.columns) == 2
    )
    swapped = replace(state.gold, columns=state.gold.columns[::-1])
    step = asyncio.run(world.step(state, str(swapped)))
    assert (
        step.reward == pytest.approx(0.95) and step.end is End.FAILED
    )  # Q pays what the measure rejects
    assert asyncio.run(world.step(state, str(state.gold))).end is End.SOLVED


def test_noisy_queries_differ_from_gold_and_mostly_run():
    rng = np.random.default_rng(0)
    ran = []
    for index in range(200):
        state = WORLD.start("test", index % 24)
        query = noisy(rng, state)
        assert query != state.gold
        ran.append(run(state.database, str(query)).status == "ok")
    assert 0.7 < np.mean(ran) < 1


@pytest.mark.parametrize("settings", [{"joins": (0, 4)}, {"joins": (2, 1)}, {"people": 1}])
def test_settings_that_make_no_world(settings: dict[str, object]):
    with pytest.raises(ValueError, match="give"):
        replace(WORLD, **settings)
