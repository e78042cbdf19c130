"""Pinned numbers of averaging: the level of a mean is part of the algorithm."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ludus.weights.average import Over, average, token_weights

# PPO on T0 (two responses of 2 and 4 tokens), without and with the dual clip
MASK = torch.tensor([[True, True, False, False], [True, True, True, True]])
PPO = torch.tensor([[-1.8, -1.35, 99, 99], [0.5, 0.4, 0.65, 2.5]], dtype=torch.float64)
DUAL = torch.tensor([[-1.8, -1.35, 99, 99], [0.5, 0.4, 0.65, 1.5]], dtype=torch.float64)


@pytest.mark.parametrize(
    ("over", "ppo", "dual"),
    [
        ("tokens", 0.15, -0.016667),
        ("answer sums", 0.45, -0.05),
        ("answers", -0.28125, -0.40625),
        (8, 0.05625, -0.00625),
    ],
)
def test_t0(over: Over, ppo: float, dual: float) -> None:
    assert average(PPO, MASK, over=over).item() == pytest.approx(ppo, abs=1e-6)
    assert average(DUAL, MASK, over=over).item() == pytest.approx(dual, abs=1e-6)


def test_dividing_inside_micro_batches_is_another_algorithm() -> None:
    """One response a micro-batch and the mean of their token means: -0.28125, the mean over answers."""
    rows = [average(PPO[b : b + 1], MASK[b : b + 1], over="tokens") for b in (0, 1)]
    assert torch.stack(rows).mean().item() == pytest.approx(-0.28125)
    # shares counted over the whole batch and cut with it: 0.15, however it is cut
    weight = token_weights(MASK, torch.arange(2), over="tokens")
    cut = sum((PPO[b].masked_fill(~MASK[b], 0) * weight[b]).sum() for b in (0, 1))
    assert float(cut) == pytest.approx(0.15)


def flat(counts: list[int], means: list[float]) -> tuple[Tensor, Tensor]:
    """Rows of so many tokens, each with the row's mean as its loss."""
    mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
    return torch.tensor(means, dtype=torch.float64)[:, None].expand(mask.shape), mask


def test_ranks_and_micro_batches() -> None:
    # 2 ranks x 2 micro-batches; trainable tokens [[300, 100], [50, 50]], mean losses [[1, 2], [3, 4]]
    value, mask = flat([300, 100, 50, 50], [1, 2, 3, 4])
    weight = token_weights(mask, torch.arange(4), over="tokens").double()
    parts = (value * weight).sum(1)
    assert parts.sum().item() == pytest.approx(1.7, abs=1e-6)
    # with data-parallel averaging each rank's term is multiplied by the number of ranks: 2.0 and 1.4
    assert (2 * parts[:2].sum()).item() == pytest.approx(2.0, abs=1e-6)
    assert (2 * parts[2:].sum()).item() == pytest.approx(1.4, abs=1e-6)
    value, mask = flat([100, 900], [2.0, 0.5])
    assert average(value, mask, over="tokens").item() == pytest.approx(0.65, abs=1e-6)


def test_turns_and_rollouts() -> None:
    # rollout 0: turns of 3 and 5 tokens with mean losses 1 and 2; rollout 1: one turn of 2 tokens at 4
    mask = torch.tensor([[True] * 8, [True] * 2 + [False] * 6])
    turn = torch.tensor([[0] * 3 + [1] * 5, [0] * 2 + [-1] * 6])
    value = torch.tensor([[1.0] * 3 + [2.0] * 5, [4.0] * 2 + [99.0] * 6])
    want: list[tuple[Over, float]] = [
        ("tokens", 2.1),
        ("turns", 7 / 3),
        ("answers", 2.8125),
        (16, 0.65625),
    ]
    for over, number in want:
        assert average(value, mask, over=over, turn=turn).item() == pytest.approx(number, abs=1e-6)
    # the first rollout as two contexts, one turn each: still one rollout of two turns
    mask = torch.tensor([[True] * 3 + [False] * 2, [True] * 5, [True] * 2 + [False] * 3])
    turn = torch.tensor([[0] * 5, [1] * 5, [0] * 5])
    value = torch.tensor([1.0, 2.0, 4.0])[:, None].expand(3, 5)
    rollout = torch.tensor([0, 0, 1])
    for over, number in want:
        got = average(value, mask, rollout, over=over, turn=turn)
        assert got.item() == pytest.approx(number, abs=1e-6)


def test_groups() -> None:
    # group 0 has 1 + 3 tokens at loss 1, 2: mean 7/4; group 1 has 2 tokens at 4
    value, mask = flat([1, 3, 2], [1, 2, 4])
    group = torch.tensor([0, 0, 1])
    got = average(value, mask, over="groups", group=group)
    assert got.item() == pytest.approx((7 / 4 + 4) / 2)


def test_fully_masked_rollouts_are_not_counted() -> None:
    value, mask = flat([2, 4, 0], [1, 2, 77])
    want: list[tuple[Over, float]] = [
        ("tokens", 10 / 6),
        ("answers", 1.5),
        ("answer sums", 5),
        (10, 0.5),
    ]
    for over, number in want:
        assert average(value, mask, over=over).item() == pytest.approx(number)


def test_nothing_to_average() -> None:
    mask = torch.zeros(2, 3, dtype=torch.bool)
    turn, group = torch.zeros(2, 3).long(), torch.tensor([0, 1])
    for over in ("tokens", "answers", "turns", "groups", "answer sums", 8):
        weight = token_weights(mask, torch.arange(2), over=over, turn=turn, group=group)
        assert weight.shape == (2, 3) and not weight.any()


def test_what_cannot_be_averaged() -> None:
    mask = torch.ones(2, 3, dtype=torch.bool)
    with pytest.raises(ValueError, match=r"give turn=batch\.turn"):
        average(mask.float(), mask, over="turns")
    with pytest.raises(ValueError, match=r"give group=batch\.group"):
        average(mask.float(), mask, over="groups")
    with pytest.raises(ValueError, match="is not known"):
        average(mask.float(), mask, over=0)
    with pytest.raises(ValueError, match="one per row"):
        token_weights(mask, torch.arange(3), over="tokens")
    with pytest.raises(TypeError, match=r"mask\.bool"):
        average(mask.float(), mask.float(), over="tokens")
    with pytest.raises(ValueError, match=r"batch\.spread"):
        average(torch.ones(2), mask, over="tokens")
