"""The chunked head: values, gradients and memory against the dense one. Numbers are those of its card or by hand."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from ludus.models.linear_logprob import head_logits, linear_logprob
from ludus.train.memory import peak_memory

torch.set_num_threads(1)


def dense(
    hidden: Tensor,
    weight: Tensor,
    targets: Tensor,
    *,
    bias: Tensor | None = None,
    temperature: float | Tensor = 1.0,
    softcap: float | None = None,
    scale: float = 1.0,
) -> tuple[Tensor, Tensor]:
    """The plainest form, with autograd's own gradients."""
    z = torch.nn.functional.linear(hidden, weight, bias) * scale
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    z = z / (temperature[:, None] if isinstance(temperature, Tensor) else temperature)
    logp = torch.log_softmax(z, -1)
    entropy = torch.special.entr(logp.exp()).sum(-1)
    return logp.gather(1, targets[:, None])[:, 0], entropy


def inputs(n: int, h: int, v: int, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(n, h, generator=generator, dtype=dtype, requires_grad=True)
    weight = torch.randn(v, h, generator=generator, dtype=dtype, requires_grad=True)
    bias = torch.randn(v, generator=generator, dtype=dtype, requires_grad=True)
    return hidden, weight, bias, torch.randint(v, (n,), generator=generator)


SETTINGS: list[dict[str, Any]] = [
    {},
    {"temperature": 0.7},
    {"temperature": torch.linspace(0.5, 2.0, 7, dtype=torch.float64)},
    {"scale": 0.125},
    {"softcap": 3.0},
    {"softcap": 3.0, "scale": 0.5, "temperature": 1.3},
]


def test_the_cards_differences_from_dense() -> None:
    hidden, weight, _, targets = inputs(300, 64, 1000)
    upstream = torch.randn(300, generator=torch.Generator().manual_seed(1))
    logp, entropy = linear_logprob(hidden, weight, targets, chunk=64)
    assert entropy is None and logp.dtype == torch.float32
    expected, _ = dense(hidden, weight, targets)
    torch.testing.assert_close(logp, expected, atol=1e-5, rtol=0)
    ours = torch.autograd.grad((logp * upstream).sum(), [hidden, weight])
    theirs = torch.autograd.grad((expected * upstream).sum(), [hidden, weight])
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=1e-4, rtol=0)


def test_the_cards_sizes() -> None:
    gib = 1 << 30
    assert 16_384 * 151_936 * 4 / gib == pytest.approx(9.27, abs=5e-3)
    assert 1_024 * 151_936 * 4 / gib == pytest.approx(0.58, abs=5e-3)
    assert 65_536 * 151_936 * 4 / gib == pytest.approx(37.1, abs=5e-2)


@pytest.mark.parametrize(("temperature", "share"), [(1.0, 1.0), (2.0, 0.5)])
def test_uniform_logits(temperature: float, share: float) -> None:
    # The bias stands in for the logits: its gradient is dz, here (onehot - 1/4) / temperature.
    bias = torch.zeros(4, requires_grad=True)
    logp, entropy = linear_logprob(
        torch.ones(1, 3),
        torch.zeros(4, 3),
        torch.tensor([2]),
        bias=bias,
        temperature=temperature,
        entropy=True,
    )
    assert entropy is not None
    assert logp.item() == pytest.approx(-1.386294, abs=1e-6)
    assert entropy.item() == pytest.approx(1.386294, abs=1e-6)
    (dz,) = torch.autograd.grad(logp.sum(), bias)
    torch.testing.assert_close(dz, torch.tensor([-0.25, -0.25, 0.75, -0.25]) * share)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_values_and_gradients_are_those_of_the_dense_head(settings: dict[str, Any]) -> None:
    hidden, weight, bias, targets = inputs(7, 5, 11, torch.float64)
    g, e = torch.randn(2, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    logp, entropy = linear_logprob(
        hidden, weight, targets, bias=bias, chunk=3, entropy=True, **settings
    )
    assert entropy is not None and entropy.dtype == torch.float64
    expected, expected_entropy = dense(hidden, weight, targets, bias=bias, **settings)
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(entropy, expected_entropy)
    ours = torch.autograd.grad((g * logp + e * entropy).sum(), [hidden, weight, bias])
    theirs = torch.autograd.grad(
        (g * expected + e * expected_entropy).sum(), [hidden, weight, bias]
    )
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_gradcheck(settings: dict[str, Any]) -> None:
    hidden, weight, bias, targets = inputs(7, 3, 4, torch.float64)

    def both(*tensors: Tensor) -> tuple[Tensor, ...]:
        h, w, b = tensors
        logp, entropy = linear_logprob(h, w, targets, bias=b, chunk=4, entropy=True, **settings)
        assert entropy is not None
        return logp, entropy

    assert torch.autograd.gradcheck(both, (hidden, weight, bias))


@pytest.mark.parametrize("chunk", [1, 7, 64, 10_000])
def test_the_chunk_changes_nothing(chunk: int) -> None:
    hidden, weight, bias, targets = inputs(50, 16, 40)

    def run(size: int) -> tuple[Tensor, ...]:
        logp, entropy = linear_logprob(
            hidden / 4, weight, targets, bias=bias, chunk=size, entropy=True
        )
        assert entropy is not None
        return logp, entropy, *torch.autograd.grad((logp + entropy).sum(), [hidden, weight, bias])

    for a, b in zip(run(chunk), run(13), strict=True):
        torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-6)


