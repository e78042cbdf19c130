"""The files of questions and passages: read as FlashRAG writes them, and refused with a reason otherwise."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ludus.data.questions import (
    SETS,
    Passage,
    PassageFile,
    Question,
    read_questions,
    searchqa,
    write_passages,
)
from ludus.types import Explained


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(json.dumps(row) for row in rows) + "\n")
    return path


def row(name: str, **more: object) -> dict[str, object]:
    return {"id": name, "question": f" {name}? ", "golden_answers": ["a", "b"], **more}


def test_the_item_numbers_of_searchqa():
    tests = [count for _, count in SETS["test"].values()]
    assert sum(tests) == 51_713
    assert sum(tests) + sum(count for _, count in SETS["train"].values()) == 221_328


@pytest.mark.parametrize("name", list(SETS["test"]))
def test_every_set_is_read(tmp_path: Path, name: str):
    file, count = SETS["test"][name]
    write(tmp_path / name / f"{file}.jsonl", row("x_0", metadata={"type": "bridge"}), row("x_1"))
    found = searchqa(tmp_path, "test", [name], whole=False)
    assert found == [
        Question(f"{name}/x_{i}", f"x_{i}?", ("a", "b"), extras={"set": name}) for i in (0, 1)
    ]
    with pytest.raises(Explained, match=f"has 2 questions; {name} has {count:,}"):
        searchqa(tmp_path, "test", [name])


def test_sets_come_in_the_published_order_whatever_is_asked_for(tmp_path: Path):
    for name in ("hotpotqa", "nq"):
        write(tmp_path / name / "train.jsonl", row("x"))
    found = searchqa(tmp_path, "train", ["hotpotqa", "nq"], whole=False)
    assert [one.id for one in found] == ["nq/x", "hotpotqa/x"]
    with pytest.raises(Explained, match="no train set 'musique'; there are nq, hotpotqa"):
        searchqa(tmp_path, "train", ["musique"])
    with pytest.raises(Explained, match="no file"):
        searchqa(tmp_path, "test", ["popqa"])


@pytest.mark.parametrize(
    ("bad", "said"),
    [
        ({"id": "x", "question": "q"}, "golden_answers"),
        ({"id": "x", "golden_answers": ["a"]}, "wanted question"),
        (row("x", golden_answers=[]), "one text or more"),
        ([1], "one JSON object a line"),
    ],
)
def test_a_line_that_is_no_question(tmp_path: Path, bad: object, said: str):
    path = write(tmp_path / "nq" / "test.jsonl", row("y"), bad)
    with pytest.raises(Explained, match=said) as problem:
        read_questions(path)
    assert "2" in str(problem.value)


def test_answers_may_be_one_text_and_numbers(tmp_path: Path):
    path = write(tmp_path / "own.jsonl", row("x", golden_answers="a"), row("y", golden_answers=[7]))
    assert [one.answers for one in read_questions(path, "own")] == [("a",), ("7",)]
    path.write_text("\n\n{")
    with pytest.raises(Explained, match="line 3"):
        read_questions(path)
    with pytest.raises(ValueError, match="no answer"):
        Question("x", "q", ())


PASSAGES = [
    Passage("0", "Emma", "A novel.\nIt is long."),
    Passage("b", "Łódź", "城市 🙂\u2028x"),
    Passage("2", "", ""),
    Passage("3", '"Heroes" (album)', "x"),
    Passage("4", 'He said "no"', "x"),
    Passage("5", '"', "x"),
]


def test_passages_come_back_as_they_were_written(tmp_path: Path):
    path = tmp_path / "wiki.jsonl"
    write_passages(PASSAGES, path)
    found = PassageFile(path)
    assert len(found) == 6 and list(found) == PASSAGES
    assert found[5] == found[-1] == PASSAGES[5] and found[1] == PASSAGES[1]
    with pytest.raises(IndexError):
        found[6]
    with pytest.raises(ValueError, match="line break"):
        write_passages([Passage("0", "a\nb", "")], path)


def test_both_forms_of_a_corpus_and_empty_lines(tmp_path: Path):
    path = tmp_path / "wiki.jsonl"
    lines = [
        '{"id": 5, "contents": "\\"The Title\\"\\nThe text."}',
        "",
        '{"title": "Łódź", "text": "x"}',
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    assert list(PassageFile(path)) == [
        Passage("5", "The Title", "The text."),
        Passage("1", "Łódź", "x"),
    ]
    path.write_text('{"body": "x"}\n')
    with pytest.raises(Explained, match="wanted contents"):
        PassageFile(path)[0]
    with pytest.raises(Explained, match="no file"):
        PassageFile(tmp_path / "other")
