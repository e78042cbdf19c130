"""80/20 forking tokens, arXiv:2506.01939: the policy gradient of the least certain fifth of the tokens."""

from __future__ import annotations

from typing import Literal

import pytest
import torch
from torch import Tensor

from ludus.losses.clipped import clipped_ratio
from ludus.weights.average import Over, token_weights
from ludus.weights.entropy_top import kept_weights, overlap, top_entropy

MASK = torch.tensor([[True] * 5, [True] * 4 + [False]])
ROWS = torch.arange(2)


def entropies(padding: float = 9.9) -> Tensor:
    return torch.tensor([[0.1, 2.0, 0.3, 0.05, 1.5], [0.02, 0.9, 0.4, 0.2, padding]])


@pytest.mark.parametrize("padding", [9.9, 0.0, -1.0, torch.inf, torch.nan])
def test_nine_tokens(padding: float) -> None:
    """The 80 % quantile of nine numbers lies 0.4 of the way from 0.9 to 1.5: 1.14."""
    entropy = entropies(padding)
    kept = top_entropy(entropy, MASK)
    assert kept.nonzero().tolist() == [[0, 1], [0, 4]]
    # of a top k of the padded matrix, the padding would be one
    assert torch.equal(kept, MASK & (entropy >= 1.14))


def test_denominators() -> None:
    kept = top_entropy(entropies(), MASK)
    logp = torch.zeros(2, 5, requires_grad=True)
    advantage = torch.tensor([[1.0], [-1.0]]).expand(2, 5)
    wanted: list[tuple[Literal["kept", "all"], float]] = [("kept", -1.0), ("all", -2 / 9)]
    for denominator, want in wanted:
        value = clipped_ratio(logp, torch.zeros(2, 5), advantage, MASK, high=0.28)
        weight = kept_weights(kept, MASK, ROWS, denominator=denominator)
        loss = (value * weight).sum()
        assert loss.item() == pytest.approx(want, abs=1e-6)
        (gradient,) = torch.autograd.grad(loss, logp)
        assert (gradient[~kept] == 0).all() and (gradient[kept] != 0).all()


@pytest.mark.parametrize("over", ["tokens", "answers", "answer sums", 8])
@pytest.mark.parametrize("denominator", ["kept", "all"])
def test_everything_kept_is_the_average_of_all(
    over: Over, denominator: Literal["kept", "all"]
) -> None:
    kept = top_entropy(entropies(), MASK, rho=1.0)
    assert torch.equal(kept, MASK)
    got = kept_weights(kept, MASK, ROWS, denominator=denominator, over=over)
    torch.testing.assert_close(got, token_weights(MASK, ROWS, over=over), rtol=0, atol=0)


@pytest.mark.parametrize("rho", [0.1, 0.2, 0.3, 0.5, 0.7, 0.9])
def test_share_kept(rho: float) -> None:
    generator = torch.Generator().manual_seed(0)
    for size in (1, 2, 3, 9, 10, 11, 16, 101, 1000):
        entropy = torch.rand(1, size, generator=generator)
        mask = torch.ones(1, size, dtype=torch.bool)
        kept = top_entropy(entropy, mask, rho=rho)
        assert abs(int(kept.sum()) - rho * size) <= 1
        # the largest ones, and numpy's threshold
        assert entropy[kept].min() > entropy[mask & ~kept].max() if not kept.all() else True
        assert torch.equal(kept, entropy.double() >= entropy.double().quantile(1 - rho) - 1e-9)


def test_an_exact_place_is_not_rounded_past() -> None:
    """Eleven tokens, rho 0.7: place 10 * (1 - 0.7) is the fourth number itself, which is kept."""
    entropy = torch.arange(11.0)[None]
    assert int(top_entropy(entropy, entropy >= 0, rho=0.7).sum()) == 8


def test_ties_at_the_threshold_are_kept() -> None:
    entropy = torch.tensor([[0.0, 1.0, 1.0, 1.0, 1.0]])
    mask = torch.ones(1, 5, dtype=torch.bool)
    assert top_entropy(entropy, mask).tolist() == [[False, True, True, True, True]]
    assert top_entropy(torch.zeros(1, 5), mask).all()


def test_one_threshold_for_the_batch() -> None:
    """An answer that is nowhere in doubt has no fork; a threshold per answer would give it one."""
    entropy = torch.tensor([[0.01, 0.02, 0.03, 0.04, 0.05], [1.0, 2.0, 3.0, 4.0, 5.0]])
    kept = top_entropy(entropy, torch.ones(2, 5, dtype=torch.bool))
    assert kept.sum(1).tolist() == [0, 2]
    assert not kept_weights(kept, torch.ones(2, 5).bool(), ROWS, over="answers")[0].any()


def test_no_gradient_and_no_tokens() -> None:
    entropy = entropies().requires_grad_()
    assert not top_entropy(entropy, MASK).requires_grad
    nothing = torch.zeros_like(MASK)
    assert not top_entropy(entropies(), nothing).any()
    assert not kept_weights(nothing, MASK, ROWS).any()
    with pytest.raises(ValueError, match="rho=0; give the share"):
        top_entropy(entropies(), MASK, rho=0.0)


def test_overlap() -> None:
    kept = torch.tensor([[True, True, False, False]])
    assert overlap(kept, torch.tensor([[True, False, True, True]])) == 0.5
    assert overlap(kept, kept) == 1.0
    assert overlap(torch.zeros_like(kept), kept) == 1.0
