"""Card think2sql: its table of queries on real SQLite, the length penalty, and the ladders of rewards."""

from __future__ import annotations

import pytest

from ludus.envs.small.sql import database_of, run
from ludus.rewards.sql import (
    arctic,
    bucketed,
    execution_match,
    extract_sql,
    floored,
    graded,
    length_penalty,
    sql_r1,
    sql_r1_length,
    tag_recall,
    time_limit,
    weighted,
    well_formed,
)

DATABASE = database_of(
    "create table t (id int, name text, dept text, pay int);"
    "insert into t values (1, 'Ann', 'x', 10), (2, 'Bob', 'x', 20), (3, 'Cid', 'y', 20), (4, 'Dan', 'y', null);"
)
GOLD = run(DATABASE, "select name, pay from t where pay >= 20 order by name").rows or ()


@pytest.mark.parametrize(
    ("query", "ex", "cp", "cr", "tc", "q"),
    [
        ("select name, pay from t where pay = 20", 1, 1, 1, 1, 1),
        ("select pay, name from t where pay >= 20", 0, 1, 1, 1, 1),  # the order of columns
        ("select name from t where pay >= 20", 0, 1, 0.667, 1, 0.889),
        ("select name, pay from t", 0, 0.429, 1, 0.5, 0.643),
        (
            "select a.name, a.pay from t a join t b on b.id < 3 where a.pay = 20",
            1,
            1,
            1,
            0.5,
            0.833,
        ),
        ("select * from t a, t b", 0, 0.231, 1, 0.125, 0.452),
        ("select dept from t where id = 1", 0, 0, 0, 0.5, 0.167),
        ("select nam from t", 0, 0, 0, 0, 0),  # fails
        ("select name, pay from t where pay > 99", 0, 0, 0, 0, 0),  # no row
    ],
)
def test_the_table_of_queries(query: str, ex: float, cp: float, cr: float, tc: float, q: float):
    rows = run(DATABASE, query).rows
    told = graded(rows, GOLD)
    assert execution_match(rows, GOLD) == ex
    assert told == (cp, cr, tc)
    assert told.score == pytest.approx(q, abs=5e-4)


def test_empty_results():
    empty = run(DATABASE, "select name from t where pay > 99").rows
    assert empty == ()
    assert graded((), ()).score == 1 and execution_match((), ()) == 1
    assert (
        graded(None, ()).score == execution_match(None, ()) == 0
    )  # a failure is not an empty result


def test_gold_and_bounds_of_the_soft_score():
    assert graded(GOLD, GOLD).score == 1
    assert graded([(1, "a"), (1, "a")], [(1, "a")]) == (1, 1, 0.5)
    assert graded([(None,)], [(None,)]).score == 1  # NULL equals NULL in a table
    assert graded([("1",)], [(1,)]).score == pytest.approx(
        1 / 3
    )  # text is no number, but one row each


def test_length_penalty():
    assert length_penalty([1, 1, 1], [100, 120, 200]) == pytest.approx([1, 1, 0.886611], abs=1e-6)
    # mu 140, std 52.915026, z = 60 / 52.915026 = 1.133893
    # mu and std are those of the right ones; what is partly right and long is penalised by them too, what is 0 is not
    told = length_penalty([1, 1, 0.4, 0.0], [100, 120, 150, 900])
    assert told == pytest.approx(
        [1, 1 - 0.1 * 10 / 22, 0.4 - 0.1 * 40 / 22, 0]
    )  # 0.2 mu = 22 > std 14.1
    assert length_penalty([1, 0.5, 0.3], [10, 500, 500]) == [
        1,
        0.5,
        0.3,
    ]  # one right answer tells nothing
    assert length_penalty([1, 1, 0.6], [10, 10, 10_000])[2] == pytest.approx(
        0.6 - 0.115470, abs=1e-6
    )
    assert length_penalty([0.6] * 20, [10] * 19 + [10**6])[-1] == pytest.approx(
        0.6 - 0.1 * 4.248529, abs=1e-6
    )
    assert length_penalty([], []) == []
    with pytest.raises(ValueError, match="give one for each"):
        length_penalty([1], [1, 2])


