"""Our losses and averages against TRL's own code, on random tensors; where TRL differs, a line says why.

TRL's formulas stand inside methods of its trainers. The losses are reached by calling the method on an object that
holds nothing but the settings it reads; the advantages stand in the middle of a method that also generates, so those
are compared with their documented formula over TRL's own `nanstd`.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

pytest.importorskip("trl")
from trl.trainer.grpo_trainer import GRPOTrainer
from trl.trainer.rloo_trainer import RLOOTrainer
from trl.trainer.utils import entropy_from_logits, nanstd

from ludus.advantages import relative
from ludus.losses.cispo import cispo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.entropy import entropy
from ludus.losses.gspo import gspo
from ludus.losses.kl import k3, k3_weighted
from ludus.losses.reinforce import reinforce
from ludus.weights.average import Over, average
from ludus.weights.importance import masked, truncated

B, T = 6, 9


class OneProcess:
    """The part of accelerate's Accelerator that a loss uses to log."""

    num_processes = 1

    def reduce(self, tensor: Tensor, reduction: str = "sum") -> Tensor:
        return tensor

    def gather(self, tensor: Tensor) -> Tensor:
        return tensor


def settings(logp: Tensor, **changes: Any) -> Any:
    """What `_compute_loss` reads of a trainer, at TRL's defaults; the model's answer is `logp`."""
    zeros = torch.zeros_like(logp)
    defaults = {
        "_get_per_token_logps_and_entropies": lambda *_, **__: (logp, zeros, None),
        "_metrics": defaultdict(lambda: defaultdict(list)),
        "_entropy_bonus_enabled": False,
        "accelerator": OneProcess(),
        "args": SimpleNamespace(delta=None, use_bias_correction_kl=False, steps_per_generation=1),
        "aux_loss_enabled": False,
        "beta": 0.0,
        "current_gradient_accumulation_steps": 1,
        "epsilon_high": 0.2,
        "epsilon_low": 0.2,
        "importance_sampling_level": "token",
        "loss_type": "grpo",
        "max_completion_length": 16,
        "model": SimpleNamespace(training=True),
        "off_policy_mask_threshold": None,
        "top_entropy_quantile": 1.0,
        "use_vllm": False,
        "vllm_importance_sampling_correction": False,
    }
    return SimpleNamespace(**(defaults | changes))


class Sample:
    """Random answers with gaps, off-policy by about half a nat a token, so that every clip is met."""

    def __init__(self, seed: int) -> None:
        generator = torch.Generator().manual_seed(seed)
        noise = torch.randn(3, B, T, generator=generator)
        self.mask = torch.rand(B, T, generator=generator) < 0.7
        self.mask[:, 0] = True
        self.logp = (-1.5 + 0.4 * noise[0]).requires_grad_()
        self.old = self.logp.detach() + 0.3 * noise[1]
        self.ref = self.logp.detach() + 0.3 * noise[2]
        self.per_answer = torch.randn(B, generator=generator)
        self.advantage = self.per_answer[:, None].expand(B, T)

    def theirs(self, ratio: Tensor | None = None, **changes: Any) -> tuple[Tensor, Tensor]:
        nothing = torch.zeros(B, 0)
        batch = {
            "prompt_ids": nothing,
            "prompt_mask": nothing,
            "completion_ids": torch.zeros(B, T),
            "completion_mask": self.mask.float(),
            "advantages": self.per_answer,
            "old_per_token_logps": self.old,
            "ref_per_token_logps": self.ref,
            "num_items_in_batch": self.mask.sum(),
            "importance_sampling_ratio": ratio,
        }
        loss = GRPOTrainer._compute_loss(settings(self.logp, **changes), None, batch)
        return loss.detach(), torch.autograd.grad(loss, self.logp)[0]

    def ours(self, loss: Callable[..., Tensor], over: Over) -> tuple[Tensor, Tensor]:
        value = loss(self.logp, self.old, self.advantage, self.mask)
        number = average(value, self.mask, over=over)
        return number.detach(), torch.autograd.grad(number, self.logp)[0]


