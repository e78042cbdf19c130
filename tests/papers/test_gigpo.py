"""Pinned numbers of GiGPO, arXiv:2505.10978: four rollouts through the states A, B, C of one task."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages.anchor import GiGPO, anchor_relative, compared, gigpo
from ludus.advantages.credit import GRPO
from ludus.advantages.relative import grpo
from ludus.types import Batch

A, B, C = 0, 1, 2
ANCHOR = torch.tensor([[A, B, -1, -1], [A, B, A, C], [A, C, -1, -1], [A, B, -1, -1]])
WRITTEN = ANCHOR >= 0
REWARD = torch.tensor([[0, 1, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0], [0, 1, 0, 0]], dtype=torch.float64)
GROUP = torch.zeros(4, dtype=torch.int64)


def close(got: Tensor, want: Any, atol: float = 2e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def test_returns_of_equal_states_are_compared() -> None:
    step = anchor_relative(REWARD, WRITTEN, ANCHOR, GROUP)
    # returns .95 1 | 0 0 0 0 | 0 0 | .95 1
    close(step[ANCHOR == A], [0.57, -0.38, -0.38, -0.38, 0.57])
    close(step[ANCHOR == B], [1 / 3, -2 / 3, 1 / 3])
    assert (step[ANCHOR == C] == 0).all()
    assert (step[~WRITTEN] == 0).all()
    scaled = anchor_relative(REWARD, WRITTEN, ANCHOR, GROUP, scale="group")
    close(scaled[ANCHOR == A], [1.095443, -0.730295, -0.730295, -0.730295, 1.095443])
    close(scaled[ANCHOR == B], [0.577349, -1.154699, 0.577349])
    for state in (A, B, C):  # relative to their own mean
        close(step[state == ANCHOR].sum(), 0.0)
    assert compared(WRITTEN, ANCHOR, GROUP) == 1.0


def test_episodes_are_compared_over_turns_or_over_rollouts() -> None:
    def first(**settings: Any) -> list[float]:
        return gigpo(REWARD, WRITTEN, ANCHOR, GROUP, omega=0.0, **settings)[:, 0].tolist()

    assert first(over="rollouts") == pytest.approx([0.5, -0.5, -0.5, 0.5])
    assert first() == pytest.approx([0.6, -0.4, -0.4, 0.6])
    assert first(over="rollouts", scale="group") == pytest.approx(
        [0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6
    )
    assert first(scale="group") == pytest.approx(
        [1.161893, -0.774595, -0.774595, 1.161893], abs=1e-6
    )


def test_the_sum_of_both_parts() -> None:
    got = gigpo(REWARD, WRITTEN, ANCHOR, GROUP)
    close(got[0, :2], [0.6 + 0.57, 0.6 + 1 / 3])
    close(got[1], [-0.4 - 0.38, -0.4 - 2 / 3, -0.4 - 0.38, -0.4])
    close(gigpo(REWARD, WRITTEN, ANCHOR, GROUP, omega=2.0)[0, 0], 0.6 + 2 * 0.57)


def test_without_the_step_part_it_is_grpo() -> None:
    equal = torch.tensor([[True, True]] * 4)
    reward = torch.tensor([[0, 1], [0, 0], [0.5, 0], [0, 1]], dtype=torch.float64)
    anchor = torch.tensor([[0, 1]] * 4)
    group = torch.tensor([3, 3, 9, 9])
    want = grpo(reward.sum(1), group)[:, None].expand(-1, 2)
    for over in ("turns", "rollouts"):
        got = gigpo(reward, equal, anchor, group, omega=0.0, scale="group", over=over)
        # over turns each rollout counts twice: the same mean, another unbiased deviation
        if over == "rollouts":
            close(got, want, atol=1e-9)
        assert (got.sign() == want.sign()).all()


def test_states_met_once_or_unknown_add_nothing() -> None:
    alone = torch.arange(16).view(4, 4)
    assert (anchor_relative(REWARD, WRITTEN, alone, GROUP) == 0).all()
    unknown = torch.full_like(ANCHOR, -1)
    assert (anchor_relative(REWARD, WRITTEN, unknown, GROUP) == 0).all()
    assert compared(WRITTEN, alone, GROUP) == compared(WRITTEN, unknown, GROUP) == 0.0
    assert compared(torch.zeros_like(WRITTEN), ANCHOR, GROUP) == 0.0


def test_equal_names_in_different_groups_are_different_states() -> None:
    group = torch.tensor([0, 0, 1, 1])
    got = anchor_relative(REWARD, WRITTEN, ANCHOR, group)
    close(got[:2][ANCHOR[:2] == A], [0.95 - 0.95 / 3, -0.95 / 3, -0.95 / 3])
    close(got[2:][ANCHOR[2:] == A], [-0.475, 0.475])
    # names need not be small, in order, or the same in both groups
    renamed = torch.where(ANCHOR >= 0, ANCHOR * 10**12 + 7 * group[:, None], -1)
    close(anchor_relative(REWARD, WRITTEN, renamed, group), got, atol=0)


def test_a_constant_on_every_outcome_changes_nothing() -> None:
    last = torch.zeros_like(REWARD)
    last[torch.arange(4), WRITTEN.sum(1) - 1] = 5.0
    close(
        gigpo(REWARD + last, WRITTEN, ANCHOR, GROUP, gamma=1.0),
        gigpo(REWARD, WRITTEN, ANCHOR, GROUP, gamma=1.0),
        atol=1e-12,
    )


def test_equal_returns_are_exactly_zero() -> None:
    same = torch.full_like(REWARD, 0.1) * WRITTEN
    written, anchor = WRITTEN[[0, 0]], ANCHOR[[0, 3]]
    for scale in ("none", "group"):
        got = gigpo(same[[0, 0]], written, anchor, torch.tensor([0, 0]), scale=scale)
        assert (got == 0).all()


def test_a_lone_rollout() -> None:
    """Its loop is still compared with itself; its episode with nobody, or as in the release."""
    one = [t[1:2] for t in (REWARD + 0.5, WRITTEN, ANCHOR, GROUP)]
    got = gigpo(*one)
    # returns of .5 .5 .5 .5 at .95; A was met at turns 0 and 2
    close(got[0, 0], (0.5 * 0.95**2 + 0.5 * 0.95**3) / 2)
    assert got[0, 1] == got[0, 3] == 0
    close(gigpo(*one, omega=0.0, over="rollouts", alone="reward"), [[2.0] * 4])
    assert (gigpo(*one, omega=0.0, over="rollouts") == 0).all()


def test_lost_members_enter_no_statistic() -> None:
    scored = torch.tensor([True, True, False, True])
    reward = REWARD.clone()
    reward[2] = torch.nan
    got = gigpo(reward, WRITTEN, ANCHOR, GROUP, scored=scored)
    assert (got[2] == 0).all()
    keep = scored.nonzero().squeeze(1)
    close(got[keep], gigpo(REWARD[keep], WRITTEN[keep], ANCHOR[keep], GROUP[keep]), atol=1e-12)
    assert compared(WRITTEN, ANCHOR, GROUP, scored=scored) == pytest.approx(7 / 8)


def test_the_cost_is_not_that_of_pairs() -> None:
    """Half a million turns, all in one state: their pairs would be 10^11."""
    reward = torch.zeros(10_000, 50)
    reward[::2, -1] = 1.0
    same = torch.zeros(10_000, 50, dtype=torch.int64)
    began = time.perf_counter()
    got = gigpo(reward, same == 0, same, torch.zeros(10_000, dtype=torch.int64))
    assert time.perf_counter() - began < 30
    assert got.isfinite().all() and got.any()


# ------------------------------------------------------------------ as a credit


def batch(
    reward: Tensor = REWARD, anchor: Tensor | None = ANCHOR, total: Tensor | None = None
) -> Batch:
    """Two tokens a turn, an observation behind each."""
    turn = torch.full((4, 13), -1)
    for k in range(4):
        turn[:, 1 + 3 * k : 3 + 3 * k] = torch.where(WRITTEN[:, k : k + 1], k, -1)
    return Batch(
        tokens=torch.zeros(4, 13, dtype=torch.int64),
        mask=turn >= 0,
        logp=torch.zeros(4, 13),
        turn=turn,
        rollout=torch.arange(4),
        group=GROUP,
        reward=reward.sum(1) if total is None else total,
        scored=torch.ones(4, dtype=torch.bool),
        turn_reward=reward,
        anchor=anchor,
    )


def test_credit_puts_a_turn_on_its_tokens() -> None:
    got = GiGPO()(batch()).advantage
    want = gigpo(REWARD, WRITTEN, ANCHOR, GROUP)
    for k in range(4):
        for place in (1, 2):
            close(got[:, 3 * k + place], want[:, k] * WRITTEN[:, k])
    assert (got[~batch().mask] == 0).all()
    assert GiGPO()(batch()).metrics == {"anchor/compared": 1.0}
    plain = GiGPO(omega=0.0, over="rollouts", scale="group")(batch()).advantage
    close(plain, GRPO()(batch()).advantage, atol=1e-9)


def test_credit_refuses_what_it_cannot_see() -> None:
    for anchor in (None, torch.full_like(ANCHOR, -1)):
        with pytest.raises(ValueError, match=r'Step\.info\["anchor"\]'):
            GiGPO()(batch(anchor=anchor))
        without = GiGPO(omega=0.0)(batch(anchor=anchor))  # the ablation needs none
        assert without.metrics == {"anchor/compared": 0.0} and without.advantage.any()
    silent = replace(batch(anchor=None), mask=torch.zeros(4, 13, dtype=torch.bool))
    assert (GiGPO()(silent).advantage == 0).all()  # nobody wrote anything
    with pytest.raises(ValueError, match="none of their turns"):
        GiGPO()(batch(torch.zeros_like(REWARD), total=REWARD.sum(1)))
    with pytest.raises(ValueError, match=r"written has shape \[4, 3\]"):
        gigpo(REWARD, WRITTEN[:, :3], ANCHOR, GROUP)


# ------------------------------------------------------------------ a corridor, by enumeration of a table


def corridor(credit: str, seed: int, updates: int = 60) -> float:
    """Steps to the goal (40 if not reached) of a softmax table on six cells, after training."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.zeros(6, 3, dtype=torch.float64)
    lengths: list[int] = []
    for update in range(updates + 20):
        chances = logits.softmax(1)
        place = torch.zeros(8, dtype=torch.int64)
        done = torch.zeros(8, dtype=torch.bool)
        states, acts, rewards, alive = [], [], [], []
        for _ in range(40):
            act = torch.multinomial(chances[place], 1, generator=generator).squeeze(1)
            after = (place + torch.tensor([1, -1, 0])[act]).clamp(0, 5)
            states.append(place)
            acts.append(act)
            alive.append(~done)
            rewards.append(((after == 5) & ~done).double())
            done = done | (after == 5)
            place = torch.where(done, place, after)
        state, act = torch.stack(states, 1), torch.stack(acts, 1)
        written, reward = torch.stack(alive, 1), torch.stack(rewards, 1)
        if update >= updates:
            lengths += written.sum(1).tolist()
            continue
        group = torch.zeros(8, dtype=torch.int64)
        omega = 1.0 if credit == "gigpo" else 0.0
        advantage = gigpo(reward, written, state, group, omega=omega)
        score = torch.nn.functional.one_hot(act, 3) - chances[state]
        gradient = torch.zeros_like(logits).index_put(
            (state[written],), (advantage[..., None] * score)[written], accumulate=True
        )
        logits = logits + 0.3 * gradient / 8
    return sum(lengths) / len(lengths)


def test_in_a_corridor_steps_are_saved() -> None:
    seeds = range(4)
    plain = sum(corridor("episode", seed) for seed in seeds) / 4
    ours = sum(corridor("gigpo", seed) for seed in seeds) / 4
    assert ours <= 0.75 * plain, f"{ours:.1f} steps against {plain:.1f}"
