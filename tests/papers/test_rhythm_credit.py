"""Card attention-rhythm, from the maps of a model to the advantage: the probe, the controls and the credit."""

from __future__ import annotations

import math
from dataclasses import replace
from functools import partial

import pytest
import torch
from tests.conformance.policy_cases import CASES, build
from torch import Tensor

from ludus.advantages.credit import GRPO
from ludus.advantages.scaled import Scaled
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.losses.clipped import clipped_ratio
from ludus.losses.objective import Objective
from ludus.models import tiny
from ludus.models.attention_maps import attention_maps
from ludus.models.probes import entropy
from ludus.models.rhythm import Highest, Rhythm, chance
from ludus.types import Batch, Optim
from ludus.weights.attention_rhythm import coupled, global_anchor, heads, middle_layers, rhythm

SIZE = tiny.Size(hidden=32, layers=4, heads=4, shared=2, head=8, inner=64)
MODEL = CausalModel(tiny.model(SIZE, 128, seed=3))
LENGTHS = ((3, 9), (2, 12), (4, 5), (3, 9), (2, 12), (5, 1))  # of prompt and answer, in rows
SMALL = Rhythm(window=3, low=1, high=4)


def batch() -> Batch:
    """Three groups of two rows, of different lengths and rewards."""
    width = max(sum(pair) for pair in LENGTHS)
    rng = torch.Generator().manual_seed(0)
    tokens = torch.full((len(LENGTHS), width), -1)
    mask = torch.zeros(tokens.shape, dtype=torch.bool)
    for row, (prompt, answer) in enumerate(LENGTHS):
        tokens[row, : prompt + answer] = torch.randint(6, 120, (prompt + answer,), generator=rng)
        mask[row, prompt : prompt + answer] = True
    return Batch(
        tokens=tokens,
        mask=mask,
        logp=torch.where(mask, -torch.rand(tokens.shape, generator=rng), 0.0),
        turn=torch.where(mask, 0, -1),
        rollout=torch.arange(len(LENGTHS)),
        group=torch.tensor([0, 0, 1, 1, 2, 2]),
        reward=torch.tensor([1.0, 0, 0, 1, 1, 0]),
        scored=torch.ones(len(LENGTHS), dtype=torch.bool),
        turn_reward=torch.zeros(len(LENGTHS), 1),
    )


PROBES = {
    "coupled": SMALL,
    "anchors": replace(SMALL, gamma=lambda waad, fai: global_anchor(fai)),
    "chance": Highest(chance),
    "entropy": Highest(entropy),
}


@pytest.mark.parametrize("name", PROBES)
def test_gamma_does_not_depend_on_how_the_batch_is_cut(name: str) -> None:
    whole = PROBES[name](MODEL, batch())
    for cut in ([[0], [1], [2], [3], [4], [5]], [[5, 2], [0, 3, 1], [4]]):
        for rows in cut:
            part = batch().rows(torch.tensor(rows))
            made = PROBES[name](MODEL, part)
            torch.testing.assert_close(made, whole[rows][:, : made.shape[1]])


@pytest.mark.parametrize("pass_tokens", [12, 30, 8192])
def test_the_learner_fills_it_in_pass_by_pass(pass_tokens: int) -> None:
    objective = Objective(partial(clipped_ratio, low=0.2, high=0.2))
    optim = Optim(pass_tokens=pass_tokens)
    learner = LocalLearner(MODEL.copy(), objective, optim, probes={"rhythm": SMALL})
    kernel = learner.model.module.config._attn_implementation
    made = learner.annotate(batch())
    torch.testing.assert_close(made.probes["rhythm"], SMALL(MODEL, batch()))
    assert learner.model.module.config._attn_implementation == kernel


def test_the_probe_is_the_formulas_on_the_middle_layers() -> None:
    made, given = SMALL(MODEL, batch()), batch()
    chosen = middle_layers(4)
    assert chosen == [1, 2]
    for row in range(len(given)):
        ids = given.tokens[row][given.tokens[row] >= 0]
        maps = attention_maps(MODEL.module, ids[None], chosen)[0]
        response = given.mask[row, : len(ids)]
        layers = [heads(each, response, window=3, low=1, high=4) for each in maps]
        torch.testing.assert_close(made[row][given.mask[row]], coupled(*rhythm(layers)))
    assert (made[~given.mask] == 0).all() and (made[given.mask] >= 1).all()


def test_random_tokens_have_the_budget_of_anchors() -> None:
    given = batch()
    for name in ("anchors", "chance", "entropy"):
        gamma = PROBES[name](MODEL, given)
        bonus = ((gamma - 1) * given.mask).sum(1)
        assert bonus.tolist() == [0.5 * math.ceil(0.4 * n) for _, n in LENGTHS], name
    again = replace(given, logp=given.logp * 1.01)  # the same answers of other weights
    assert not torch.equal(chance(MODEL, again), chance(MODEL, given))
    most = Highest(entropy)(MODEL, given)[0][given.mask[0]]
    measured = entropy(MODEL, given)[0][given.mask[0]]
    assert measured[most > 1].min() >= measured[most == 1].max()


def scaled(gamma: Tensor, made: Batch) -> Tensor:
    probed = replace(made, probes={"rhythm": gamma})
    return Scaled(GRPO(), "rhythm").assign((), probed)[1].advantage


def test_only_what_was_good_is_amplified() -> None:
    made = batch()
    gamma = SMALL(MODEL, made)
    plain, credited = GRPO()(made).advantage, scaled(gamma, made)
    good = (plain > 0).any(1)
    assert good.tolist() == [True, False, False, True, True, False]
    assert torch.equal(credited[~good], plain[~good])
    torch.testing.assert_close(credited[good], (gamma * plain)[good])
    assert credited[good].sum() > plain[good].sum()


@pytest.mark.parametrize("case", CASES)
def test_a_gain_of_one_is_the_credit_itself(case: str) -> None:
    """Whatever the batch: lost rollouts, silent ones, several contexts, NaN where the policy wrote nothing."""
    made = build(CASES[case])
    torch.testing.assert_close(scaled(made.mask.float(), made), GRPO()(made).advantage)


def test_a_probe_that_is_not_there() -> None:
    with pytest.raises(ValueError, match="Scaled reads the probe 'rhythm', and there is none"):
        Scaled(GRPO(), "rhythm").assign((), batch())
    with pytest.raises(NotImplementedError, match="pictures or vectors"):
        SMALL(MODEL, replace(batch(), inputs={200: torch.zeros(32).numpy()}))
