"""Every estimator of advantages, through one suite. A new member adds a row to its table and nothing else."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import pytest
import torch
from policy_cases import CASES, CHANGES, attempts, build, by_attempt, named, same
from torch import Tensor

from ludus.advantages import relative
from ludus.advantages.adaptive_kl import AdaptiveKL
from ludus.advantages.anchor import GiGPO, gigpo
from ludus.advantages.balanced import Balanced
from ludus.advantages.credit import (
    GAE,
    GRPO,
    RLOO,
    DrGRPO,
    GRPOSteps,
    Reinforce,
    ReinforcePlusPlus,
    ReMax,
    Returns,
    per_rollout,
)
from ludus.advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from ludus.advantages.pool import PoolBaseline
from ludus.advantages.pooled import IGPO, pooled_turns
from ludus.advantages.prefix_tree import Tempo
from ludus.advantages.rloo_kl import RLOOThenKL
from ludus.advantages.scaled import Scaled
from ludus.types import Batch, Credit

# ------------------------------------------------------------------ one number per rollout


def _gigpo(reward: Tensor, group: Tensor, scored: Tensor | None = None, **settings) -> Tensor:
    """Of rollouts of one turn, all in one state."""
    one = torch.ones(len(reward), 1, dtype=torch.bool)
    return gigpo(reward[:, None], one, one.long(), group, scored=scored, **settings)[:, 0]


def _pooled(reward: Tensor, group: Tensor, scored: Tensor | None = None) -> Tensor:
    one = torch.ones(len(reward), 1, dtype=torch.bool)
    return pooled_turns(reward[:, None], one, group, scored=scored)[:, 0]


# name, estimator(reward [R], group [R], scored=[R]) -> [R], whether equal rewards in a group must give 0
ESTIMATORS: list[tuple[str, Callable[..., Tensor], bool]] = [
    ("reinforce", relative.reinforce, False),
    ("grpo", relative.grpo, True),
    ("grpo, ddof 0", partial(relative.grpo, ddof=0), True),
    ("grpo, eps 0", partial(relative.grpo, eps=0.0), True),
    ("dr_grpo", relative.dr_grpo, True),
    ("rloo", relative.rloo, True),
    ("lite_ppo", relative.lite_ppo, True),
    ("gpg", relative.gpg, True),
    ("gpg, scaled", partial(relative.gpg, scale="group"), True),
    ("gpg_released", relative.gpg_released, True),
    ("batch, none", partial(relative.relative, centre="batch", scale="none"), False),
    ("batch, batch", partial(relative.relative, centre="batch", scale="batch"), False),
    ("batch, group", partial(relative.relative, centre="batch", scale="group"), True),
    ("alone keeps its reward", partial(relative.grpo, alone="reward"), False),
    ("gigpo", _gigpo, True),
    ("gigpo, scaled, over rollouts", partial(_gigpo, scale="group", over="rollouts"), True),
    ("pooled_turns", _pooled, True),
]
estimators = pytest.mark.parametrize(
    ("estimate", "grouped"), [row[1:] for row in ESTIMATORS], ids=[row[0] for row in ESTIMATORS]
)
cases = pytest.mark.parametrize("case", CASES)


@estimators
@cases
def test_estimator(estimate: Callable[..., Tensor], grouped: bool, case: str) -> None:
    batch = build(CASES[case])
    reward, group, scored = batch.reward, batch.group, batch.scored
    got = estimate(reward, group, scored=scored)
    assert got.shape == reward.shape and got.dtype == reward.dtype
    assert got.isfinite().all()
    assert (got[~scored] == 0).all()
    # the lost might as well not be there, whatever stands in their place
    torch.testing.assert_close(estimate(reward[scored], group[scored]), got[scored])
    other = reward.masked_fill(~scored, 1e9)
    torch.testing.assert_close(estimate(other, group, scored=scored), got)
    # order and names of the groups mean nothing
    order = torch.randperm(len(reward), generator=torch.Generator().manual_seed(1))
    torch.testing.assert_close(
        estimate(reward[order], group[order], scored=scored[order]), got[order]
    )
    torch.testing.assert_close(estimate(reward, -3 * group, scored=scored), got)
    if grouped:
        for name in group.unique():
            mine = scored & (group == name)
            if len(reward[mine].unique()) == 1:
                assert (got[mine] == 0).all()


@estimators
def test_estimator_tells_success_from_failure(
    estimate: Callable[..., Tensor], grouped: bool
) -> None:
    got = estimate(torch.tensor([1.0, 0.0, 0.0, 1.0, 1.0, 0.0]), torch.tensor([0, 0, 0, 1, 1, 1]))
    assert (got[[0, 3, 4]] > got[[1, 2, 5]].max()).all()


def test_estimator_refuses_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match=r"group has shape \[2\], reward has shape \[3\]"):
        relative.grpo(torch.zeros(3), torch.tensor([0, 0]))
    with pytest.raises(TypeError, match=r"reward\.float"):
        relative.grpo(torch.tensor([1, 0]), torch.tensor([0, 0]))


# ------------------------------------------------------------------ one number per token

# name, credit, whether equal rewards in every group must give 0 on every token
CREDITS: list[tuple[str, Credit, bool]] = [
    ("GRPO", GRPO(), True),
    ("DrGRPO", DrGRPO(), True),
    ("RLOO", RLOO(), True),
    ("Lite PPO", per_rollout(relative.lite_ppo), True),
    ("GPG", per_rollout(relative.gpg), True),
    ("GRPOSteps", GRPOSteps(), True),
    ("Reinforce", Reinforce(gamma=0.9), False),
    ("Reinforce, whitened", Reinforce(whitened=True), False),
    ("Reinforce, per turn", Reinforce(gamma=0.9, per_turn=True), False),
    ("ReinforcePlusPlus", ReinforcePlusPlus(), False),
    ("ReinforcePlusPlus, KL", ReinforcePlusPlus(kl=0.1), False),
    ("ReinforcePlusPlus, OpenRLHF", ReinforcePlusPlus(ddof=0, eps=0.0, floor=1e-8), False),
    ("ReinforcePlusPlus-baseline", ReinforcePlusPlus(baseline="group"), True),
    ("Returns, group", Returns(baseline="group", gamma=0.9), True),
    ("ReMax", ReMax(), False),
    ("GAE", GAE(), False),
    ("GAE, discounted", GAE(gamma=0.9, lam=0.8), False),
    ("GAE, raw", GAE(gamma=0.9, lam=0.8, whitened=False), False),
    ("GAE, KL, per turn", GAE(lam=0.9, kl=0.1, per_turn=True), False),
    ("DecoupledGAE", DecoupledGAE(0.9, 0.95, gamma=0.9, whitened=False, per_turn=True), False),
    ("LengthAdaptiveGAE", LengthAdaptiveGAE(alpha=0.8), False),
    ("Tempo", Tempo(), True),
    ("GiGPO", GiGPO(), False),
    ("GiGPO, scaled, over rollouts", GiGPO(gamma=1.0, scale="group", over="rollouts"), False),
    ("IGPO", IGPO(), True),
    ("IGPO, discounted", IGPO(gamma=0.9, ddof=0), True),
    ("PoolBaseline", PoolBaseline(), False),
    ("PoolBaseline, raw", PoolBaseline(threshold=None), False),
    ("RLOOThenKL", RLOOThenKL(alone="zero"), False),
    ("Scaled", Scaled(GRPO(), "measure"), True),
    ("AdaptiveKL", AdaptiveKL(probe="measure"), False),
    ("Balanced", Balanced(GRPO(), "odd"), True),
]
credits = pytest.mark.parametrize(
    "credit", [row[1] for row in CREDITS], ids=[r[0] for r in CREDITS]
)


def assigned(credit: Credit, batch: Batch) -> list[Tensor]:
    """The advantage, and the returns where there are some."""
    _, credited = credit.assign(credit.init(), batch)
    return [tensor for tensor in credited[:2] if tensor is not None]


@credits
@cases
def test_credit_of_a_batch(credit: Credit, case: str) -> None:
    batch = build(CASES[case])
    outputs = assigned(credit, batch)
    lost = ~batch.scored[batch.rollout][:, None].expand_as(batch.mask)
    for got in outputs:
        assert got.shape == batch.mask.shape and got.dtype == torch.float32
        assert got.isfinite().all() and not got.requires_grad
        assert (got[~batch.mask | lost] == 0).all()
    # what stands where the policy wrote nothing, and more padding, change nothing
    for other in (build(CASES[case], garbage=123.0), build(CASES[case], columns=3)):
        for got, want in zip(assigned(credit, other), outputs, strict=True):
            torch.testing.assert_close(got[:, : want.shape[1]], want)
            assert (got[:, want.shape[1] :] == 0).all()


# to a credit that compares what was seen, another observation or context is another episode
SEEN = {"observations left out", "one context a turn"}
CHANGED = [
    pytest.param(credit, change, id=f"{change}-{name}")
    for name, credit, _ in CREDITS
    for change in CHANGES
    if not (isinstance(credit, Tempo) and change in SEEN)
]


@pytest.mark.parametrize(("credit", "change"), CHANGED)
def test_credit_of_a_changed_batch(credit: Credit, change: str) -> None:
    for case, members in CASES.items():
        changed = CHANGES[change](members)
        if not changed:
            continue  # of a batch that was lost whole nothing is left
        batch, other = build(members), build(changed)
        with named(case):
            for want, got in zip(assigned(credit, batch), assigned(credit, other), strict=True):
                same(by_attempt(changed, other, got), by_attempt(members, batch, want))


@pytest.mark.parametrize("credit", [row[1] for row in CREDITS if row[2]])
def test_credit_of_equal_rewards_is_exactly_zero(credit: Credit) -> None:
    (got,) = assigned(credit, build(CASES["all equal"]))
    assert (got == 0).all()


@credits
def test_credit_tells_success_from_failure(credit: Credit) -> None:
    """Also where the episode ends in an observation: a reward left there would be seen by nobody."""
    members = attempts((0, 1, "..00..11.."), (0, 0, "..00..11.."))
    same_twice = tuple(replace(member, seed=0) for member in members)  # but for the reward
    batch = build(same_twice)
    advantage = assigned(credit, batch)[0]
    # with gamma or lambda below 1, and with critics or KL, tokens differ; the last of a success is above a failure's
    assert (advantage[0, 6:8] > advantage[1, 6:8]).all()
