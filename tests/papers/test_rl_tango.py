"""Pinned numbers of RL Tango, arXiv:2505.15034: two channels, a verifier's reward, class weights, who learns when."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages.channels import outcome_and_steps, share_of_steps
from ludus.advantages.relative import grpo
from ludus.curricula.roles import Alternating
from ludus.rewards.step_verdicts import (
    parse,
    step_rewards,
    steps_of,
    verifier_format,
    verifier_reward,
)
from ludus.weights.class_balance import ClassCounts, balanced_weights

THIRD = 1 / 3
MASK = torch.tensor([[True] * 5 + [False], [True] * 6])
OUTCOME = torch.tensor([1.0, 0.0], dtype=torch.float64)
ROWS, GROUP = torch.arange(2), torch.zeros(2, dtype=torch.int64)


def steps() -> tuple[Tensor, Tensor]:
    """A: 2 steps, both right, ending at tokens 1 and 3. B: 3 steps, the first one right, ending at 1, 2 and 4."""
    reward, ends = torch.zeros(2, 6, dtype=torch.float64), torch.zeros(2, 6, dtype=torch.bool)
    ends[0, [1, 3]] = ends[1, [1, 2, 4]] = True
    reward[0, [1, 3]] = 0.5
    reward[1, [1, 2, 4]] = torch.tensor([THIRD, -THIRD, -THIRD], dtype=torch.float64)
    return reward, ends


def mixed(alpha: float, **settings: Any) -> Tensor:
    return outcome_and_steps(OUTCOME, *steps(), MASK, ROWS, GROUP, alpha=alpha, **settings)


def close(got: Tensor, want: Any, atol: float = 5.1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


# ------------------------------------------------------------------ the advantage


def test_channels_apart_and_together() -> None:
    reward, ends = steps()
    close(reward[ends].mean(), 0.13333)
    close(reward[ends].std(), 0.43141)
    close(
        mixed(1.0),
        [[1.6999, 1.6999, 0.8499, 0.8499, 0, 0], [-1.6999, -1.6999, -2.1635, -1.0817, -1.0817, 0]],
        atol=1.1e-4,
    )
    close(mixed(0.0), [[0.7071] * 5 + [0], [-0.7071] * 6])
    close(
        mixed(0.1),
        [
            [0.8064, 0.8064, 0.7214, 0.7214, 0.6364, 0],
            [-0.8064, -0.8064, -0.8527, -0.7446, -0.7446, -0.6364],
        ],
    )


def test_without_steps_it_is_grpo() -> None:
    close(mixed(0.0)[:, 0], grpo(OUTCOME, GROUP), atol=1e-12)
    reward, ends = steps()
    none = outcome_and_steps(OUTCOME, reward, ends & False, MASK, ROWS, GROUP, alpha=0.1)
    close(none, 0.9 * mixed(0.0), atol=1e-12)


def test_mixed_before_normalising_it_would_be_something_else() -> None:
    reward, _ = steps()
    placed = 0.1 * reward
    placed[0, 4] += 0.9
    total = placed.sum(1)
    assert ((total - total.mean()) / total.std() - mixed(0.1)[:, 0]).abs().max() > 0.05


def test_a_constant_verifier_teaches_no_steps() -> None:
    _, ends = steps()
    same = torch.where(ends, -0.25, 0.0).double()
    got = outcome_and_steps(OUTCOME, same, ends, MASK, ROWS, GROUP, alpha=0.1)
    close(got, 0.9 * mixed(0.0), atol=1e-12)
    assert not torch.allclose(got, mixed(0.1))


def test_single_steps_lost_members_and_strays() -> None:
    reward, ends = steps()
    only = torch.zeros_like(ends)
    only[0, 3] = True
    got = outcome_and_steps(OUTCOME, reward, only, MASK, ROWS, GROUP, alpha=1.0)
    close(got[0, :4], [0.5] * 4, atol=1e-6)  # mean 0, deviation 1
    assert (got[1] == 0).all()
    # the lost enter neither statistic
    scored = torch.tensor([True, False])
    bad = torch.where(torch.tensor([[False], [True]]), torch.nan, reward)
    outcome = torch.tensor([1.0, math.nan], dtype=torch.float64)
    got = outcome_and_steps(outcome, bad, ends, MASK, ROWS, GROUP, alpha=0.1, scored=scored)
    assert (got == 0).all()  # two equal steps, one outcome: nothing to compare
    with pytest.raises(ValueError, match="a step ends on token 5 of row 0"):
        outcome_and_steps(OUTCOME, reward, ~ends, MASK, ROWS, GROUP, alpha=0.1)
    # several contexts of one rollout are one sequence
    two = outcome_and_steps(
        OUTCOME[:1], reward, ends, MASK, torch.tensor([0, 0]), GROUP[:1], alpha=1.0
    )
    close(two[0, 0], (reward[ends] - reward[ends].mean()).sum() / reward[ends].std(), atol=1e-5)
    close(two[1, 5], 0.0)


def test_share_of_the_steps_decays() -> None:
    got = [share_of_steps(step, total=300) for step in (0, 75, 150, 300, 900)]
    assert got == pytest.approx([0.1, 0.03162, 0.01, 0.001, 0.001], abs=5e-6)
    assert share_of_steps(0, total=300, first=0.5) == 0.5
    with pytest.raises(ValueError, match="first >= last > 0"):
        share_of_steps(0, total=0)


# ------------------------------------------------------------------ the verifier


def said(*verdicts: str, final: str = r"\boxed{INCORRECT}", between: str = "") -> str:
    blocks = between.join(f"<step>checked. \\boxed{{{v}}}</step>" for v in verdicts)
    return (
        f"<step_verification>{blocks}</step_verification>\n"
        f"<final_verification>{final}</final_verification>"
    )


def test_step_verdicts_become_rewards() -> None:
    assert steps_of("<step>a</step> then <step>b</step>") == 2 and steps_of("none") == 0
    assert step_rewards(parse(said("CORRECT", "CORRECT")), 2) == [0.5, 0.5]
    got = step_rewards(parse(said("CORRECT", "INCORRECT", "incorrect")), 3)
    assert got == pytest.approx([THIRD, -THIRD, -THIRD])
    assert step_rewards(parse(said("CORRECT")), 2) is None  # one verdict too few: none at all
    assert step_rewards(parse(said()), 0) is None
    assert step_rewards(parse("nonsense"), 2) is None


def test_reward_of_a_verdict() -> None:
    right = said("CORRECT", "INCORRECT")
    assert verifier_reward(parse(right), False, 2) == pytest.approx(1.8)
    assert verifier_reward(parse(right), True, 2) == pytest.approx(0.8)
    # without a final verdict nothing, although the solution was wrong and the steps are in form
    silent = said("CORRECT", "INCORRECT", final="it is INCORRECT")
    assert verifier_reward(parse(silent), False, 2) == 0.0
    assert verifier_reward(parse(""), False, 2) == 0.0
    # a verdict behind other words has the form and is not read, as in the release
    wordy = parse(said("CORRECT", "INCORRECT", final=r"so \boxed{INCORRECT}"))
    assert wordy.concluded and wordy.final is None
    assert parse(said(final=r" \box{correct}. ")).final is True


def test_format_of_a_verdict() -> None:
    def form(text: str, steps: int = 2, **settings: Any) -> float:
        return verifier_format(parse(text), steps, **settings)

    assert form(said("CORRECT", "CORRECT")) == 1.0
    assert form(said("CORRECT", "CORRECT", between="well")) == pytest.approx(0.6)
    assert form(said("CORRECT")) == pytest.approx(0.2)  # one step is missing
    assert (
        form(said("CORRECT"), solution_format=0.5) == 1.0
    )  # of a solution that has no form itself
    assert form(said(), 0) == pytest.approx(0.2)  # no steps
    assert form(said("CORRECT", "CORRECT", final="yes")) == pytest.approx(0.2)
    assert form(said("CORRECT", between="").replace("checked", "x") + "more") == 0.0
    assert form(said("maybe", "perhaps", final="yes", between="well")) == 0.0  # not below 0
    assert form("") == 0.0


def test_class_weights() -> None:
    truth = torch.tensor([True] * 64 + [False] * 192)
    weight = balanced_weights(truth, 64, 192)
    close(weight[0], 1.4641)
    close(weight[-1], 0.8453)
    assert weight.mean().item() == pytest.approx(1.0, abs=1e-6)
    # one class alone: all weigh the same
    assert balanced_weights(truth[:3], 3, 0).tolist() == pytest.approx([1.0] * 3)
    assert balanced_weights(truth[:0], 0, 0).shape == (0,)
    with pytest.raises(TypeError, match=r"give torch\.bool"):
        balanced_weights(truth.float(), 1, 1)


def test_moving_counts() -> None:
    counts = ClassCounts()
    state = counts.update(counts.init(), torch.tensor([True] * 64 + [False] * 192))
    assert state == {"right": 64.0, "wrong": 192.0}
    state = counts.update(json.loads(json.dumps(state)), torch.tensor([True] * 128 + [False] * 128))
    assert state == pytest.approx({"right": 76.8, "wrong": 179.2})


# ------------------------------------------------------------------ who learns


def test_schedule() -> None:
    roles = Alternating((("generator", 3), ("verifier", 1)), first="verifier", warmup=40)
    played = [roles.learning(step) for step in range(1, 441)]
    assert played[:40] == ["verifier"] * 40
    assert played[40:48] == ["generator", "generator", "generator", "verifier"] * 2
    assert (played.count("generator"), played.count("verifier")) == (300, 140)
    assert roles.learnt("generator", 41) == 0 and roles.learnt("verifier", 41) == 40
    assert roles.learnt("generator", 441) == 300
    assert share_of_steps(roles.learnt("generator", 441), total=300) == pytest.approx(1e-3)
    # of the step alone: whoever resumes at 200 is in the same phase
    assert [roles.learning(step) for step in range(200, 441)] == played[199:]
    own = replace(roles, own="generator")
    assert own.plays(1) == {"generator": "policy", "verifier": "verifier"}
    assert [own.learns(step) for step in (40, 41, 44)] == [
        ("verifier",),
        ("policy",),
        ("verifier",),
    ]
    with pytest.raises(ValueError, match="counted from 1"):
        roles.learning(0)
    with pytest.raises(ValueError, match="1 step or more"):
        replace(roles, turns=(("generator", 0),))