def agree(got: tuple[Tensor, Tensor], want: tuple[Tensor, Tensor]) -> None:
    assert want[1].any()
    torch.testing.assert_close(got[0], want[0], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(got[1], want[1], atol=1e-6, rtol=1e-5)


# name, our loss, our average, TRL's settings
ROWS: list[tuple[str, Callable[..., Tensor], Over, dict[str, Any]]] = [
    ("grpo", clipped_ratio, "answers", {}),
    ("bnpo", clipped_ratio, "tokens", {"loss_type": "bnpo"}),
    ("dr_grpo", clipped_ratio, 16, {"loss_type": "dr_grpo"}),
    (
        "dapo",
        partial(clipped_ratio, low=0.2, high=0.28),
        "tokens",
        {"loss_type": "dapo", "epsilon_high": 0.28},
    ),
    # TRL reads epsilon_high of CISPO as the bound itself, as `upper` here
    ("cispo", partial(cispo, upper=1.4), "tokens", {"loss_type": "cispo", "epsilon_high": 1.4}),
    (
        "gspo",
        partial(gspo, low=0.05, high=0.1),
        "answers",
        {"importance_sampling_level": "sequence", "epsilon_low": 0.05, "epsilon_high": 0.1},
    ),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    ("loss", "over", "changes"), [r[1:] for r in ROWS], ids=[r[0] for r in ROWS]
)
def test_loss(loss: Callable[..., Tensor], over: Over, changes: dict[str, Any], seed: int) -> None:
    sample = Sample(seed)
    agree(sample.ours(loss, over), sample.theirs(**changes))


def test_dual_clip() -> None:
    """TRL's delta caps the ratio, for both signs of A; above 1 + epsilon it only acts where A < 0, as the dual clip."""
    sample = Sample(0)
    args = SimpleNamespace(delta=1.5, use_bias_correction_kl=False, steps_per_generation=1)
    agree(sample.ours(partial(clipped_ratio, dual=1.5), "answers"), sample.theirs(args=args))


@pytest.mark.parametrize("bias_correction", [False, True])
def test_kl_in_the_loss(bias_correction: bool) -> None:
    sample = Sample(1)
    args = SimpleNamespace(
        delta=None, use_bias_correction_kl=bias_correction, steps_per_generation=1
    )

    def ours(logp: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        penalty = (
            k3_weighted(logp, old, sample.ref, mask)
            if bias_correction
            else k3(logp, sample.ref, mask)
        )
        return clipped_ratio(logp, old, advantage, mask) + 0.04 * penalty

    agree(sample.ours(ours, "answers"), sample.theirs(beta=0.04, args=args))


@pytest.mark.parametrize(
    ("mode", "weigh"),
    [
        ("token_truncate", truncated),
        ("token_mask", partial(masked, low=0.5, high=2.0)),
        ("sequence_truncate", partial(truncated, level="sequence")),
        ("sequence_mask", partial(masked, low=0.5, high=2.0, level="sequence")),
    ],
)
def test_sampler_correction_in_the_loss(mode: str, weigh: Callable[..., Tensor]) -> None:
    """TRL makes the ratio inline, so it is made here by its formula; what it does to the loss is TRL's own code."""
    sample = Sample(2)
    sampler = sample.old + 0.4 * torch.randn(B, T, generator=torch.Generator().manual_seed(3))
    difference = (sample.old - sampler) * sample.mask
    if mode.startswith("sequence"):
        difference = difference.sum(-1, keepdim=True)
    ratio = difference.exp()
    out_of_bounds = (ratio < 0.5) | (ratio > 2.0)
    assert out_of_bounds.any() and not out_of_bounds.all()
    cut = ratio.clamp(max=2.0) if mode.endswith("truncate") else ratio * ~out_of_bounds

    def ours(logp: Tensor, old: Tensor, advantage: Tensor, mask: Tensor) -> Tensor:
        return clipped_ratio(logp, old, advantage, mask) * weigh(old, sampler, mask)

    on = {"use_vllm": True, "vllm_importance_sampling_correction": True}
    agree(sample.ours(ours, "answers"), sample.theirs(cut, **on))


def test_rloo_on_policy() -> None:
    """RLOO in TRL takes the whole answer as one action: its ratio is the product over the tokens, and clipped.

    On policy the ratio is 1 and the gradient is REINFORCE's, summed over the tokens of an answer.
    """
    sample = Sample(4)
    nothing = torch.zeros(B, 0)
    batch = {
        "prompt_ids": nothing,
        "prompt_mask": nothing,
        "completion_ids": torch.zeros(B, T),
        "completion_mask": sample.mask.float(),
        "advantages": sample.per_answer,
        "old_logps": (sample.logp * sample.mask).sum(1).detach(),
    }
    theirs = RLOOTrainer._compute_loss(settings(sample.logp), None, batch)
    (want,) = torch.autograd.grad(theirs, sample.logp)
    torch.testing.assert_close(sample.ours(reinforce, "answer sums")[1], want)


# ------------------------------------------------------------------ advantages


def test_grpo_and_its_scales() -> None:
    reward = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    group = torch.arange(5).repeat_interleave(4)
    centred = (reward - reward.mean(1, keepdim=True)).flatten()
    per_group = nanstd(reward, dim=1).repeat_interleave(4)
    flat = reward.flatten()
    torch.testing.assert_close(relative.grpo(flat, group, eps=1e-4), centred / (per_group + 1e-4))
    torch.testing.assert_close(
        relative.lite_ppo(flat, group, eps=1e-4), centred / (nanstd(reward) + 1e-4)
    )
    torch.testing.assert_close(relative.dr_grpo(flat, group), centred)


def test_lost_rollouts() -> None:
    """TRL marks what could not be scored by NaN and leaves it out of the mean and deviation, as `scored` does here."""
    reward = torch.randn(5, 4, generator=torch.Generator().manual_seed(1))
    reward[0, 1] = reward[2, 0] = reward[2, 3] = math.nan
    group, scored = torch.arange(5).repeat_interleave(4), ~reward.isnan().flatten()
    centred = reward - reward.nanmean(1, keepdim=True)
    grpo = (centred / (nanstd(reward, dim=1)[:, None] + 1e-4)).nan_to_num(0.0).flatten()
    torch.testing.assert_close(
        relative.grpo(reward.flatten(), group, eps=1e-4, scored=scored), grpo
    )
    others = (reward.nansum(1, keepdim=True) - reward) / (
        (~reward.isnan()).sum(1, keepdim=True) - 1
    )
    rloo = (reward - others).nan_to_num(0.0).flatten()
    torch.testing.assert_close(relative.rloo(reward.flatten(), group, scored=scored), rloo)


def test_a_group_of_one() -> None:
    """TRL sets its deviation to 0, so its advantage is 0 as here; other trainers keep the reward (alone="reward")."""
    reward = torch.tensor([0.7])
    theirs = (reward - reward.mean()) / (torch.zeros_like(reward) + 1e-4)
    assert torch.equal(relative.grpo(reward, torch.tensor([0]), eps=1e-4), theirs)
    assert relative.grpo(reward, torch.tensor([0]), alone="reward") > 0.69


# ------------------------------------------------------------------ entropy


def test_entropy() -> None:
    logits = torch.randn(B, T, 11, generator=torch.Generator().manual_seed(0))
    mask = Sample(0).mask
    torch.testing.assert_close(entropy(logits, mask, chunk=7), entropy_from_logits(logits) * mask)
    torch.testing.assert_close(
        entropy(logits, mask, temperature=0.6), entropy_from_logits(logits / 0.6) * mask
    )
