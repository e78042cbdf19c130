"""Preplan-and-Anchor, arXiv:2510.13554: gamma from attention maps, and the maps from a model."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from tests.helpers import tiny_model
from torch import Tensor
from transformers.models.qwen3.modeling_qwen3 import apply_rotary_pos_emb

from ludus.losses.clipped import clipped_ratio
from ludus.models.attention_maps import attention_maps
from ludus.weights.attention_rhythm import (
    amplified,
    change,
    coupled,
    fai,
    global_anchor,
    head_span,
    heads,
    local_and_global,
    local_chunk,
    middle_layers,
    rhythm,
    top,
    waad,
)

torch.set_num_threads(1)


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


def table(*rows: Mapping[int, float]) -> Tensor:
    """[T,T] from source: weight, one row a token."""
    maps = torch.zeros(len(rows), len(rows), dtype=torch.float64)
    for t, row in enumerate(rows):
        for s, weight in row.items():
            maps[t, s] = weight
    return maps


LOCAL = table(
    {0: 1}, {0: 0.2, 1: 0.8}, {1: 0.5, 2: 0.5}, {0: 0.7, 3: 0.3},
    {3: 0.6, 4: 0.4}, {4: 0.8, 5: 0.2}, {1: 0.6, 6: 0.4}, {6: 1},
)  # fmt: skip
GLOBAL = table(
    {0: 1}, {0: 1}, {0: 0.5, 1: 0.5}, {2: 1},
    {3: 0.6, 0: 0.4}, {4: 0.7, 0: 0.3}, {4: 0.8, 3: 0.2}, {4: 0.6, 3: 0.4},
)  # fmt: skip
ALL = torch.ones(8, dtype=torch.bool)
WAAD = f(0, 0.2, 0.5, 2.1, 0.6, 0.8, 1.8, 1)
FAI = f(0.5, 1 / 6, 1 / 3, 0.8 / 3, 0.7, 0, 0, 0)


# ---------------------------------------------------------------- the worked case


def test_numbers_of_eight_tokens() -> None:
    close(waad(LOCAL, ALL, window=3), WAAD)
    close(fai(GLOBAL, ALL, low=1, high=3), FAI)
    close(change(WAAD), [0.2, 0.3, 1.6, 1.5, 0.2, 1, 0.8, 0])


def test_gammas_of_eight_tokens() -> None:
    assert top(change(WAAD), 0.4).nonzero().squeeze(1).tolist() == [2, 3, 5, 6]
    assert top(FAI, 0.4).nonzero().squeeze(1).tolist() == [0, 2, 3, 4]
    close(local_chunk(WAAD), [1, 1, 1.5, 1.5, 1, 1.5, 1.5, 1])
    close(global_anchor(FAI), [1.5, 1, 1.5, 1.5, 1.5, 1, 1, 1])
    # medians 0.7 and 0.55; token 4 is dominated, and its intro, token 2, is an anchor too: the terms add
    assert WAAD.quantile(0.5) == 0.7 and change(WAAD).quantile(0.5) == pytest.approx(0.55)
    close(coupled(WAAD, FAI), [1.5, 1, 1.75, 1.5, 1.25, 1, 1, 1])


def test_it_is_made_of_the_heads_of_one_row() -> None:
    """Two copies of each map as heads of two layers: WAAD and FAI are those of the averaged maps."""
    other = table(*({t: 1.0} for t in range(8)))  # looks at itself alone: the most local head
    layers = [
        heads(torch.stack([LOCAL, GLOBAL]), ALL, window=3, low=1, high=3),
        heads(torch.stack([GLOBAL, other]), ALL, window=3, low=1, high=3),
    ]
    # spans: LOCAL 1.025, GLOBAL 1.6875, itself 0; half of four heads is two
    got_waad, got_fai = rhythm(layers, share=0.5)
    close(got_waad, waad((LOCAL + other) / 2, ALL, window=3))
    close(got_fai, FAI)


# ---------------------------------------------------------------- invariants


def test_without_a_gain_it_is_grpo() -> None:
    for gamma in (
        coupled(WAAD, FAI, gain=1.0),
        local_chunk(WAAD, gain=1),
        global_anchor(FAI, gain=1),
    ):
        assert torch.equal(gamma, torch.ones_like(gamma))


def test_nothing_given_back() -> None:
    """With share 0 dominated anchors keep the whole bonus and intros get none: that of the anchors."""
    assert torch.equal(coupled(WAAD, FAI, given=0.0), global_anchor(FAI))
    # with share 1 the anchor keeps nothing
    close(coupled(WAAD, FAI, given=1.0), [1.5, 1, 2.0, 1.5, 1, 1, 1, 1])


def test_the_bonus_is_moved_and_not_made() -> None:
    for given in (0.0, 0.3, 0.5, 1.0):
        close((coupled(WAAD, FAI, given=given) - 1).sum(), (global_anchor(FAI) - 1).sum().item())
    # two anchors that share an intro (token 1, before both 2 and 3): an intro once
    steps, influence = f(0, 0, 5, 5, 5, 5, 5), f(0, 0, 1, 1, 0, 0, 0)
    gamma = coupled(steps, influence, q=2 / 7, near=9, turning=5)
    close(gamma, [1, 1.25, 1.25, 1.25, 1, 1, 1])


def test_bad_answers_are_left_alone() -> None:
    gamma = coupled(WAAD, FAI)
    advantage = f(*[-0.5] * 4, *[0.5] * 4)
    close(amplified(advantage, gamma), [-0.5] * 4 + [0.625, 0.5, 0.5, 0.5])
    bad = torch.full((1, 8), -0.5, dtype=torch.float64)
    logp, mask = torch.linspace(-2, -0.1, 8).double()[None], torch.ones(1, 8, dtype=torch.bool)
    old = torch.full_like(logp, -1.0)
    want = clipped_ratio(logp, old, bad, mask)
    assert torch.equal(clipped_ratio(logp, old, amplified(bad, gamma[None]), mask), want)


def test_window_and_its_first_maximum() -> None:
    # token 0 has no token before it; of equal changes the first is the intro; `before` bounds how far back
    steps, influence = f(0, 4, 0, 0, 0), f(0, 0, 0, 1, 0)  # changes 4, 4, 0, 0, 0
    for before, gamma in (
        (1, [1, 1, 1, 1.5, 1]),
        (2, [1, 1.25, 1, 1.25, 1]),
        (3, [1.25, 1, 1, 1.25, 1]),
    ):
        close(coupled(steps, influence, q=0.2, before=before, near=0.0, turning=4.0), gamma)
    first = coupled(f(0, 4), f(1, 0), q=0.5, near=0.0, turning=0.0)
    close(first, [1.5, 1])


def test_spans() -> None:
    previous = torch.diag(torch.ones(7, dtype=torch.float64), -1)
    assert head_span(previous, torch.arange(8) >= 1) == 1.0
    assert head_span(previous, ALL) == 7 / 8  # token 0 has nobody before it
    close(head_span(torch.stack([LOCAL, GLOBAL]), ALL), [8.2 / 8, 13.5 / 8])
    local, far = local_and_global(f(3, 1, 2, 0, 5, 4, 9, 8, 7, 6))
    assert local.tolist() == [3, 1, 2] and far.tolist() == [8, 7, 6]
    # rounded up, so that one head is both
    assert [x.tolist() for x in local_and_global(f(1))] == [[0], [0]]
    assert local_and_global(f(2, 2, 2))[0].tolist() == [0]


def test_the_prompt_is_looked_at_and_does_not_look() -> None:
    """Two prompt tokens in front: distances into them count, their own rows do not."""
    maps = torch.rand(10, 10, generator=torch.Generator().manual_seed(0)).double().tril()
    maps = maps / maps.sum(1, keepdim=True)
    response = torch.arange(10) >= 2
    other = maps.clone()
    other[:2] = table({0: 1}, {0: 1}, *[{}] * 8)[:2]
    assert torch.equal(waad(maps, response), waad(other, response))
    assert torch.equal(fai(maps, response, low=1, high=4), fai(other, response, low=1, high=4))
    assert torch.equal(head_span(maps, response), head_span(other, response))
    back = (torch.arange(10)[:, None] - torch.arange(10)).clamp(min=0)
    close(waad(maps, response, window=4), (maps * back.clamp(max=4)).sum(1)[2:], atol=1e-12)


def test_influence_is_that_on_the_answer_in_reach() -> None:
    maps = torch.rand(9, 9, generator=torch.Generator().manual_seed(1)).double().tril()
    response = torch.tensor([False, True, True, False, True, True, True, False, True])
    want = []
    for s in response.nonzero().squeeze(1).tolist():
        seen = [maps[t, s] for t in range(s + 2, min(9, s + 5)) if response[t]]
        want.append(float(sum(seen) / len(seen)) if seen else 0.0)
    close(fai(maps, response, low=2, high=4), want, atol=1e-12)
    with pytest.raises(ValueError, match="low=0, high=3"):
        fai(maps, response, low=0, high=3)


def test_ties_and_empty_answers() -> None:
    assert top(f(1, 1, 1, 1), 0.5).tolist() == [True, True, False, False]
    assert top(f(*range(10)), 0.7).sum() == 7  # 0.7 * 10 is a little more than 7
    assert top(f(5), 0.4).tolist() == [True]
    nothing = torch.zeros(8, dtype=torch.bool)
    empty = heads(LOCAL[None], nothing)
    assert empty.span.tolist() == [0.0] and empty.waad.shape == empty.fai.shape == (1, 0)
    for gamma in (coupled(f(), f()), local_chunk(f()), global_anchor(f())):
        assert gamma.shape == (0,)
    close(coupled(f(0), f(0)), [1.5])  # one token is the anchor of its answer
    with pytest.raises(ValueError, match=r"maps has shape \[8, 8\], response has shape \[3\]"):
        waad(LOCAL, ALL[:3])


def test_layers() -> None:
    assert middle_layers(36) == [12, 15, 18, 21, 24]
    assert middle_layers(28) == [9, 11, 14, 16, 18]
    assert middle_layers(2) == [0, 1] and middle_layers(1) == [0]


# ---------------------------------------------------------------- the maps of a model

TOKENS = torch.tensor([[5, 9, 200, 31, 7, 5, 11], [8, 5, 9, 300, -1, -1, -1], [-1] * 7])


def recomputed(model: Any, ids: Tensor, layer: int) -> Tensor:
    """softmax(q k / sqrt d) of one layer, from the inputs that its attention was called with."""
    module = model.base_model.layers[layer].self_attn
    seen: dict[str, Any] = {}
    hook = module.register_forward_pre_hook(
        lambda _, args, kwargs: seen.update(kwargs), with_kwargs=True
    )
    with torch.no_grad():
        model.base_model(input_ids=ids[None], use_cache=False)
        hook.remove()
        hidden, (cos, sin) = seen["hidden_states"], seen["position_embeddings"]
        split = (1, len(ids), -1, module.head_dim)
        query = module.q_norm(module.q_proj(hidden).view(split)).transpose(1, 2)
        key = module.k_norm(module.k_proj(hidden).view(split)).transpose(1, 2)
        query, key = apply_rotary_pos_emb(query, key, cos, sin)
        key = key.repeat_interleave(module.num_key_value_groups, dim=1)
        scores = query @ key.transpose(2, 3) * module.scaling
        future = torch.ones(len(ids), len(ids)).triu(1).bool()
        return scores.masked_fill(future, -torch.inf).softmax(-1)[0]


def test_maps_are_the_softmax_of_the_scores() -> None:
    model = tiny_model()
    made = attention_maps(model, TOKENS, [0, 1])
    assert [len(row) for row in made] == [2, 2, 0]
    for row, layer in itertools.product((0, 1), (0, 1)):
        ids = TOKENS[row][TOKENS[row] >= 0]
        maps = made[row][layer]
        assert maps.shape == (4, len(ids), len(ids)) and not maps.requires_grad
        torch.testing.assert_close(maps, recomputed(model, ids, layer), atol=1e-5, rtol=0)
        torch.testing.assert_close(maps.sum(-1), torch.ones(4, len(ids)), atol=1e-5, rtol=0)
        assert (maps.triu(1) == 0).all()
    assert (made[0][0] - made[0][1]).abs().max() > 0.01  # layers are not mixed up
    assert torch.equal(attention_maps(model, TOKENS, [1])[0][0], made[0][1])


def test_the_kernel_of_training_is_neither_seen_nor_changed() -> None:
    model = tiny_model()
    want = attention_maps(model, TOKENS, [1])
    ids = TOKENS[:1]
    for kernel in ("sdpa", "eager"):
        model.set_attn_implementation(kernel)
        model.train()
        with torch.no_grad():
            before = model(input_ids=ids).logits
            made = attention_maps(model, TOKENS, [1])
            assert torch.equal(model(input_ids=ids).logits, before)
        assert model.config._attn_implementation == kernel and model.training
        assert torch.equal(made[0][0], want[0][0]) and torch.equal(made[1][0], want[1][0])


def test_maps_are_read_as_they_come() -> None:
    response = TOKENS >= 0
    response[:, :2] = False

    def read(row: int, maps: Tensor) -> Any:
        return heads(maps, response[row, : maps.shape[-1]], low=1, high=4)

    layers = attention_maps(tiny_model(), TOKENS, middle_layers(2), read)[0]
    near, far = rhythm(layers)
    gamma = coupled(near, far)
    assert gamma.shape == (5,) and gamma.isfinite().all()
    assert gamma.min() >= 1.0 and gamma.max() > 1.0


def test_maps_that_cannot_be_had() -> None:
    model = tiny_model()
    with pytest.raises(ValueError, match=r"no attention in layers \[7\]; give some of \[0, 1\]"):
        attention_maps(model, TOKENS, [0, 7])

    def broken(row: int, maps: Tensor) -> Any:
        raise RuntimeError("no")

    before = model.config._attn_implementation
    with pytest.raises(RuntimeError, match="no"):
        attention_maps(model, TOKENS, [0], broken)
    assert model.config._attn_implementation == before
    assert all(
        not module._forward_hooks for module in model.modules() if hasattr(module, "layer_idx")
    )
