"""RL-PLUS, arXiv:2508.00222: an external answer in the group, under a mixture ratio; LUFFY beside it."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.advantages.relative import dr_grpo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.mixture_ratio import foreign, mixture_ratio
from ludus.losses.shaped import shaped
from ludus.losses.two_sources import two_sources

QWEN = 151_936


def f(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


THREE = torch.ones(1, 3, dtype=torch.bool)
PI, OLD = f(0.02, 0.5, 0.95), f(0.01, 0.5, 0.9)
A = torch.full((1, 3), 0.625, dtype=torch.float64)


def test_advantages_count_the_external_answer() -> None:
    group = torch.zeros(8, dtype=torch.int64)
    got = dr_grpo(f(1, 1, 0, 0, 0, 0, 1, 0)[0], group)
    close(got[0], 0.625)
    got = dr_grpo(f(1, 0, 0, 0, 0, 0, 0, 0)[0], group)
    close(got, [0.875] + [-0.125] * 7)


def test_three_external_tokens() -> None:
    close(mixture_ratio(PI.log(), OLD.log(), THREE), [[0.077670, 0.8, 1.027027]])
    close((1 - PI) ** 0.5, [[0.989949, 0.707107, 0.223607]])
    close(foreign(PI.log(), OLD.log(), A, THREE), [[-0.048056, -0.353553, -0.143531]])
    vocab = mixture_ratio(PI.log(), OLD.log(), THREE, uniform="vocab", vocabulary=QWEN)
    close(vocab, [[2.666082, 1.333327, 1.407404]])
    with pytest.raises(ValueError, match="give vocabulary"):
        mixture_ratio(PI.log(), OLD.log(), THREE, uniform="vocab")


@pytest.mark.parametrize(
    ("uniform", "weights"),
    [("one", {0.01: 0.039, 0.1: 0.29, 0.46: 0.57, 1.0: 0.0}),
     ("vocab", {0.01: 1.33, 0.1: 1.26, 0.5: 0.94, 0.9: 0.42})],
)  # fmt: skip
def test_what_an_on_policy_token_weighs(uniform: Any, weights: dict[float, float]) -> None:
    logp = f(*weights).log()
    mask = torch.ones_like(logp, dtype=torch.bool)
    value = foreign(logp, logp, torch.ones_like(logp), mask, uniform=uniform, vocabulary=QWEN)
    close(-value, [list(weights.values())], atol=5e-3)
    if uniform == "one":  # largest at 0.46, and never more
        grid = torch.linspace(0.001, 1, 1000, dtype=torch.float64).log()[None]
        one = torch.ones_like(grid)
        weight = -foreign(grid, grid, one, one.bool())
        assert grid[0, weight.argmax()].exp().item() == pytest.approx(0.46, abs=5e-3)
        assert weight.max().item() == pytest.approx(0.57, abs=5e-3)


def test_the_gradient_is_the_value() -> None:
    """C and the denominator are constants: d(-x_m C A) / d logp = -x_m C A."""
    variants: list[dict[str, Any]] = [{}, {"gamma": 0.0}, {"uniform": "vocab", "vocabulary": 100}]
    for knobs in variants:
        logp, old = PI.log().requires_grad_(), OLD.log().requires_grad_()
        value = foreign(logp, old, A, THREE, **knobs)
        (gradient,) = torch.autograd.grad(value.sum(), logp, retain_graph=True)
        close(gradient, value.detach(), atol=1e-12)
        assert torch.autograd.grad(value.sum(), old, allow_unused=True) == (None,)


def test_exploration_weight() -> None:
    ratio = mixture_ratio(PI.log(), OLD.log(), THREE)
    close(foreign(PI.log(), OLD.log(), A, THREE, gamma=0.0), -ratio * A, atol=1e-12)
    certain = f(0.0, 1e-9, -1e9)  # a probability a hair above 1 has no root below 0
    value = foreign(certain, certain, A, THREE)
    close(value, [[0, 0, 0]])


def test_the_ratio_is_bounded() -> None:
    pi, old = torch.meshgrid(torch.linspace(0, 1, 11), torch.linspace(0, 1, 11), indexing="ij")
    mask = torch.ones(11, 11, dtype=torch.bool)
    ratio = mixture_ratio(pi.log(), old.log(), mask)
    assert ratio.max().item() == pytest.approx(4.0) and ratio.isfinite().all()
    at_old = mixture_ratio(pi.log(), pi.log(), mask, uniform="vocab", vocabulary=QWEN)
    assert at_old.max() <= 4 / 3


def test_leaving_out_the_old_policy_would_be_another_ratio() -> None:
    """The learner's own probability of the foreign token has to be computed; 1 in its place gives pi."""
    close(mixture_ratio(PI.log(), torch.zeros_like(PI), THREE), PI, atol=1e-12)


# ---------------------------------------------------------------- both sources in one batch

LOGP = torch.tensor([[-0.1, -0.5, -2.0], [-0.3, -1.0, -0.7]], dtype=torch.float64)
BEFORE = torch.full_like(LOGP, -0.8)
ADVANTAGE = torch.tensor([[0.7], [-0.4]], dtype=torch.float64).expand(2, 3)
MASK = torch.tensor([[True, True, True], [True, True, False]])
unclipped = partial(clipped_ratio, low=math.inf, high=math.inf)


def test_own_tokens_are_not_clipped() -> None:
    """In the released setting the loss of an own token is -x A, wherever x has gone."""
    value = unclipped(LOGP, BEFORE, ADVANTAGE, MASK)
    close(value[MASK], (-(LOGP - BEFORE).exp() * ADVANTAGE)[MASK], atol=1e-12)


def test_each_source_has_its_loss() -> None:
    external = torch.tensor([[True] * 3, [False] * 3])
    got = two_sources(LOGP, BEFORE, ADVANTAGE, MASK, external, own=unclipped, theirs=foreign)
    assert torch.equal(got[0], foreign(LOGP, BEFORE, ADVANTAGE, MASK)[0])
    assert torch.equal(got[1], unclipped(LOGP, BEFORE, ADVANTAGE, MASK)[1])
    assert got[1, 2] == 0


def test_without_an_external_answer_it_is_the_clipped_loss() -> None:
    nobody = torch.zeros_like(MASK)
    got = two_sources(LOGP, BEFORE, ADVANTAGE, MASK, nobody, own=clipped_ratio, theirs=foreign)
    assert torch.equal(got, clipped_ratio(LOGP, BEFORE, ADVANTAGE, MASK))
    with pytest.raises(TypeError, match=r"give torch\.bool"):
        two_sources(
            LOGP, BEFORE, ADVANTAGE, MASK, nobody.float(), own=clipped_ratio, theirs=foreign
        )


# ---------------------------------------------------------------- LUFFY


def test_luffy_bends_probabilities() -> None:
    """f(x) = x / (x + 0.1): 0.5 at 0.1; its gradient is largest there and pi's own at 1 is nine times as large."""
    logp = f(0.01, 0.1, 0.5, 1.0).log().requires_grad_()
    mask = torch.ones_like(logp, dtype=torch.bool)
    value = shaped(logp, logp, torch.ones_like(logp), mask)
    close(value, [[-1 / 11, -0.5, -5 / 6, -10 / 11]])
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    # gamma pi / (pi + gamma)^2: 0.082645, 0.25, 0.138889, 0.082645
    close(gradient, [[-0.082645, -0.25, -0.138889, -0.082645]])
    with pytest.raises(ValueError, match="gamma=0"):
        shaped(logp, logp, logp, mask, gamma=0.0)