def test_the_weighted_sums():
    assert weighted(1, True) == 1 and weighted(1, False) == 0.85 and weighted(0, True) == 0.15
    assert weighted(0.5, True, 0.05) == pytest.approx(0.525)


@pytest.mark.parametrize(
    ("content", "worth"),
    [
        (0, 0.1),
        (0.099, 0.1),
        (0.1, 0.5),
        (0.499, 0.5),
        (0.5, 0.8),
        (0.8, 0.9),
        (0.999, 0.9),
        (1, 1),
    ],
)
def test_buckets(content: float, worth: float):
    assert bucketed(content) == worth


def test_floors_and_ladders():
    assert floored(0, executes=True) == 0.1 and floored(0.6, executes=True) == 0.6
    assert floored(0, executes=False) == 0 and floored(0.05, executes=True, form=False) == 0.05
    malformed, failed, wrong, right = (
        (False, True, True),
        (True, False, False),
        (True, True, False),
        (True,) * 3,
    )
    assert [sql_r1(*case) for case in (malformed, failed, wrong, right)] == [-1, -1, 0, 6]
    assert [arctic(*case) for case in (malformed, failed, wrong, right)] == [1, 0, 0.1, 1]
    assert arctic(False, True, False) == 0
    assert sql_r1(True, True, True, sql_r1_length(1024, 1024, 512)) == 6 + 0.5 + 0.5
    assert sql_r1_length(512, 512, 256) == 0.25 + 0.5 and sql_r1_length(9999, 100, 100) == 1.5


def test_recall_of_tags():
    text = '<tables> T, `u` ,"v"</tables><columns></columns>'
    assert tag_recall(text, "tables", ["t", "u", "w"]) == pytest.approx(2 / 3)
    assert tag_recall(text, "columns", ["name"]) == tag_recall(text, "checks", ["a"]) == 0
    assert tag_recall(text, "tables", []) == 0


@pytest.mark.parametrize(
    ("text", "sql"),
    [
        ("select 1", "select 1"),
        ("<answer>a</answer> no: <answer> b </answer>", "b"),
        ("<answer>\nsee ```sql\na\n``` and ```sql\nb;\n```\n</answer> ```sql\nc\n```", "b;"),
        ("```\na\n``` then ```python\nb\n```", "python\nb"),  # any fence, its label not known
        ("```sql\na\n``` then ```\nb\n```", "a"),
        ("`select 1`", "select 1"),
        ("select 1`", "select 1"),
        ("select 1```", "select 1"),
        ("```sql\nselect `a b`\n```", "select `a b`"),  # the quotes of a name are the query's own
        ("`select a from `t``", "select a from `t`"),
        ("<answer>unclosed ```sql\na\n```", "a"),
        ("", ""),
    ],
)
def test_which_text_is_the_query(text: str, sql: str):
    assert extract_sql(text) == sql


@pytest.mark.parametrize(
    ("text", "form"),
    [
        ("<reasoning>a</reasoning><answer>b</answer>", True),
        (" <Reasoning>\na\n</reasoning>\n<answer>\nb\n</answer>\n", True),
        ("so <reasoning>a</reasoning><answer>b</answer>", False),
        ("<reasoning>a</reasoning><answer>b</answer> bye", False),
        ("<answer>b</answer><reasoning>a</reasoning>", False),
        ("<think>a</think><answer>b</answer>", False),
        ("select 1", False),
    ],
)
def test_form(text: str, form: bool):
    assert well_formed(text) == form
    assert well_formed(text.replace("easoning", "x"), "rx") == form


def test_time_limit():
    assert time_limit(0) == 10 and time_limit(5) == 16 and time_limit(1000) == 500


def test_hostile_texts_are_read_in_time():
    for text in (
        "<answer>" * 5000,
        "```sql" * 5000,
        "<reasoning>" * 5000,
        "`" * 50_000,
        "</answer>" * 5000,
    ):
        assert isinstance(extract_sql(text), str) and not well_formed(text)
