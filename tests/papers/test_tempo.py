"""TEMPO, arXiv:2509.18314: credit of a token from the prefix tree of its group."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages.prefix_tree import Tempo, prefix_td, tempo
from ludus.advantages.relative import dr_grpo, grpo
from ludus.types import Batch


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def spelt(*words: str) -> Tensor:
    """[R,N]: a letter is a token, -1 behind the end."""
    width = max(len(word) for word in words)
    return torch.tensor(
        [[ord(c) - 97 for c in word] + [-1] * (width - len(word)) for word in words]
    )


def literal(tokens: Tensor, reward: Tensor, group: Tensor, scored: Tensor | None = None) -> Tensor:
    """The definition: for every prefix of every answer, the mean reward of those that begin with it."""
    answers = [tuple(t for t in row if t >= 0) for row in tokens.tolist()]
    counted = [True] * len(reward) if scored is None else scored.tolist()
    td = torch.zeros(tokens.shape, dtype=torch.float64)

    def value(of: int, prefix: tuple[int, ...]) -> float:
        below = [
            float(reward[k])
            for k, answer in enumerate(answers)
            if counted[k] and group[k] == group[of] and answer[: len(prefix)] == prefix
        ]
        return sum(below) / len(below)

    for i, answer in enumerate(answers):
        for t in range(len(answer) if counted[i] else 0):
            td[i, t] = value(i, answer[: t + 1]) - value(i, answer[:t])
    return td


def random_groups(seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """Four groups of six over three letters and an end token 3, with long common beginnings."""
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randint(0, 3, (24, 7), generator=generator)
    tokens[:, :2] = 1
    length = torch.randint(1, 7, (24, 1), generator=generator)
    place = torch.arange(7)
    tokens = tokens.masked_fill(place == length, 3).masked_fill(place > length, -1)
    reward = torch.randint(0, 4, (24,), generator=generator).double() / 3
    return tokens, reward, torch.arange(24) % 4


# ---------------------------------------------------------------- the worked cases

FOUR, ONE = spelt("abc", "abd", "aef", "ghi"), torch.zeros(4, dtype=torch.int64)


def test_four_answers() -> None:
    reward = f(1, 0, 1, 0)
    sixth = 1 / 6
    td = [[sixth, -sixth, 0.5], [sixth, -sixth, -0.5], [sixth, 1 / 3, 0], [-0.5, 0, 0]]
    close(prefix_td(FOUR, reward, ONE), td)
    want = [
        [1.154699, 0.577349, 1.732048],
        [-0.577349, -1.154699, -1.732048],
        [1.154699, 1.443373, 0.866024],
        [-1.732048, -0.866024, -0.866024],
    ]
    close(tempo(FOUR, reward, ONE), want)
    close(tempo(FOUR, reward, ONE, scale="none")[0], [0.666667, 0.333333, 1])


def test_identical_answers_share_a_leaf() -> None:
    td = prefix_td(spelt("ab", "ab", "ac"), f(1, 1, 0), ONE[:3])
    close(td, [[0, 1 / 3], [0, 1 / 3], [0, -2 / 3]])
    # a judge that is not sure of itself: the leaf is worth its mean, and the terms end there
    td = prefix_td(spelt("ab", "ab", "ac"), f(1, 0, 0), ONE[:3])
    close(td, [[0, 1 / 6], [0, 1 / 6], [0, -1 / 3]])


# ---------------------------------------------------------------- invariants


@pytest.mark.parametrize("seed", range(5))
def test_it_is_the_literal_loop(seed: int) -> None:
    tokens, reward, group = random_groups(seed)
    td = prefix_td(tokens, reward, group)
    close(td, literal(tokens, reward, group), atol=1e-12)
    assert (td != 0).any(1).sum() > 12  # the groups do branch
    scored = torch.arange(24) % 5 != 0
    td = prefix_td(tokens, reward.masked_fill(~scored, torch.nan), group, scored=scored)
    close(td, literal(tokens, reward, group, scored), atol=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_terms_telescope(seed: int) -> None:
    """To the reward less the mean where no answer occurs twice, and level by level to 0."""
    tokens, reward, group = random_groups(seed)
    names = [(int(g), *row) for g, row in zip(group, tokens.tolist(), strict=True)]
    reward = torch.tensor([float(hash(name) % 7) for name in names], dtype=torch.float64)
    td = prefix_td(tokens, reward, group)
    close(td.sum(1), dr_grpo(reward, group), atol=1e-12)
    for g in range(4):
        close(td[group == g].sum(0), [0.0] * 7, atol=1e-12)


@pytest.mark.parametrize("seed", range(3))
def test_names_of_tokens_and_order_of_answers_mean_nothing(seed: int) -> None:
    tokens, reward, group = random_groups(seed)
    want = tempo(tokens, reward, group)
    renamed = torch.tensor([7, 0, 150_000, 2])[tokens.clamp(min=0)].masked_fill(tokens < 0, -1)
    close(tempo(renamed, reward, group), want, atol=1e-12)
    order = torch.randperm(24, generator=torch.Generator().manual_seed(seed))
    close(tempo(tokens[order], reward[order], -3 * group[order]), want[order], atol=1e-9)


def test_all_different_at_the_first_token_is_twice_grpo_there() -> None:
    tokens, reward = spelt("axyz", "bxyz", "cxy", "dxyz"), f(1, 0, 0, 1)
    got, plain = tempo(tokens, reward, ONE), grpo(reward, ONE)
    close(got[:, 0], 2 * plain, atol=1e-12)
    assert torch.equal(got[:, 1:], (plain[:, None] * (tokens[:, 1:] >= 0)))
    # and with nothing in common but a beginning, tokens before the fork get GRPO's number, exactly
    got = tempo(spelt("xxa", "xxb", "xxc", "xxd"), reward, ONE)
    assert torch.equal(got[:, :2], plain[:, None].expand(4, 2))


# ---------------------------------------------------------------- edges


def test_equal_rewards_give_exactly_zero() -> None:
    reward = torch.full((4,), 0.1)  # the mean of three times 0.1 is not 0.1 in floating point
    assert (tempo(FOUR, reward, ONE) == 0).all()
    assert (tempo(FOUR, reward, ONE, eps=0.0) == 0).all()
    # also a subtree of equal rewards inside a group that differs: nothing happens below "a"
    td = prefix_td(FOUR, f(0.1, 0.1, 0.1, 1), ONE)
    assert (td[:, 1:] == 0).all() and (td[:3, 0] < 0).all() and td[3, 0] > 0


def test_stopping_is_a_choice_and_padding_is_none() -> None:
    # "ab" stops with the end token e, "abc" goes on: they part at the end token
    close(prefix_td(spelt("abe", "abce"), f(1, 0), ONE[:2]), [[0, 0, 0.5, 0], [0, 0, -0.5, 0]])
    # cut off without one, "ab" is a beginning of "abc": both are below it, and its value is their mean
    close(prefix_td(spelt("ab", "abc"), f(1, 0), ONE[:2]), [[0, 0, 0], [0, 0, -0.5]])
    # two columns of padding more are nothing
    wide = torch.nn.functional.pad(FOUR, (0, 2), value=-1)
    got = tempo(wide, f(1, 0, 1, 0), ONE)
    assert torch.equal(got[:, :3], tempo(FOUR, f(1, 0, 1, 0), ONE)) and not got[:, 3:].any()
    # an answer without tokens counts in the mean and has nothing to credit
    close(prefix_td(spelt("", "ab"), f(1, 0), ONE[:2]), [[0, 0], [-0.5, 0]])


def test_groups_of_one() -> None:
    tokens, reward, group = spelt("ab", "cd", "ce"), f(1, 1, 0), torch.tensor([7, 2, 2])
    assert not tempo(tokens, reward, group)[0].any()
    with pytest.raises(ValueError, match="group 7 has one rollout"):
        tempo(tokens, reward, group, alone="refuse")
    close(tempo(tokens, reward, group, alone="reward")[0], [1, 1], atol=1e-5)
    nobody = torch.zeros(3, dtype=torch.bool)
    assert not tempo(tokens, reward, group, scored=nobody).any()
    assert tempo(torch.zeros(0, 5).long(), f(), torch.zeros(0).long()).shape == (0, 5)


def test_what_cannot_be_compared() -> None:
    with pytest.raises(ValueError, match=r"answer 1 has padding before its token 2"):
        tempo(torch.tensor([[1, 2, 3], [1, -1, 3]]), f(1, 0), ONE[:2])
    with pytest.raises(ValueError, match=r"give integer ids \[R,N\]"):
        tempo(torch.zeros(3, 2).long(), f(1, 0), ONE[:2])


# ---------------------------------------------------------------- on a batch


def batch_of(
    rows: Sequence[tuple[int, str, str]], reward: Tensor, scored: Sequence[bool] | None = None
) -> Batch:
    """(rollout, tokens as letters, who wrote each: a digit is the turn, "." nobody in training)"""
    width = max(len(said) for _, said, _ in rows)
    turn = torch.tensor(
        [[int(c) if c != "." else -1 for c in by] + [-1] * (width - len(by)) for _, _, by in rows]
    )
    rollouts = len(reward)
    return Batch(
        tokens=spelt(*(said for _, said, _ in rows)),
        mask=turn >= 0,
        logp=torch.zeros(turn.shape),
        turn=turn,
        rollout=torch.tensor([r for r, _, _ in rows]),
        group=torch.zeros(rollouts, dtype=torch.int64),
        reward=reward,
        scored=torch.tensor([True] * rollouts if scored is None else scored),
        turn_reward=reward[:, None],
    )


def test_prompts_of_any_length_come_before_the_tree() -> None:
    rows = [(0, "ppabc", "..000"), (1, "pppabd", "...000"), (2, "paef", ".000"), (3, "ghi", "000")]
    batch = batch_of(rows, f(1, 0, 1, 0))
    got = Tempo()(batch).advantage
    assert Tempo().needs == ("group", "one prompt")
    close(got[batch.mask].view(4, 3), tempo(FOUR, batch.reward, ONE))
    assert not got[~batch.mask].any()


def test_observations_are_part_of_the_prefix_and_get_no_credit() -> None:
    # the same action "a", then the world says o or u; in u the second action decides
    rows = [(0, "paob", ".0.1"), (1, "paoc", ".0.1"), (2, "paub", ".0.1"), (3, "pauc", ".0.1")]
    batch = batch_of(rows, f(1, 1, 1, 0))
    got = Tempo(scale="none")(batch).advantage
    # V(a) = 3/4, V(ao) = 1, V(au) = 1/2: the observation moves the value, and nobody is credited
    close(got[:2], [[0, 0.25, 0, 0.25]] * 2)
    close(got[2], [0, 0.25, 0, 0.25 + 0.5])
    close(got[3], [0, -0.75, 0, -0.75 - 0.5])


def test_contexts_of_a_rollout_are_its_sequence() -> None:
    """A context that opens is not the same as going on with the same token."""
    rows = [(0, "pab", ".00"), (0, "qc", ".1"), (1, "pab", ".00"), (1, "qd", ".1")]
    got = Tempo(scale="none")(batch_of(rows, f(1, 0))).advantage
    close(got, [[0, 0.5, 0.5], [0, 1, 0], [0, -0.5, -0.5], [0, -1, 0]])
    rows = [(0, "pab", ".00"), (0, "qc", ".1"), (1, "pabqd", ".00.1")]
    batch = batch_of(rows, f(1, 0))
    td = Tempo(scale="none")(batch).advantage - batch.spread(dr_grpo(batch.reward, batch.group))
    assert not td[batch.mask].any()  # they part at the opening q, which nobody in training wrote


def test_a_shared_token_of_a_tree_is_walked_in_every_row() -> None:
    """Row 1 does not train "a" again (mask False), but it is where its answer begins."""
    batch = batch_of([(0, "pab", ".00"), (1, "pac", ".00")], f(1, 0))
    mask = batch.mask.clone()
    mask[1, 1] = False
    got = Tempo(scale="none")(replace(batch, mask=mask)).advantage
    close(got, [[0, 0.5, 1.0], [0, 0, -1.0]])


def test_the_lost_are_in_no_tree() -> None:
    rows = [(0, "pab", ".00"), (1, "pac", ".00"), (2, "pab", ".00")]
    batch = batch_of(rows, f(1, 0, 99), [True, True, False])
    got = Tempo(scale="none")(batch).advantage
    close(got, [[0, 0.5, 1.0], [0, -0.5, -1.0], [0, 0, 0]])
    # lost before its first token: a rollout that no row belongs to
    batch = batch_of(rows[:2], f(1, 0, 99), [True, True, False])
    close(Tempo(scale="none")(batch).advantage, got[:2])