def test_gathering_first_is_masking_last() -> None:
    hidden, weight, _, targets = inputs(20, 8, 30, torch.float64)
    mask = torch.arange(20) % 5 == 1
    before, _ = linear_logprob(hidden[mask], weight, targets[mask])
    after, _ = linear_logprob(hidden, weight, targets)
    torch.testing.assert_close(before, after[mask])
    one = torch.autograd.grad(before.sum(), [hidden, weight])
    other = torch.autograd.grad((after * mask).sum(), [hidden, weight])
    for a, b in zip(one, other, strict=True):
        torch.testing.assert_close(a, b)


def test_a_tied_head_adds_to_the_embedding() -> None:
    ids = torch.tensor([0, 3, 3, 5])
    targets = torch.tensor([3, 3, 5, 1])
    embedding = torch.randn(
        6, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(3), requires_grad=True
    )
    logp, _ = linear_logprob(embedding[ids], embedding, targets, chunk=3)
    expected, _ = dense(embedding[ids], embedding, targets)
    ours = torch.autograd.grad(logp.sum(), embedding)
    theirs = torch.autograd.grad(expected.sum(), embedding)
    torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("softcap", [None, 2.0])
def test_a_masked_vocabulary_has_finite_gradients(softcap: float | None) -> None:
    hidden, weight, bias, _ = inputs(6, 5, 9, torch.float64)
    out = torch.tensor([1, 4])
    masked = bias.detach().clone()
    masked[out] = -torch.inf
    masked.requires_grad_()
    targets = torch.tensor([0, 2, 3, 5, 6, 8])
    logp, entropy = linear_logprob(
        hidden, weight, targets, bias=masked, softcap=softcap, chunk=4, entropy=True
    )
    assert entropy is not None
    grads = torch.autograd.grad((logp + 0.3 * entropy).sum(), [hidden, weight, masked])

    # The same as a head that never had those two rows.
    left = torch.tensor([v for v in range(9) if v not in out])
    place = torch.tensor([int((left == y).nonzero()) for y in targets])
    expected, expected_entropy = dense(
        hidden, weight[left], place, bias=bias[left], softcap=softcap
    )
    torch.testing.assert_close(logp, expected)
    torch.testing.assert_close(entropy, expected_entropy)
    reference = torch.autograd.grad(
        (expected + 0.3 * expected_entropy).sum(), [hidden, weight, bias]
    )
    for a, b in zip(grads, reference, strict=True):
        torch.testing.assert_close(a, b)
        assert bool(a.isfinite().all())


def test_no_rows() -> None:
    hidden, weight, bias, targets = inputs(0, 4, 6)
    logp, entropy = linear_logprob(hidden, weight, targets, bias=bias, entropy=True)
    assert entropy is not None
    assert logp.shape == entropy.shape == (0,)
    (logp.sum() + entropy.sum()).backward()
    assert hidden.grad is not None and hidden.grad.shape == (0, 4)
    assert weight.grad is not None and not weight.grad.any()


def test_low_precision_is_summed_in_float32() -> None:
    hidden, weight, bias, targets = inputs(64, 32, 200)
    low = [t.detach().bfloat16().requires_grad_() for t in (hidden, weight, bias)]
    same = [t.detach().float().requires_grad_() for t in low]  # the same numbers
    logp, _ = linear_logprob(low[0], low[1], targets, bias=low[2], chunk=1)
    expected, _ = dense(same[0], same[1], targets, bias=same[2])
    assert logp.dtype == torch.float32
    torch.testing.assert_close(logp, expected, atol=1e-5, rtol=0)
    ours = torch.autograd.grad(logp.sum(), low)
    theirs = torch.autograd.grad(expected.sum(), same)
    for a, b in zip(ours, theirs, strict=True):
        assert a.dtype == torch.bfloat16
        # Rounded once at the end. 64 chunks added up in bfloat16 would be off by some 5 %.
        torch.testing.assert_close(a, b.bfloat16(), atol=1e-5, rtol=2**-7)


