"""Rollouts on disk: one parquet row for each, queryable while the run goes on and after it.

    run/trajectories/part-000007-train.parquet    one file for each step and phase, written whole or not at all
    run/trajectories.parquet                      all of them in one file, one row group for each part (`merge`)

A part appears by renaming a finished file, so a kill loses at most the step that was being written. A step that is
run again after resuming overwrites its own part. `merge` may be called at any time, again after more steps too:
parts win over what the merged file holds for the same step and phase, and are removed once they are in it.

    SELECT step, avg(reward), avg(solved::INT) FROM 'run/trajectories.parquet' WHERE phase = 'train' GROUP BY step

Written: what was sampled, read and scored, as ids and as text. Not written: a task's answer and prompt (`read` takes
the tasks), `signals`, the `info` of turns, and what numbers beyond the vocabulary stand for (`Node.inputs`: for each
soft token it would be a whole embedding). Such contexts can be looked at, and not learnt from again. An image of
the opening stands in its text as U+FFFC, and a U+FFFC that was said beside one as U+FFFD; images of an observation are
beside its text. What occurs often, as the first screen of a group does, is in a file once.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ludus.data.flatten import rows
from ludus.types import (
    End,
    Group,
    Image,
    Message,
    Node,
    Part,
    Role,
    Rollout,
    Sampling,
    Soft,
    Task,
    Turn,
)

Phase = Literal["before", "train", "after"]
PHASES: tuple[Phase, ...] = ("before", "train", "after")
DICTIONARY = (
    256 << 20
)  # bytes of different values of a column up to which equal ones are written once
OBJECT = "\ufffc"  # Unicode's stand-in for an object in a text
UNKNOWN = "\ufffd"  # and for a character that cannot be shown

_SAMPLING = pa.struct(
    [
        ("temperature", pa.float64()),
        ("top_p", pa.float64()),
        ("top_k", pa.int32()),
        ("max_tokens", pa.int32()),
        ("stop", pa.list_(pa.string())),
        (
            "soft",
            pa.struct(
                [
                    ("temperature", pa.float64()),
                    ("noise", pa.float64()),
                    ("sigma", pa.float64()),
                ]
            ),
        ),
    ]
)
_NODE = pa.struct(  # id and origin count within a part; a shared node has one id
    [
        ("id", pa.int64()),
        ("length", pa.int32()),
        ("role", pa.string()),
        ("sampled", pa.bool_()),
        ("origin", pa.int64()),
        ("sampling", _SAMPLING),
    ]
)
SCHEMA = pa.schema(
    [
        ("step", pa.int64()),
        ("phase", pa.string()),
        ("task", pa.string()),
        ("env", pa.string()),
        ("domain", pa.string()),
        ("difficulty", pa.float64()),
        ("group_key", pa.string()),  # `group`, `end` and `answer` are words of SQL or of a task
        ("baseline", pa.float64()),
        ("answer_index", pa.int32()),
        ("agent", pa.string()),
        ("cohort", pa.string()),
        ("reward", pa.float64()),
        ("terms", pa.map_(pa.string(), pa.float64())),
        ("ending", pa.string()),
        ("solved", pa.bool_()),
        ("error", pa.string()),
        (
            "opening",
            pa.list_(
                pa.struct(
                    [
                        ("role", pa.string()),
                        ("content", pa.string()),
                        ("images", pa.list_(pa.binary())),
                    ]
                )
            ),
        ),
        (
            "turns",
            pa.list_(
                pa.struct(
                    [
                        ("action", pa.string()),
                        ("observation", pa.string()),
                        ("images", pa.list_(pa.binary())),
                        ("reward", pa.float64()),
                        ("anchor", pa.string()),
                        ("node", pa.int64()),
                    ]
                )
            ),
        ),
        (
            "contexts",
            pa.list_(
                pa.struct(
                    [
                        ("tokens", pa.list_(pa.int64())),
                        ("mask", pa.list_(pa.bool_())),
                        ("logprobs", pa.list_(pa.float32())),
                        ("version", pa.list_(pa.int32())),
                        ("turn", pa.list_(pa.int32())),
                        ("nodes", pa.list_(_NODE)),
                    ]
                )
            ),
        ),
    ]
)


def write(run: str | Path, groups: Sequence[Group], *, step: int, phase: Phase = "train") -> Path:
    """Writes the groups of one step and phase as a part, replacing what was written for them before."""
    folder = Path(run) / "trajectories"
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / f"part-{step:06d}-{phase}.parquet"
    table = pa.Table.from_pylist(_records(groups, step, phase), schema=SCHEMA)
    _replace(path, iter([table]))
    return path


def merge(run: str | Path) -> Path:
    """All parts, and what was merged before, as one file with one row group for each step and phase."""
    path = Path(run) / "trajectories.parquet"
    parts = _parts(run)
    _replace(path, tables(run))
    for part in parts.values():
        part.unlink()
    return path


def tables(run: str | Path) -> Iterator[pa.Table]:
    """One table for each step and phase, in order, from the merged file and the parts."""
    merged = Path(run) / "trajectories.parquet"
    file = pq.ParquetFile(merged) if merged.is_file() else None
    sources: dict[tuple[int, int], Path | int] = {}
    for index in range(file.num_row_groups if file else 0):
        assert file is not None
        first = file.read_row_group(index, columns=["step", "phase"]).slice(0, 1).to_pylist()[0]
        sources[first["step"], PHASES.index(first["phase"])] = index
    sources |= _parts(run)
    for _, source in sorted(sources.items()):
        if isinstance(source, Path):
            table = pq.ParquetFile(source).read()
        else:
            assert file is not None
            table = file.read_row_group(source)
        if table.schema != SCHEMA:  # of an earlier version: what it lacks is null
            table = pa.Table.from_pylist(table.to_pylist(), schema=SCHEMA)
        if len(table):  # a step may have had nothing to keep
            yield table


def read(
    run: str | Path,
    tasks: Mapping[str, Task] | None = None,
    *,
    steps: Sequence[int] | None = None,
    phase: Phase = "train",
) -> list[Group]:
    """The groups of a run, in the order they were written; `steps`: only those.

    Nodes are shared as they were when written. Without `tasks` (by id), a task has its id, environment, domain and
    difficulty, but neither prompt nor answer.
    """
    if not (Path(run) / "trajectories.parquet").is_file() and not _parts(run):
        raise FileNotFoundError(
            f"{run} holds no trajectories (neither trajectories.parquet nor trajectories/part-*.parquet); give the "
            "folder of a run, as `ludus run ... --out DIR` writes it"
        )
    groups: list[Group] = []
    for table in tables(run):
        if table["phase"][0].as_py() != phase:
            continue
        if steps is None or table["step"][0].as_py() in steps:
            groups += _groups(table.to_pylist(maps_as_pydicts="strict"), tasks or {})
    return groups


# ------------------------------------------------------------------------------------------- to records


def _records(groups: Sequence[Group], step: int, phase: Phase) -> list[dict[str, Any]]:
    ids: dict[Node, int] = {}

    def name(node: Node | None) -> int | None:
        return None if node is None else ids.setdefault(node, len(ids))

    return [
        {
            "step": step,
            "phase": phase,
            "task": rollout.task.id,
            "env": rollout.task.env,
            "domain": rollout.task.domain,
            "difficulty": rollout.task.difficulty,
            "group_key": group.key,
            "baseline": group.baseline,
            "answer_index": index,
            "agent": rollout.agent,
            "cohort": rollout.cohort,
            "reward": rollout.reward,
            "terms": dict(rollout.terms),
            "ending": rollout.end.value,
            "solved": rollout.solved,
            "error": _text(rollout.error),
            "opening": [_message(message) for message in rollout.opening],
            "turns": [
                {
                    "action": _text(turn.action),
                    "observation": _text(turn.observation),
                    "images": [picture.data for picture in turn.pictures],
                    "reward": turn.reward,
                    "anchor": _anchor(turn.anchor),
                    "node": name(turn.node),
                }
                for turn in rollout.turns
            ],
            "contexts": [
                {
                    "tokens": row.tokens,
                    "mask": row.mask,
                    "logprobs": row.logp,
                    "version": row.version,
                    "turn": row.turn,
                    "nodes": [
                        {
                            "id": name(node),
                            "length": stop - start,
                            "role": node.role,
                            "sampled": node.logprobs is not None,
                            "origin": name(node.origin),
                            "sampling": None if node.sampling is None else asdict(node.sampling),
                        }
                        for node, start, stop in row.spans
                    ],
                }
                for row in rows(rollout)
            ],
        }
        for group in groups
        for index, rollout in enumerate(group.rollouts)
    ]


def _text(text: str) -> str:
    """Half a surrogate pair, which a service or a decoder may leave, has no UTF-8."""
    return text.encode("utf-8", "replace").decode()


def _anchor(anchor: Any) -> str | None:
    """A text as it is, or as Python writes it where it has no UTF-8; anything else as Python writes it."""
    if anchor is None or (isinstance(anchor, str) and _text(anchor) == anchor):
        return anchor
    return repr(anchor)


def _message(message: Message) -> dict[str, Any]:
    images = [part.data for part in message.content if isinstance(part, Image)]
    parts = [
        OBJECT
        if isinstance(part, Image)
        # what somebody said beside a picture would be read as another one
        else part.replace(OBJECT, UNKNOWN if images else OBJECT)
        for part in message.content
    ]
    return {"role": message.role, "content": _text("".join(parts)), "images": images}


# ------------------------------------------------------------------------------------------- from records


def _groups(records: Sequence[Mapping[str, Any]], tasks: Mapping[str, Task]) -> list[Group]:
    """The groups of one part. Group keys may recur (a task drawn twice): answer 0 begins a new group."""
    nodes = _nodes(records)
    groups: list[tuple[str, float | None, list[Rollout]]] = []
    for record in records:
        if record["answer_index"] == 0:
            groups.append((record["group_key"], record["baseline"], []))
        task = tasks.get(record["task"]) or Task(
            record["task"],
            env=record["env"],
            domain=record["domain"],
            difficulty=record["difficulty"],
        )
        rollout = Rollout(
            task=task,
            contexts=tuple(nodes[context["nodes"][-1]["id"]] for context in record["contexts"]),
            turns=tuple(
                Turn(
                    nodes[turn["node"]],
                    turn["action"],
                    turn["observation"],
                    turn["reward"],
                    turn["anchor"],
                    pictures=tuple(map(Image, turn.get("images") or ())),
                )
                for turn in record["turns"]
            ),
            reward=record["reward"],
            end=End(record["ending"]),
            terms=record["terms"],
            agent=record["agent"],
            cohort=record["cohort"] or "",
            error=record["error"],
            opening=tuple(_said(message) for message in record["opening"]),
        )
        groups[-1][2].append(rollout)
    return [Group(key, tuple(rollouts), baseline) for key, baseline, rollouts in groups]


def _nodes(records: Sequence[Mapping[str, Any]]) -> dict[int, Node]:
    """The trace of a part: each node once, under its id."""
    made: dict[int, Node] = {}
    plans: dict[int, dict[str, Any]] = {}
    for record in records:
        for context in record["contexts"]:
            parent, start = None, 0
            for entry in context["nodes"]:
                span = slice(start, start + entry["length"])
                plans[entry["id"]] = {
                    **entry,
                    "parent": parent,
                    "tokens": np.array(context["tokens"][span], dtype=np.int64),
                    "logprobs": np.array(context["logprobs"][span], dtype=np.float32),
                    "trainable": any(context["mask"][span]),
                    "version": context["version"][start] if entry["length"] else -1,
                }
                parent, start = entry["id"], span.stop

    def make(ident: int | None) -> Node | None:
        # An origin that no rollout of this part holds was never written.
        if ident is None or ident not in plans:
            return None
        if ident not in made:
            plan = plans[ident]
            sampling = plan["sampling"]
            made[ident] = Node(
                parent=make(plan["parent"]),
                tokens=plan["tokens"],
                trainable=plan["trainable"],
                logprobs=plan["logprobs"] if plan["sampled"] else None,
                version=plan["version"],
                sampling=sampling and _sampling(sampling),
                role=plan["role"],
                origin=make(plan["origin"]),
            )
        return made[ident]

    for ident in plans:  # parents come before their children, so this does not recurse deeply
        make(ident)
    return made


def _sampling(record: Mapping[str, Any]) -> Sampling:
    soft = Soft(**record["soft"]) if record.get("soft") else None
    return Sampling(**{**record, "stop": tuple(record["stop"]), "soft": soft})


def _said(record: Mapping[str, Any]) -> Message:
    role = cast(Role, record["role"])
    if not record["images"]:
        return Message(role, record["content"])
    images = iter(record["images"])
    fields = re.split(f"({OBJECT})", record["content"])
    parts: list[Part] = [Image(next(images)) if field == OBJECT else field for field in fields]
    return Message(role, [part for part in parts if part != ""])


# ------------------------------------------------------------------------------------------- files


def _parts(run: str | Path) -> dict[tuple[int, int], Path]:
    found: dict[tuple[int, int], Path] = {}
    for path in (Path(run) / "trajectories").glob("part-*.parquet"):
        match = re.fullmatch(r"part-(\d+)-(\w+)", path.stem)
        if match:
            found[int(match[1]), PHASES.index(cast(Phase, match[2]))] = path
    return found


def _replace(path: Path, parts: Iterator[pa.Table]) -> None:
    """Writes to a file beside `path`, one row group for each table, and renames it when it is on disk."""
    unfinished = path.with_suffix(".unfinished")
    with pq.ParquetWriter(
        unfinished, SCHEMA, compression="zstd", dictionary_pagesize_limit=DICTIONARY
    ) as writer:
        for table in parts:
            writer.write_table(table, row_group_size=max(1, len(table)))
    with open(unfinished, "rb") as file:
        os.fsync(file.fileno())
    os.replace(unfinished, path)
