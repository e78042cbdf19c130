"""ROVER, arXiv:2509.24981: the value of choosing at random, and its regression."""

from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.losses.rover import rover
from ludus.models.linear_logprob import linear_logprob
from ludus.models.mean_logprob import mean_logprob
from ludus.weights.average import average

# ---------------------------------------------------------------- the loss


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


OLD = torch.stack([f(0.5, 0.3, 0.2), f(0.2, 0.5, 0.3)]).log()
NEW = torch.stack([f(0.6, 0.25, 0.15), f(0.3, 0.4, 0.3)]).log()
CHOSEN = torch.tensor([[0], [1]])
A = f(0.5, 0.5)[None]
TWO = torch.ones(1, 2, dtype=torch.bool)


def read(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Log-probability of the chosen tokens, and the mean over the vocabulary, [1,2] each."""
    return rows.gather(1, CHOSEN).T, rows.mean(1)[None]


def loss_of(new: Tensor, old: Tensor = OLD, advantage: Tensor = A, **knobs: float) -> Tensor:
    (logp, mean), (old_logp, old_mean) = read(new), read(old)
    return rover(logp, old_logp, advantage, TWO, mean, old_mean, **knobs)


def test_two_tokens() -> None:
    q, grown = f(1.2, 0.8).log(), math.log(1.2) / 3  # log(0.036 / 0.030) / 3
    want = [[(q[0] - 0.5 - grown) ** 2, (q[1] - 0.5) ** 2]]
    close(loss_of(NEW), want)
    close(average(loss_of(NEW), TWO, over="tokens"), 0.333081)
    close(average(loss_of(OLD), TWO, over="tokens"), 0.25)
    # rho multiplies both log-ratios, beta what follows alone
    close(loss_of(NEW, rho=2.0), [[(2 * q[0] - 0.5 - 2 * grown) ** 2, (2 * q[1] - 0.5) ** 2]])
    close(loss_of(NEW, beta=0.0), [[(q[0] - 0.5) ** 2, (q[1] - 0.5) ** 2]])


def test_the_first_update_is_reinforce_times_two() -> None:
    logp = read(OLD)[0].clone().requires_grad_()
    for beta in (0.0, 1.0):
        value = rover(logp, logp.detach(), A, TWO, read(OLD)[1], read(OLD)[1], beta=beta)
        (gradient,) = torch.autograd.grad(average(value, TWO, over="tokens"), logp)
        close(gradient, -2 * A / 2, atol=1e-12)


def test_a_token_that_has_reached_its_target_rests() -> None:
    (logp, mean), (old, old_mean) = read(NEW), read(OLD)
    target = torch.tensor([[0.5 + float(mean[0, 1] - old_mean[0, 1]), 0.5]], dtype=torch.float64)
    logp = (old + target).requires_grad_()
    value = rover(logp, old, A, TWO, mean, old_mean)
    (gradient,) = torch.autograd.grad(value.sum(), logp)
    close(gradient, [[0, 0]], atol=1e-12)


def test_what_was_not_sampled_is_in_the_target() -> None:
    """The value of the next state is over the vocabulary: not of the token that happened to come next."""
    want, other = loss_of(NEW), NEW.clone()
    other[1, 0] += 1.0  # an unsampled token at the second state, not renormalised
    got = loss_of(other)
    assert (got[0, 0] - want[0, 0]).abs() > 0.01 and got[0, 1] == want[0, 1]
    # and at the first state, which nobody comes from, nothing
    other = NEW.clone()
    other[0, 2] += 1.0
    assert torch.equal(loss_of(other), want)


def test_no_gradient_through_the_target() -> None:
    new = NEW.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(loss_of(new).sum(), new)
    assert (gradient[1, [0, 2]] == 0).all() and gradient[1, 1] != 0


def test_the_next_state_is_that_of_the_next_token_written() -> None:
    """Over observations and padding, in the row alone; behind the last token there is no next state."""
    mask = torch.tensor([[True, False, False, True, False], [True, True, False, False, True]])
    nan = torch.nan
    logp = torch.tensor([[0.1, nan, nan, 0.2, nan], [0.3, 0.4, nan, nan, 0.5]])
    mean = torch.tensor([[9.0, nan, nan, 2.0, nan], [9.0, 3.0, nan, nan, 5.0]])
    zero = torch.zeros_like(logp)
    got = rover(logp, zero, zero, mask, mean, zero)
    want = [[(0.1 - 2) ** 2, 0, 0, 0.04, 0], [(0.3 - 3) ** 2, (0.4 - 5) ** 2, 0, 0, 0.25]]
    close(got, want)
    # a row is on its own, so that cutting a batch changes nothing
    close(rover(logp[1:], zero[1:], zero[1:], mask[1:], mean[1:], zero[1:]), got[1:])
    nothing = torch.zeros_like(mask)
    assert not rover(logp, zero, zero, nothing, mean, zero).any()


# ---------------------------------------------------------------- the theory, on an exact tree

GOOD = {"ACD", "BDC", "CAB", "DBA"}
LETTERS, DEPTH = "ABCD", 3


def at_random(prefix: str) -> float:
    """Probability of a good leaf, choosing uniformly from here on."""
    if len(prefix) == DEPTH:
        return float(prefix in GOOD)
    return sum(at_random(prefix + letter) for letter in LETTERS) / len(LETTERS)


def reach(rho: float) -> dict[str, float]:
    """Probability of every leaf under softmax(Q / rho)."""
    found = {}
    for leaf in map("".join, itertools.product(LETTERS, repeat=DEPTH)):
        probability = 1.0
        for t in range(DEPTH):
            scores = f(*(at_random(leaf[:t] + letter) for letter in LETTERS)) / rho
            probability *= float(scores.softmax(0)[LETTERS.index(leaf[t])])
        found[leaf] = probability
    return found


def test_values_of_a_random_policy() -> None:
    assert [at_random(letter) for letter in LETTERS] == [0.0625] * 4
    assert [at_random("A" + letter) for letter in LETTERS] == [0, 0, 0.25, 0]
    assert [at_random("AC" + letter) for letter in LETTERS] == [0, 0, 0, 1]
    # greedy from any first letter ends in a good leaf
    for leaf in LETTERS:
        while len(leaf) < DEPTH:
            leaf += max(LETTERS, key=lambda letter, so_far=leaf: at_random(so_far + letter))
        assert leaf in GOOD


@pytest.mark.parametrize(
    ("rho", "success"), [(1, 0.1425), (0.1, 0.8023), (0.03, 0.99928), (0.01, 1)]
)
def test_softmax_of_them_keeps_all_solutions(rho: float, success: float) -> None:
    leaves = reach(rho)
    assert sum(leaves[leaf] for leaf in GOOD) == pytest.approx(success, abs=5e-5)
    assert [leaves[leaf] for leaf in GOOD] == pytest.approx([success / 4] * 4, abs=2e-5)


# ---------------------------------------------------------------- the mean over the vocabulary


def dense(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, temperature: Any, **knobs: Any
) -> Tensor:
    z = torch.nn.functional.linear(hidden, weight, bias) * knobs.get("scale", 1.0)
    if "softcap" in knobs:
        z = knobs["softcap"] * torch.tanh(z / knobs["softcap"])
    return (z / temperature).log_softmax(-1).mean(-1)


@pytest.mark.parametrize("chunk", [1, 3, 1024])
def test_mean_log_probability(chunk: int) -> None:
    generator = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(7, 5, generator=generator), torch.randn(11, 5, generator=generator)
    bias = torch.randn(11, generator=generator)
    each = torch.linspace(0.5, 2.0, 7)
    variants: list[dict[str, Any]] = [{}, {"scale": 0.125}, {"softcap": 3.0}]
    for knobs in variants:
        got = mean_logprob(hidden, weight, bias=bias, temperature=0.6, chunk=chunk, **knobs)
        torch.testing.assert_close(got, dense(hidden, weight, bias, 0.6, **knobs))
        got = mean_logprob(hidden, weight, temperature=each, chunk=chunk, **knobs)
        torch.testing.assert_close(got, dense(hidden, weight, None, each[:, None], **knobs))


def test_mean_log_probability_at_its_edges() -> None:
    flat = mean_logprob(torch.ones(2, 3), torch.zeros(8, 3))
    close(flat, [-math.log(8)] * 2)
    # a token out of the vocabulary is out of the mean: seven equal ones are left, under a soft cap too
    bias = torch.zeros(8).index_fill(0, torch.tensor([2]), -torch.inf)
    for cap in (None, 5.0):
        close(
            mean_logprob(torch.ones(2, 3), torch.zeros(8, 3), bias=bias, softcap=cap),
            [-math.log(7)] * 2,
        )
    assert mean_logprob(torch.zeros(0, 3), torch.zeros(8, 3)).shape == (0,)
    hidden = torch.randn(3, 4, requires_grad=True)
    got = mean_logprob(hidden, torch.randn(6, 4, requires_grad=True))
    assert not got.requires_grad
    low = mean_logprob(hidden.bfloat16(), torch.randn(6, 4).bfloat16())
    assert low.dtype == torch.float32
    with pytest.raises(ValueError, match="chunk is 0"):
        mean_logprob(hidden, torch.randn(6, 4), chunk=0)


def test_it_is_the_mean_of_the_log_probabilities_of_all_targets() -> None:
    generator = torch.Generator().manual_seed(1)
    hidden, weight = torch.randn(4, 5, generator=generator), torch.randn(9, 5, generator=generator)
    every = [linear_logprob(hidden, weight, torch.full((4,), v))[0] for v in range(9)]
    torch.testing.assert_close(mean_logprob(hidden, weight), torch.stack(every).mean(0))
