"""Batches for the conformance suite, drawn as text, and the changes to them that must change nothing.

An attempt is drawn as its contexts: a digit is a token that the policy wrote in that turn, "." one that it did not
(prompt, observation, template). What the policy did not write holds NaN in every float field, so whoever reads it is
found out; `garbage` replaces it.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache

import torch
from torch import Tensor

from ludus.types import Batch


@dataclass(frozen=True)
class Attempt:
    group: int
    reward: float
    contexts: tuple[str, ...]
    scored: bool = True
    seed: int = (
        0  # of its log-probabilities and values, so that it keeps them whatever happens around it
    )


def attempts(*rows: tuple[int, float, str] | tuple[int, float, str, bool]) -> tuple[Attempt, ...]:
    """(group, reward, contexts separated by a bar, scored)"""
    return tuple(
        Attempt(row[0], row[1], tuple(row[2].split("|")), row[3] if len(row) == 4 else True, seed)
        for seed, row in enumerate(rows)
    )


CASES: dict[str, tuple[Attempt, ...]] = {
    "one turn": attempts((0, 1, ".000"), (0, 0, ".00000"), (1, 0, ".0"), (1, 1, ".00")),
    "gaps between turns": attempts(
        (0, 1, "..00...111.2.."), (0, 0, "..0.1.."), (0, 0.5, "..000.11"), (1, 1, ".0.1"), (1, 0, ".00..1.")
    ),
    "cut off in the last turn": attempts((0, 0, "..00..1111"), (0, 1, "..00..1..."), (0, 1, "..00..11..")),
    "a lost member": attempts(
        (0, 1, ".00.1"), (0, 0, ".0.1."), (0, math.nan, ".00..", False), (0, 1, ".0"), (1, 1, ".0"), (1, 0, ".00")
    ),
    "a group lost but for one": attempts(
        (0, 1, ".00"), (0, math.nan, ".0", False), (1, 1, ".0"), (1, 0, ".00")
    ),
    "all lost": attempts((0, math.nan, ".00", False), (0, math.nan, ".0", False)),
    "a single member": attempts((0, 0.3, ".00.1"), (1, 1, ".0"), (1, 0, ".000")),
    "a batch of one": attempts((0, 1, ".00.11")),
    "all equal": attempts((0, 0.1, ".00"), (0, 0.1, ".0.1"), (0, 0.1, ".000"), (1, 0.7, ".0"), (1, 0.7, ".00")),
    "several contexts": attempts(
        (0, 1, "..00..1|...22|.3"), (0, 0, "..0..1"), (1, 0, "..00|....111"), (1, 1, ".0|.1|.2")
    ),
    "a member that wrote nothing": attempts((0, 1, ".00"), (0, 1, "...."), (0, 0, ".0"), (0, 0, "..")),
    "nobody wrote anything": attempts((0, 1, ".."), (0, 0, ".")),
    "groups not in order": attempts((7, 1, ".0"), (-2, 0, ".00"), (7, 0, ".0.1"), (-2, 1, ".0"), (7, 0, ".00")),
}  # fmt: skip


@cache
def build(members: tuple[Attempt, ...], *, garbage: float = math.nan, columns: int = 0) -> Batch:
    """The batch of these attempts, with `columns` more columns of padding than needed; made once, never written to."""
    contexts = [(r, text) for r, member in enumerate(members) for text in member.contexts]
    width = max(len(text) for _, text in contexts) + columns
    turn = torch.tensor([[_turn(text, t) for t in range(width)] for _, text in contexts])
    real = torch.tensor([[t < len(text) for t in range(width)] for _, text in contexts])
    mask = turn >= 0
    rollout = torch.tensor([r for r, _ in contexts])
    noise = torch.full((5, len(contexts), width), garbage)
    for r, member in enumerate(members):
        written = mask & (rollout == r)[:, None]
        generator = torch.Generator().manual_seed(member.seed)
        noise[:, written] = torch.randn(5, 64, generator=generator)[:, : int(written.sum())]
    logp = -1 + 0.3 * noise[0]
    reward = torch.tensor([float(member.reward) for member in members])
    turns = max(int(turn.max()) + 1, 1)
    wrote = torch.zeros(len(members), turns, dtype=torch.bool)
    row, column = mask.nonzero(as_tuple=True)
    wrote[rollout[row], turn[row, column]] = True
    return Batch(
        tokens=torch.where(real, 0, -1),
        mask=mask,
        logp=logp,
        turn=turn,
        rollout=rollout,
        group=torch.tensor([member.group for member in members]),
        reward=reward,
        scored=torch.tensor([member.scored for member in members]),
        turn_reward=reward[:, None] * wrote,
        baseline=torch.tensor([0.25 + 0.5 * (member.group % 2) for member in members]),
        old_logp=logp + 0.2 * noise[1],
        ref_logp=logp + 0.2 * noise[2],
        value=0.5 + 0.3 * noise[3],
        probes={"measure": 1 + 0.1 * noise[4]},
        terms={"odd": torch.tensor([math.nan if m.seed % 2 else 1.0 for m in members])},
        anchor=torch.arange(turns).where(wrote, -1),  # a turn acts in the state of its number
    )


def _turn(text: str, t: int) -> int:
    return int(text[t]) if t < len(text) and text[t] != "." else -1


# ------------------------------------------------------------------ what must change nothing


def lost_left_out(members: Sequence[Attempt]) -> tuple[Attempt, ...]:
    return tuple(member for member in members if member.scored)


def shuffled(members: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Another order, in the batch and inside each group."""
    return tuple(members[i] for i in torch.randperm(len(members), generator=_generator()).tolist())


def observations_left_out(members: Sequence[Attempt]) -> tuple[Attempt, ...]:
    return tuple(
        replace(member, contexts=tuple(text.replace(".", "") or "." for text in member.contexts))
        for member in members
    )


def one_context_a_turn(members: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Every turn in a context of its own, as if the history had been rewritten before it."""
    return tuple(
        replace(
            member,
            contexts=tuple(
                "." + "".join(run)
                for _, run in itertools.groupby("".join(member.contexts).replace(".", ""))
            )
            or (".",),
        )
        for member in members
    )


def groups_renamed(members: Sequence[Attempt]) -> tuple[Attempt, ...]:
    """Other ids in another order; even stays even, since `build` makes the baseline from it."""
    return tuple(
        replace(member, group=-100 * member.group + member.group % 2) for member in members
    )


CHANGES: dict[str, Callable[[Sequence[Attempt]], tuple[Attempt, ...]]] = {
    "lost left out": lost_left_out,
    "shuffled": shuffled,
    "observations left out": observations_left_out,
    "one context a turn": one_context_a_turn,
    "groups renamed": groups_renamed,
}


def by_attempt(members: Sequence[Attempt], batch: Batch, value: Tensor) -> dict[int, Tensor]:
    """[B,T] -> the values on the tokens that each attempt wrote, in order; attempts known by their seed."""
    owner = batch.rollout[:, None].expand_as(batch.mask)[batch.mask]
    written = value[batch.mask]
    return {member.seed: written[owner == r] for r, member in enumerate(members)}


def same(got: dict[int, Tensor], want: dict[int, Tensor], atol: float = 1e-5) -> None:
    """Equal on every attempt that both have."""
    for seed in got.keys() & want.keys():
        torch.testing.assert_close(got[seed], want[seed], atol=atol, rtol=1e-5)


@contextmanager
def named(case: str) -> Iterator[None]:
    """Says in which case an assertion failed, where one test goes through all of them."""
    try:
        yield
    except AssertionError as error:
        error.add_note(f"in the case {case!r}")
        raise


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
