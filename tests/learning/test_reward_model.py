"""A reward model on a generated task whose quality is a known feature: accuracy, calibration and a shuffled control."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.losses.reward_model import bradley_terry
from ludus.models.heads import ScalarHead, at_last

DIM, LENGTH = 16, 6


def texts(count: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Hidden states [P,2,T,H] of pairs of texts, their masks, and their true quality [P,2] at the last real token."""
    hidden = torch.randn(count, 2, LENGTH, DIM, generator=generator)
    lengths = torch.randint(1, LENGTH + 1, (count, 2), generator=generator)
    mask = torch.arange(LENGTH) < lengths[..., None]
    direction = torch.linspace(-1, 1, DIM)
    quality = at_last((hidden @ direction).flatten(0, 1), mask.flatten(0, 1)).view(count, 2)
    return hidden, mask, quality


def train(hidden: Tensor, mask: Tensor, first_is_better: Tensor) -> ScalarHead:
    head = ScalarHead(DIM)
    adam = torch.optim.Adam(head.parameters(), lr=0.05)
    for _ in range(150):
        reward = rewards(head, hidden, mask)
        won = torch.where(first_is_better, reward[:, 0], reward[:, 1])
        lost = torch.where(first_is_better, reward[:, 1], reward[:, 0])
        loss = bradley_terry(won, lost, centring=0.001).mean()
        adam.zero_grad()
        loss.backward()
        adam.step()
    return head


def rewards(head: ScalarHead, hidden: Tensor, mask: Tensor) -> Tensor:
    return at_last(head(hidden).flatten(0, 1), mask.flatten(0, 1)).view(-1, 2)


def accuracy(head: ScalarHead, hidden: Tensor, mask: Tensor, quality: Tensor) -> float:
    reward = rewards(head, hidden, mask)
    agree = (reward[:, 0] > reward[:, 1]) == (quality[:, 0] > quality[:, 1])
    return float(agree.float().mean())


def test_it_learns_what_the_labels_say_and_nothing_from_shuffled_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, mask, quality = texts(1000, generator)
    held_out = texts(1000, generator)
    better = quality[:, 0] > quality[:, 1]
    assert accuracy(train(hidden, mask, better), *held_out) >= 0.95
    shuffled = better[torch.randperm(len(better), generator=generator)]
    assert 0.35 <= accuracy(train(hidden, mask, shuffled), *held_out) <= 0.65


def test_its_rewards_are_log_odds() -> None:
    """Labels drawn by sigmoid(quality gap): the share of wins at a given reward gap is its sigmoid."""
    generator = torch.Generator().manual_seed(1)
    hidden, mask, quality = texts(4000, generator)
    gap = quality[:, 0] - quality[:, 1]
    first_wins = torch.rand(len(gap), generator=generator) < torch.sigmoid(gap)
    head = train(hidden, mask, first_wins)

    hidden, mask, quality = texts(20_000, generator)
    gap = quality[:, 0] - quality[:, 1]
    wins = (torch.rand(len(gap), generator=generator) < torch.sigmoid(gap)).float()
    reward = rewards(head, hidden, mask).detach()
    told = torch.sigmoid(reward[:, 0] - reward[:, 1])
    for low in (0.0, 0.2, 0.4, 0.6, 0.8):
        inside = (told >= low) & (told < low + 0.2)
        assert int(inside.sum()) > 500
        assert abs(float(wins[inside].mean() - told[inside].mean())) < 0.04
