"""Rollouts on disk: they come back as they were, answer SQL, and survive a kill at any step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ludus.data.batch import make_batch
from ludus.data.store import SCHEMA, merge, read, write
from ludus.types import End, Group, Image, Message, Node, Rollout, Sampling, Task, Turn


def groups(step: int) -> list[Group]:
    """Two groups; the answers of the first share their first turn, the second has a summary and a lost rollout."""

    def sampled(parent: Node, *tokens: int) -> Node:
        logprobs = -np.arange(1, len(tokens) + 1, dtype=np.float32) / 7
        sampling = Sampling(0.7, stop=("\n",))
        return Node(parent, np.array(tokens), True, logprobs, step, sampling, "assistant")

    opening = (Message("system", "rules"), Message("user", ["see ", Image(b"png"), " here"]))
    task = Task("t1", opening, answer=42, env="maze", difficulty=2.0, domain="grid")
    first = sampled(Node(None, np.array([90, 91]), role="prompt"), 1, 2)
    answers = []
    for n in (3, 4):
        second = sampled(Node(first, np.array([92])), n)
        turns = (
            Turn(first, "go", "a wall", 0.25, anchor=("room", 1)),
            Turn(second, f"turn {n}", "done", 0.5, "room 2", pictures=(Image(b"screen"),)),
        )
        solved = End.SOLVED if n == 3 else End.OUT_OF_TURNS
        answers.append(
            Rollout(task, (second,), turns, n - 3.5, solved, {"win": n - 3.0}, opening=opening)
        )
    summary = sampled(Node(None, np.array([90]), role="prompt"), 5)
    fresh = sampled(Node(None, np.array([93]), role="prompt", origin=summary), 6, 7)
    other = Task("t2", env="maze")
    long = Rollout(
        other, (summary, fresh), (Turn(fresh, "x\ud800"),), 0.0, End.FAILED, agent="solver"
    )
    lost = Rollout(other, (), (), float("nan"), End.ENV_CRASHED, error="no such room")
    return [Group("t1", tuple(answers), baseline=0.5), Group("t2", (long, lost))]


def ask(question: str) -> list[tuple]:
    answer = duckdb.sql(question)
    assert answer is not None
    return answer.fetchall()


def test_what_is_read_is_what_was_written(tmp_path: Path) -> None:
    written = groups(3)
    path = write(tmp_path, written, step=3)
    assert path.name == "part-000003-train.parquet"
    tasks = {r.task.id: r.task for group in written for r in group.rollouts}
    back = read(tmp_path, tasks)
    assert [(g.key, g.baseline, len(g.rollouts)) for g in back] == [("t1", 0.5, 2), ("t2", None, 2)]
    for one, two in zip(written, back, strict=True):
        for ours, theirs in zip(one.rollouts, two.rollouts, strict=True):
            assert theirs.task == ours.task
            assert (theirs.end, theirs.agent, theirs.error) == (ours.end, ours.agent, ours.error)
            assert dict(theirs.terms) == dict(ours.terms) and theirs.opening == ours.opening
            np.testing.assert_equal(theirs.reward, ours.reward)
            for a, b in zip(ours.turns, theirs.turns, strict=True):
                assert (a.observation, a.reward) == (b.observation, b.reward)
                assert a.pictures == b.pictures
            for leaf, copy in zip(ours.contexts, theirs.contexts, strict=True):
                assert copy.context().dtype == np.int64
                for a, b in zip(leaf.chain(), copy.chain(), strict=True):
                    np.testing.assert_array_equal(a.tokens, b.tokens)
                    assert (a.trainable, a.version, a.role) == (b.trainable, b.version, b.role)
                    assert a.sampling == b.sampling
                    assert (a.logprobs is None) == (b.logprobs is None)
                    if a.logprobs is not None:
                        np.testing.assert_array_equal(a.logprobs, b.logprobs)
    # one node, sampled once, is one node again; a summary remembers the context it came from
    left, right = back[0].rollouts
    assert (
        left.turns[0].node is right.turns[0].node and left.turns[0].node in left.contexts[0].chain()
    )
    assert left.turns[0].anchor == right.turns[0].anchor == "('room', 1)"
    summary, fresh = back[1].rollouts[0].contexts
    assert fresh.chain()[0].origin is summary
    assert back[1].rollouts[0].turns[0].action == "x?"
    # so a stored step can be learnt from as it was
    for one, two in zip(written, back, strict=True):
        a, b = make_batch([one]), make_batch([two])
        assert a.tokens.equal(b.tokens) and a.mask.equal(b.mask) and a.logp.equal(b.logp)
        assert a.turn.equal(b.turn) and a.temperature == b.temperature == 0.7


def test_a_picture_that_many_have_seen_is_written_once(tmp_path: Path) -> None:
    screen = Image(np.random.default_rng(0).bytes(2 << 20))
    node = groups(1)[0].rollouts[0].contexts[0]
    turn = Turn(node, "look", pictures=(screen,))
    seen = [Rollout(Task("t"), (node,), (turn,), 1.0, End.SOLVED) for _ in range(16)]
    path = write(tmp_path, [Group("t", tuple(seen))], step=1)
    assert path.stat().st_size < 1.1 * len(screen.data)
    assert [r.turns[0].pictures for r in read(tmp_path)[0].rollouts] == [(screen,)] * 16
    assert merge(tmp_path).stat().st_size < 1.1 * len(screen.data)


def one(**told: Any) -> Rollout:
    turn = Turn(groups(1)[0].rollouts[0].contexts[0], "go", anchor=told.pop("anchor", None))
    return Rollout(Task("t"), (turn.node,), (turn,), 1.0, End.SOLVED, **told)


def test_those_that_are_compared_with_each_other_are_so_again(tmp_path: Path) -> None:
    write(tmp_path, [Group("t", (one(cohort="1"), one(cohort="2")))], step=1)
    assert [rollout.cohort for rollout in read(tmp_path)[0].rollouts] == ["1", "2"]


def test_half_a_surrogate_pair_is_written_wherever_it_stands(tmp_path: Path) -> None:
    told = [one(anchor=f"room {half}", error=f"no {half}") for half in ("\ud800", "\ud801")]
    write(tmp_path, [Group("t", tuple(told))], step=1)
    back = read(tmp_path)[0].rollouts
    assert [rollout.error for rollout in back] == ["no ?", "no ?"]
    assert len({rollout.turns[0].anchor for rollout in back}) == 2


def test_a_stand_in_for_an_object_that_was_said_is_no_picture(tmp_path: Path) -> None:
    seen = Message("user", ["a \ufffc b ", Image(b"png"), " c"])
    plain = Message("user", "a \ufffc b")
    write(tmp_path, [Group("t", (one(opening=(seen, plain)),))], step=1)
    assert read(tmp_path)[0].rollouts[0].opening == (
        Message("user", ["a \ufffd b ", Image(b"png"), " c"]),
        plain,
    )


def test_parts_of_an_earlier_version_are_merged_with_those_of_this_one(tmp_path: Path) -> None:
    early = write(tmp_path, groups(1), step=1)
    write(tmp_path, groups(2), step=2)
    turns = SCHEMA.field("turns").type.value_type
    fields = [turns.field(i) for i in range(turns.num_fields) if turns.field(i).name != "images"]
    kept = [field for field in SCHEMA if field.name not in {"cohort", "turns"}]
    schema = pa.schema([*kept, ("turns", pa.list_(pa.struct(fields)))])
    records = pq.read_table(early).to_pylist()
    pq.write_table(pa.Table.from_pylist(records, schema=schema), early)
    before = read(tmp_path)
    merge(tmp_path)
    after = read(tmp_path)
    assert [group.key for group in after] == [group.key for group in before] == ["t1", "t2"] * 2
    pictures = [group.rollouts[0].turns[-1].pictures for group in after]
    assert pictures == [(), (), (Image(b"screen"),), ()]
    assert not list((tmp_path / "trajectories").glob("*.parquet"))


def test_without_tasks_the_record_still_names_them(tmp_path: Path) -> None:
    write(tmp_path, groups(1), step=1)
    task = read(tmp_path)[0].rollouts[0].task
    assert task == Task("t1", env="maze", difficulty=2.0, domain="grid")


def test_sql_reads_a_run_while_it_goes_on_and_after(tmp_path: Path) -> None:
    for step in (1, 2):
        write(tmp_path, groups(step), step=step)
    write(tmp_path, groups(0), step=0, phase="before")
    question = """
        SELECT step, count(*), avg(solved::INT), sum(terms['win']), max(turns[1].observation),
               sum(list_sum([length(c.tokens) FOR c IN contexts])), any_value(opening[2].content)
        FROM '{}' WHERE phase = 'train' AND error = '' GROUP BY step ORDER BY step
    """
    expected = [(s, 3, 1 / 3, 1.0, "a wall", 17, "see \ufffc here") for s in (1, 2)]
    going = ask(question.format(tmp_path / "trajectories" / "*.parquet"))
    assert [tuple(row) for row in going] == [pytest.approx(row) for row in expected]
    merged = merge(tmp_path)
    assert merged == tmp_path / "trajectories.parquet"
    assert ask(question.format(merged)) == going
    broken = ask(f"SELECT task, ending, error FROM '{merged}' WHERE ending LIKE 'env%' LIMIT 1")
    assert broken == [("t2", "environment crashed", "no such room")]


def test_a_kill_loses_nothing_that_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, groups(1), step=1)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:  # before the finished file gets its name
        patch.setattr("os.replace", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path, groups(2), step=2)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path)
    assert len(read(tmp_path, steps=[1])) == 2 and read(tmp_path, steps=[2]) == []
    with (
        monkeypatch.context() as patch
    ):  # after the merged file got its name, before the parts went
        patch.setattr(Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            merge(tmp_path)
    assert len(read(tmp_path)) == 2  # not twice
    write(tmp_path, groups(2), step=2)
    merge(tmp_path)
    assert len(read(tmp_path)) == 4 and not list((tmp_path / "trajectories").glob("*.parquet"))


def test_steps_run_again_after_resuming_replace_what_was_written(tmp_path: Path) -> None:
    write(tmp_path, groups(12), step=12)
    write(tmp_path, groups(2), step=2)
    write(tmp_path, groups(2), step=2, phase="after")
    merge(tmp_path)
    write(tmp_path, groups(2)[:1], step=2)
    write(tmp_path, [], step=3)
    for _ in range(2):
        assert [len(read(tmp_path, steps=[s])) for s in (2, 3, 12)] == [1, 0, 2]
        assert len(read(tmp_path, phase="after")) == 2
        merge(tmp_path)
    file = pq.ParquetFile(tmp_path / "trajectories.parquet")
    assert file.num_row_groups == 3
    assert file.read(columns=["step"])["step"].to_pylist() == [2, 2, 2, 2, 2, 2, 12, 12, 12, 12]


def test_a_folder_without_trajectories_is_explained(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"neither trajectories.parquet nor .*--out DIR"):
        read(tmp_path)
