"""The scalar head, and reading a text's reward at its last token."""

from __future__ import annotations

import pytest
import torch

from ludus.models.heads import ScalarHead, at_last


def test_it_starts_at_zero_and_can_learn() -> None:
    head = ScalarHead(8)
    hidden = torch.randn(2, 3, 8, generator=torch.Generator().manual_seed(0))
    value = head(hidden)
    assert value.shape == (2, 3) and not value.any()
    value.sum().backward()
    grad = head.linear.weight.grad
    assert grad is not None
    torch.testing.assert_close(grad[0], hidden.sum((0, 1)))


def test_a_small_start_reaches_the_body() -> None:
    torch.manual_seed(0)
    hidden = torch.ones(1, 4096, requires_grad=True)
    head = ScalarHead(4096, std=0.02)
    head(hidden).sum().backward()
    assert hidden.grad is not None and float(hidden.grad.std()) == pytest.approx(0.02, rel=0.1)
    with pytest.raises(ValueError, match="std is -1"):
        ScalarHead(4, std=-1)


def test_a_float32_head_on_a_bfloat16_body() -> None:
    head = ScalarHead(4)
    assert head(torch.ones(2, 4, dtype=torch.bfloat16)).dtype == torch.float32
    assert ScalarHead(4, torch.bfloat16)(torch.ones(2, 4)).dtype == torch.bfloat16


def test_the_reward_does_not_depend_on_padding() -> None:
    texts = [[1.0, 2.0, 3.0], [4.0], [5.0, 6.0]]

    def padded(width: int, left: bool) -> torch.Tensor:
        values = torch.full((3, width), torch.nan)
        mask = torch.zeros(3, width, dtype=torch.bool)
        for row, text in enumerate(texts):
            start = width - len(text) if left else 0
            values[row, start : start + len(text)] = torch.tensor(text)
            mask[row, start : start + len(text)] = True
        return at_last(values, mask)

    for width in (3, 4, 9):
        for left in (False, True):
            assert padded(width, left).tolist() == [3.0, 4.0, 6.0]


def test_only_the_last_token_has_a_gradient() -> None:
    values = torch.zeros(1, 4, requires_grad=True)
    at_last(values, torch.tensor([[True, True, True, False]])).sum().backward()
    assert values.grad is not None and values.grad.tolist() == [[0, 0, 1, 0]]


def test_errors_teach() -> None:
    mask = torch.tensor([[True, False], [False, False]])
    with pytest.raises(ValueError, match="row 1 has no tokens"):
        at_last(torch.zeros(2, 2), mask)
    with pytest.raises(ValueError, match=r"the mask as torch\.bool"):
        at_last(torch.zeros(2, 2), mask.long())
    with pytest.raises(ValueError, match="values has shape"):
        at_last(torch.zeros(2), mask)
    assert at_last(torch.zeros(0, 3), torch.zeros(0, 3, dtype=torch.bool)).shape == (0,)
