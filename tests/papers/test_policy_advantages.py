"""Pinned numbers of the advantage estimators, in float64. Two prompts p and q, four answers each (batch B0)."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages import credit, relative
from ludus.advantages.gae import gae, gae_agentgym
from ludus.advantages.place import place_terminal, place_turns
from ludus.advantages.returns import remax, reward_to_go
from ludus.advantages.steps import grpo_steps
from ludus.advantages.whiten import whiten
from ludus.types import Batch

REWARD = torch.tensor([1, 0, 0, 0, 1, 1, 0, 1], dtype=torch.float64)
GROUP = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
LENGTHS = torch.tensor([2, 4, 3, 1, 3, 3, 2, 4])
THIRD = 1 / 3


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def b0() -> Batch:
    mask = torch.arange(4) < LENGTHS[:, None]
    zeros = torch.zeros(8, 4, dtype=torch.float64)
    return Batch(
        tokens=mask.long() - 1,
        mask=mask,
        logp=zeros,
        turn=mask.long() - 1,
        rollout=torch.arange(8),
        group=GROUP,
        reward=REWARD,
        scored=torch.ones(8, dtype=torch.bool),
        turn_reward=REWARD[:, None],
        baseline=f(0, 0, 0, 0, 1, 1, 1, 1),
        value=zeros,
    )


# name, credit, first token of each answer to p, then to q
B0 = [
    ("REINFORCE", credit.Reinforce(), [1, 0, 0, 0], [1, 1, 0, 1]),
    ("RLOO", credit.RLOO(), [1, -THIRD, -THIRD, -THIRD], [THIRD, THIRD, -1, THIRD]),
    ("ReMax", credit.ReMax(), [1, 0, 0, 0], [0, 0, -1, 0]),
    ("GRPO", credit.GRPO(), [1.5, -0.5, -0.5, -0.5], [0.5, 0.5, -1.5, 0.5]),
    (
        "GRPO, ddof 0",
        credit.GRPO(ddof=0),
        [1.73205, -0.57735, -0.57735, -0.57735],
        [0.57735, 0.57735, -1.73205, 0.57735],
    ),
    ("Dr. GRPO", credit.DrGRPO(), [0.75, -0.25, -0.25, -0.25], [0.25, 0.25, -0.75, 0.25]),
    (
        "REINFORCE++",
        credit.ReinforcePlusPlus(),
        [0.89188, -1.07026, -1.07026, -1.07026],
        [0.89188, 0.89188, -1.07026, 0.89188],
    ),
    (
        "REINFORCE++ as in OpenRLHF",
        credit.ReinforcePlusPlus(ddof=0, eps=0.0, floor=1e-8),
        [0.91287, -1.09545, -1.09545, -1.09545],
        [0.91287, 0.91287, -1.09545, 0.91287],
    ),
    (
        "REINFORCE++-baseline",
        credit.ReinforcePlusPlus(baseline="group"),
        [1.81720, -0.68145, -0.68145, -0.68145],
        [0.56787, 0.56787, -1.93077, 0.56787],
    ),
    (
        "GPG in verl",
        credit.per_rollout(relative.gpg_released),
        [1.5, -0.5, -0.5, -0.5],
        [0.5, 0.5, -1.5, 0.5],
    ),
    (
        "Lite PPO",
        credit.per_rollout(relative.lite_ppo),
        [1.40312, -0.46771, -0.46771, -0.46771],
        [0.46771, 0.46771, -1.40312, 0.46771],
    ),
]


@pytest.mark.parametrize(("member", "p", "q"), [row[1:] for row in B0], ids=[row[0] for row in B0])
def test_first_token_on_b0(member: credit.Stateless, p: list[float], q: list[float]) -> None:
    batch = b0()
    _, credited = member.assign(member.init(), batch)
    close(credited.advantage[:, 0], p + q)
    # one reward at the end and no discount: every token of an answer gets the same
    close(credited.advantage, credited.advantage[:, :1] * batch.mask)


def test_grpo_as_in_trl() -> None:
    want = [1.4997, -0.4999, -0.4999, -0.4999, 0.4999, 0.4999, -1.4997, 0.4999]  # four decimals
    close(relative.grpo(REWARD, GROUP, eps=1e-4), want, atol=5.1e-5)


def test_whitening_is_over_tokens_and_not_over_answers() -> None:
    batch = b0()
    value = batch.spread(REWARD)
    assert batch.mask.sum() == 22
    close(value[batch.mask].mean(), 0.545455)
    close(value[batch.mask].var(), 0.259740)
    centred = batch.spread(relative.dr_grpo(REWARD, GROUP))[batch.mask]
    close(centred.mean(), 0.022727)
    close(centred.var(), 0.160173)
    # over the eight answers it would be +-0.93541
    over_answers = (REWARD - REWARD.mean()) / REWARD.std()
    close(over_answers.abs(), [0.93541] * 8)
    got = credit.ReinforcePlusPlus()(batch).advantage[:, 0]
    assert (got - over_answers).abs().min() > 0.04


def test_rewards_of_plus_and_minus_one() -> None:
    signs = 2 * REWARD - 1
    close(relative.dr_grpo(signs, GROUP)[:4], [1.5, -0.5, -0.5, -0.5])
    close(relative.lite_ppo(signs, GROUP), relative.lite_ppo(REWARD, GROUP))


def test_bound_of_grpo() -> None:
    # one of G = 8 right: (G-1)/sqrt(G) = 2.4749 is reached, up to eps
    close(relative.grpo(f(1, 0, 0, 0, 0, 0, 0, 0), torch.zeros(8).long()).max(), 2.4749, atol=5e-5)


def test_rloo_is_dr_grpo_times_g_over_g_minus_1() -> None:
    close(relative.rloo(REWARD, GROUP), 4 / 3 * relative.dr_grpo(REWARD, GROUP), atol=1e-12)


def test_gpg_counts_dead_groups_and_verl_counts_rewards() -> None:
    # eight answers, the second group all right: alpha = 8 / (8 - 4) = 2, and 8 / 5 rewards that are not 0
    reward = f(1, 0, 0, 0, 1, 1, 1, 1)
    close(relative.gpg(reward, GROUP), [1.5, -0.5, -0.5, -0.5, 0, 0, 0, 0])
    close(relative.gpg_released(reward, GROUP), [1.2, -0.4, -0.4, -0.4, 0, 0, 0, 0])
    close(relative.gpg(REWARD, GROUP), relative.dr_grpo(REWARD, GROUP), atol=1e-12)
    # F = std: alpha 2 times GRPO's 1.5
    close(relative.gpg(reward, GROUP, scale="group")[:4], [3.0, -1.0, -1.0, -1.0])
    assert not relative.gpg(torch.ones_like(REWARD), GROUP).any()


def test_agentgym_scores() -> None:
    score, group = f(1, 0, 0, 1, 1, 1), torch.tensor([7, 7, 7, 7, 3, 3])
    close(relative.grpo(score, group), [0.866024, -0.866024, -0.866024, 0.866024, 0, 0], atol=1e-6)
    close(relative.rloo(score, group), [0.666667, -0.666667, -0.666667, 0.666667, 0, 0], atol=1e-6)


def test_a_group_of_one() -> None:
    reward, group = f(0.7, 1, 0), torch.tensor([5, 6, 6])
    for estimator in (relative.grpo, relative.rloo, relative.dr_grpo):
        assert estimator(reward, group)[0] == 0
        # mean 0 and standard deviation 1, as the common trainers have it: A = r, to eps
        close(estimator(reward, group, alone="reward")[0], 0.7)
        close(estimator(reward, group, alone="reward")[1:], estimator(reward, group)[1:])
        with pytest.raises(ValueError, match="group 5 has one rollout"):
            estimator(reward, group, alone="refuse")
    # a group that a fault has thinned to one is nobody's mistake
    scored = torch.tensor([False, True, True, False])
    got = relative.grpo(f(9, 0.7, 1, 0), torch.tensor([5, 5, 6, 6]), scored=scored, alone="refuse")
    assert not got.any()


def test_equal_rewards_give_exactly_zero() -> None:
    # the mean of three times 0.1 is not 0.1 in floating point
    reward = torch.full((3,), 0.1)
    for estimator in (relative.grpo, relative.rloo, relative.dr_grpo, relative.lite_ppo):
        assert (estimator(reward, torch.zeros(3).long()) == 0).all()
    # also where only the scale is the group's: 1 - 1.75 over a deviation of 0 would be a million
    got = relative.relative(f(1, 1, 0, 5), GROUP[2:6], centre="batch", scale="group")
    assert (got[:2] == 0).all() and (got[2:] != 0).all()


def test_lost_rollouts_are_left_out() -> None:
    # without the lost one p has rewards [1, 0, 0]: mean 1/3, unbiased std sqrt(1/3)
    scored = torch.tensor([True, True, True, False, True, True, True, True])
    reward = REWARD.masked_fill(~scored, torch.nan)
    got = relative.grpo(reward, GROUP, scored=scored)
    close(got[:4], [2 / 3 * 3**0.5, -1 / 3 * 3**0.5, -1 / 3 * 3**0.5, 0])
    close(got[4:], relative.grpo(REWARD, GROUP)[4:])


def test_grpo_with_process_supervision() -> None:
    # answer 0 has steps [1, 0], answer 1 has step [1]: mean 2/3, unbiased std sqrt(1/3) = 0.57735
    # z = [[0.57735, -1.15470], [0.57735]], summed from each step on
    written = torch.tensor([[True, True], [True, False]])
    got = grpo_steps(torch.stack([f(1, 0), f(1, 99)]), written, torch.tensor([0, 0]))
    close(got, [[-0.57735, -1.15470], [0.57735, 0.0]])


# ---------------------------------------------------------------- recursions over tokens


def test_reinforce_plus_plus_with_kl_in_the_reward() -> None:
    old, ref = f(-1, -1, -1)[None], f(-1.1, -0.95, -1.2)[None]  # k1 = [0.1, -0.05, 0.2]
    batch = Batch(
        tokens=torch.zeros(1, 3).long(),
        mask=torch.ones(1, 3, dtype=torch.bool),
        logp=old,
        turn=torch.zeros(1, 3).long(),
        rollout=torch.tensor([0]),
        group=torch.tensor([0]),
        reward=f(1),
        scored=torch.tensor([True]),
        turn_reward=f(1)[None],
        ref_logp=ref,
    )
    reward = credit.token_reward(batch, batch.reward, batch.mask, kl=0.1)
    close(reward, [[-0.01, 0.005, 0.98]])
    close(reward_to_go(reward, batch.mask), [[0.975, 0.985, 0.98]])
    close(credit.Returns(kl=0.1)(batch).advantage, [[0.975, 0.985, 0.98]])
    assert credit.ReinforcePlusPlus(kl=0.1).needs == ("ref_logp",)


MASK = torch.tensor([[True, True, False, False, True, True, False]])


def test_returns_cross_observations_without_discount() -> None:
    reward = place_terminal(f(1), MASK)
    close(reward, [[0, 0, 0, 0, 0, 1, 0]])
    close(reward_to_go(reward, MASK, gamma=0.9), [[0.729, 0.81, 0, 0, 0.9, 1, 0]])
    turn = torch.tensor([[0, 0, -1, -1, 1, 1, -1]])
    reward = place_turns(f(0.5, 1)[None], turn, MASK)
    close(reward, [[0, 0.5, 0, 0, 0, 1, 0]])
    close(reward_to_go(reward, MASK, gamma=0.9), [[1.179, 1.31, 0, 0, 0.9, 1, 0]])
    three = torch.tensor([[True, False, True]])
    close(reward_to_go(f(0, 0, 1)[None], three, gamma=0.5), [[0.5, 0, 1]])


def test_a_reward_that_nobody_would_see_is_refused() -> None:
    trailing = f(0, 0, 0, 0, 0, 0, 1)[None]  # on the observation that ends the episode
    for estimate in (
        lambda: reward_to_go(trailing, MASK),
        lambda: remax(trailing, MASK, f(0)),
        lambda: gae(trailing, torch.zeros_like(trailing), MASK),
        lambda: gae_agentgym(trailing, torch.zeros_like(trailing), MASK),
    ):
        with pytest.raises(ValueError, match="token 6 of row 0, which the policy did not write"):
            estimate()
    silent = torch.zeros_like(MASK)
    with pytest.raises(ValueError, match="rollout 0 has reward 1 and no token"):
        place_terminal(f(1), silent)
    assert not place_terminal(f(0), silent).any()
    with pytest.raises(ValueError, match="turn 1 of rollout 0 has reward 3"):
        place_turns(f(0, 3)[None], torch.zeros(1, 7).long(), MASK)
    with pytest.raises(ValueError, match="turns 0 to 1, turn_reward has 1 columns"):
        place_turns(f(3)[None], torch.tensor([[0, 0, -1, -1, 1, 1, -1]]), MASK)


def test_several_contexts_are_one_sequence() -> None:
    # rollout 1 wrote rows 0 and 2: the reward is on the last token of row 2, and flows back into row 0
    mask = torch.tensor([[True, True], [True, False], [True, False]])
    rollout = torch.tensor([1, 0, 1])
    reward = place_terminal(f(5, 1), mask, rollout)
    close(reward, [[0, 0], [5, 0], [1, 0]])
    close(reward_to_go(reward, mask, gamma=0.5, rollout=rollout), [[0.25, 0.5], [5, 0], [1, 0]])
    # V = 0.5 everywhere, gamma = 1, lambda = 0.5: deltas 0, 0, 0.5 over rows 0, 0, 2; and 4.5 in row 1
    advantage, returns = gae(
        reward, torch.full((3, 2), 0.5).double(), mask, lam=0.5, rollout=rollout
    )
    close(advantage, [[0.125, 0.25], [4.5, 0], [0.5, 0]])
    close(returns, [[0.625, 0.75], [5, 0], [1, 0]])


@pytest.mark.parametrize(
    ("lam", "advantage", "returns"),
    [
        (1.0, [0.8, 0.5, 0.2], [1, 1, 1]),
        (0.95, [0.7655, 0.49, 0.2], [0.9655, 0.99, 1]),
        (0.0, [0.3, 0.3, 0.2], [0.5, 0.8, 1.0]),  # targets: V_{t+1}, and the reward at the end
    ],
)
def test_gae(lam: float, advantage: list[float], returns: list[float]) -> None:
    reward, value = f(0, 0, 1)[None], f(0.2, 0.5, 0.8)[None]
    mask = torch.ones(1, 3, dtype=torch.bool)
    got = gae(reward, value, mask, lam=lam)
    close(got[0], [advantage])
    close(got[1], [returns])
    if lam == 0.95:
        close(whiten(got[0], mask), [[0.99134, 0.01709, -1.00844]])
    # a masked token with V = 9 as third of four changes nothing
    gap = torch.tensor([[True, True, False, True]])
    with_gap = gae(f(0, 0, 0, 1)[None], f(0.2, 0.5, 9, 0.8)[None], gap, lam=lam)
    close(with_gap[0][gap], advantage)


def test_gae_over_turns() -> None:
    mask = MASK
    reward = place_terminal(f(1), mask)
    for elsewhere in (9.0, -3.0, torch.nan):
        value = torch.full((1, 7), elsewhere).double()
        value[mask] = f(0.5, 0.6, 0.7, 0.8)
        advantage, returns = gae(reward, value, mask, gamma=0.9, lam=0.8)
        close(advantage[mask], [0.146618, 0.148080, 0.164, 0.2], atol=1e-6)
        close(returns[mask], [0.646618, 0.748080, 0.864, 1.0], atol=1e-6)
        close(whiten(advantage, mask)[mask], [-0.72717, -0.66828, -0.02716, 1.42261])
        assert not advantage[~mask].any() and not returns[~mask].any()


def test_gae_in_the_agentgym_release() -> None:
    value = f(0.5, 0.6, 9, 9, 0.7, 0.8, 9)[None]
    advantage, _ = gae_agentgym(place_terminal(f(1), MASK), value, MASK, gamma=0.9, lam=0.8)
    # delta at the last token of the second turn: 1 + 0.9 * 9 - 0.8 = 8.3, the 9 being an observation's value
    close(advantage[MASK], [8.548, 11.817, 5.996, 8.3], atol=5e-4)
    # where no observation lies between, and none behind, both agree
    dense = torch.ones(1, 4, dtype=torch.bool)
    reward, value = f(0, 0, 0, 1)[None], f(0.5, 0.6, 0.7, 0.8)[None]
    for ours, theirs in zip(
        gae(reward, value, dense, gamma=0.9, lam=0.8),
        gae_agentgym(reward, value, dense, gamma=0.9, lam=0.8),
        strict=True,
    ):
        close(ours, theirs, atol=1e-12)


def test_gae_across_a_gap() -> None:
    mask = torch.tensor([[True, False, True]])
    advantage, _ = gae(f(0, 0, 1)[None], f(0.2, 9, 0.5)[None], mask, gamma=0.5, lam=0.95)
    # delta_0 = 0.5 * 0.5 - 0.2 = 0.05; A_0 = 0.05 + 0.5 * 0.95 * 0.5 = 0.2875
    close(advantage, [[0.2875, 0, 0.5]])
    # the packing card prints 0.775 for the first token: that is gamma = 1
    advantage, _ = gae(f(0, 0, 1)[None], f(0.2, 9, 0.5)[None], mask, lam=0.95)
    close(advantage, [[0.775, 0, 0.5]])


def test_lambda_of_each_rollout() -> None:
    # VAPO: lambda = 1 - 1/(alpha l); 0.5 for the first, and 1 for the second, whose targets are the return
    reward, value = f(0, 0, 0, 1).repeat(2, 1), f(0.2, 0.4, 0.6, 0.7).repeat(2, 1)
    mask = torch.ones(2, 4, dtype=torch.bool)
    advantage, returns = gae(reward, value, mask, lam=f(0.5, 1.0))
    close(advantage[0], [0.3625, 0.325, 0.25, 0.3])
    close(returns[1], [1, 1, 1, 1])


def test_gae_without_a_critic_is_reinforce() -> None:
    batch = b0()
    got = credit.GAE()(batch)
    close(got.advantage, credit.Reinforce(whitened=True)(batch).advantage, atol=1e-12)
    # the targets are made before whitening: the reward itself on every token
    assert got.returns is not None
    close(got.returns, batch.spread(REWARD), atol=1e-12)


def test_a_credit_says_what_is_missing() -> None:
    with pytest.raises(ValueError, match=r"batch\.value, which is empty"):
        credit.GAE()(replace(b0(), value=None))
    with pytest.raises(ValueError, match=r"batch\.baseline, which is empty"):
        credit.ReMax()(replace(b0(), baseline=None))
    assert credit.GAE().needs == ("value",)
    assert credit.ReMax().needs == ("baseline",)
    assert credit.GRPO().needs == ("group",) and credit.RLOO().needs == ("group",)


def test_whiten_with_nothing_to_compare() -> None:
    value = f(3, 4, 5)[None]
    for keep in ([False] * 3, [True, False, False]):
        assert not whiten(value, torch.tensor([keep])).any()
    # two tokens, ddof 1: +-1/sqrt(2)
    close(whiten(value, torch.tensor([[True, True, False]])), [[-(0.5**0.5), 0.5**0.5, 0]])