def test_autocast_does_not_round_the_logits() -> None:
    hidden, weight, _, targets = inputs(32, 64, 50)
    expected, _ = linear_logprob(hidden, weight, targets)
    with torch.autocast("cpu", torch.bfloat16):
        logp, _ = linear_logprob(hidden, weight, targets)
    assert torch.equal(logp, expected)


def test_gradients_that_nobody_wants_are_not_computed() -> None:
    hidden, weight, _, targets = inputs(6, 4, 5)
    frozen = weight.detach()
    logp, _ = linear_logprob(hidden, frozen, targets)
    (ours,) = torch.autograd.grad(logp.sum(), hidden)
    (theirs,) = torch.autograd.grad(dense(hidden, frozen, targets)[0].sum(), hidden)
    torch.testing.assert_close(ours, theirs)
    work = inputs(16, 4, 4096)
    both = peak_memory(
        lambda: linear_logprob(work[0], work[1], work[3], chunk=1)[0].sum().backward()
    )
    work = inputs(16, 4, 4096)
    one = peak_memory(
        lambda: linear_logprob(work[0], work[1].detach(), work[3], chunk=1)[0].sum().backward()
    )
    assert both - one >= 4096 * 4 * 4  # the gradient of weight was never allocated


@pytest.mark.parametrize("entropy", [False, True])
def test_peak_memory_is_below_a_quarter_of_dense(entropy: bool) -> None:
    # The shape of T = 8192, V = 32768, chunk 1024, scaled down by 8; the full size is in ludus.benches.linear_logprob.
    hidden, weight, _, targets = inputs(1024, 64, 4096)

    def chunked() -> object:
        logp, extra = linear_logprob(hidden, weight, targets, chunk=128, entropy=entropy)
        loss = logp.sum() if extra is None else (logp + extra).sum()
        return torch.autograd.grad(loss, [hidden, weight])

    def plain() -> object:
        logp, extra = dense(hidden, weight, targets)
        return torch.autograd.grad(
            (logp + extra).sum() if entropy else logp.sum(), [hidden, weight]
        )

    logits = 1024 * 4096 * 4
    ours, theirs = peak_memory(chunked), peak_memory(plain)
    assert theirs >= 2 * logits  # the measure sees what the dense head allocates
    assert ours < theirs / 4
    assert ours < logits / 2  # nor do the chunks' logits pile up until the backward pass


def test_a_sampler_can_draw_from_the_very_same_logits() -> None:
    hidden, weight, bias, targets = inputs(9, 8, 30)
    settings: dict[str, Any] = {"bias": bias, "temperature": 0.6, "softcap": 4.0, "scale": 0.5}
    logits = head_logits(hidden, weight, **settings)
    assert not logits.requires_grad
    drawn = torch.log_softmax(logits, -1).gather(1, targets[:, None])[:, 0]
    torch.testing.assert_close(drawn, linear_logprob(hidden, weight, targets, **settings)[0])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"targets": torch.tensor([0, 5])}, "run from 0 to 5, the vocabulary from 0 to 4"),
        ({"targets": torch.tensor([-1, 0])}, "leave padding out first"),
        ({"targets": torch.tensor([0])}, "one target a row"),
        ({"hidden": torch.zeros(1, 2, 3)}, r"hidden\[mask\]"),
        ({"weight": torch.zeros(5, 4)}, r"\[V,H\] and \[N,H\]"),
        ({"bias": torch.zeros(4)}, r"give \[V\] = \[5\]"),
        ({"temperature": 0.0}, "score them at 1"),
        ({"temperature": torch.tensor([1.0, 0.0])}, "score them at 1"),
        ({"temperature": torch.ones(3)}, r"one a row \[2\]"),
        ({"temperature": torch.ones(2, requires_grad=True)}, "detach"),
        ({"chunk": 0}, "such as 1024"),
    ],
)
def test_errors_teach(change: dict[str, Any], message: str) -> None:
    arguments: dict[str, Any] = {
        "hidden": torch.zeros(2, 3),
        "weight": torch.zeros(5, 3),
        "targets": torch.tensor([0, 1]),
    }
    with pytest.raises(ValueError, match=message):
        linear_logprob(**(arguments | change))


def test_entropy_of_a_certain_token_is_zero() -> None:
    # Logits (1000, 0): exp underflows to 0 and 0 log 0 is 0.
    logp, entropy = linear_logprob(
        torch.tensor([[1000.0]]), torch.tensor([[1.0], [0.0]]), torch.tensor([1]), entropy=True
    )
    assert entropy is not None
    assert entropy.item() == 0.0 and logp.item() == -1000.0
