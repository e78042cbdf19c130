"""Our preference losses against TRL's own code, called on tensors: one value per pair, for random sums and lengths.

TRL computes DPO, IPO, KTO and Bradley-Terry inside its trainers, between a model's log-probabilities and a mean over
the batch. Here its methods run on a stand-in for the model that returns given log-probabilities, one pair at a time.
"""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

os.environ.setdefault("TRL_EXPERIMENTAL_SILENCE", "1")
pytest.importorskip("trl")

from trl.experimental.cpo import CPOTrainer
from trl.experimental.orpo import ORPOTrainer
from trl.trainer.dpo_trainer import DPOTrainer
from trl.trainer.kto_trainer import KTOTrainer
from trl.trainer.reward_trainer import RewardTrainer

from ludus.losses.preference import dpo, ipo, kto, kto_baseline, orpo, sequence_logp, simpo
from ludus.losses.reward_model import bradley_terry

PAIRS, WIDTH = 6, 9
ACCELERATOR = SimpleNamespace(
    device=torch.device("cpu"), gather=lambda x: x, gather_for_metrics=lambda x: x
)


@pytest.fixture
def data() -> dict[str, Tensor]:
    """Per-token log-probabilities [P,T] of policy and reference, and masks; the first column is the prompt."""
    generator = torch.Generator().manual_seed(0)
    found: dict[str, Tensor] = {}
    for side in ("chosen", "rejected"):
        length = torch.randint(1, WIDTH - 1, (PAIRS, 1), generator=generator)
        place = torch.arange(WIDTH)
        found[f"{side}_mask"] = (place >= 1) & (place <= length)
        for who in ("policy", "ref"):
            logp = -2 * torch.rand(PAIRS, WIDTH, generator=generator)
            found[f"{who}_{side}"] = logp * found[f"{side}_mask"]
    return found


def ours(data: dict[str, Tensor]) -> tuple[tuple[Tensor, ...], tuple[Tensor, Tensor]]:
    """The four sums, and the two counts."""
    sums = tuple(
        sequence_logp(data[f"{who}_{side}"], data[f"{side}_mask"])[0]
        for who in ("policy", "ref")
        for side in ("chosen", "rejected")
    )
    return sums, (data["chosen_mask"].sum(1), data["rejected_mask"].sum(1))


def answering(logp: Tensor) -> Callable[..., SimpleNamespace]:
    """A model that has these log-probabilities [B,T]; TRL's leave out the first token, which nothing predicts."""
    rest = logp[:, 1:]
    zeros = torch.zeros_like(rest)
    return lambda **_: SimpleNamespace(
        log_probs=rest, entropy=zeros, mean_logits=zeros, is_top1=zeros.bool()
    )


def trl_dpo(data: dict[str, Tensor], loss_type: str, **settings: float) -> Tensor:
    values = []
    for pair in range(PAIRS):
        row = {name: tensor[pair : pair + 1] for name, tensor in data.items()}
        mask = torch.cat([row["chosen_mask"], row["rejected_mask"]])
        trainer = SimpleNamespace(
            model=SimpleNamespace(training=True),
            ref_model=answering(torch.cat([row["ref_chosen"], row["ref_rejected"]])),
            args=SimpleNamespace(gradient_checkpointing_kwargs=None),
            accelerator=ACCELERATOR,
            aux_loss_enabled=False,
            ld_alpha=None,
            precompute_ref_logps=True,
            f_divergence_type="reverse_kl",
            loss_types=[loss_type],
            loss_weights=[1.0],
            use_weighting=False,
            beta=0.1,
            label_smoothing=0.0,
            _metrics={"train": defaultdict(list)},
            _total_train_tokens=0,
            _tp_size=1,
        )
        vars(trainer).update(settings)
        inputs = {
            "input_ids": torch.zeros_like(mask, dtype=torch.int64),
            "attention_mask": torch.ones_like(mask, dtype=torch.int64),
            "completion_mask": mask.long(),
            "ref_chosen_logps": row["ref_chosen"].sum(1),
            "ref_rejected_logps": row["ref_rejected"].sum(1),
        }
        policy = answering(torch.cat([row["policy_chosen"], row["policy_rejected"]]))
        values.append(_loss(DPOTrainer, trainer, policy, inputs))
    return torch.stack(values)


def _loss(trainer_class: Any, trainer: Any, model: Any, inputs: dict[str, Any]) -> Tensor:
    return trainer_class._compute_loss(trainer, model, inputs, return_outputs=False)


def test_dpo(data: dict[str, Tensor]) -> None:
    sums, _ = ours(data)
    torch.testing.assert_close(dpo(*sums, beta=0.3), trl_dpo(data, "sigmoid", beta=0.3))


def test_smoothing_is_not_what_trl_calls_robust(data: dict[str, Tensor]) -> None:
    """TRL's DPO has no cDPO; its "robust" subtracts the flipped term and rescales, which undoes label noise instead.

    robust = ((1-e) L(delta) - e L(-delta)) / (1-2e); ours, cDPO, is (1-e) L(delta) + e L(-delta).
    """
    e = 0.2
    sums, _ = ours(data)
    flipped = dpo(sums[1], sums[0], sums[3], sums[2])
    smoothed = dpo(*sums, smoothing=e)
    torch.testing.assert_close(
        (smoothed - 2 * e * flipped) / (1 - 2 * e), trl_dpo(data, "robust", label_smoothing=e)
    )


def test_ipo(data: dict[str, Tensor]) -> None:
    """TRL divides each log-ratio by its length; the form with sums is the one of its CPO trainer, with no reference."""
    sums, counts = ours(data)
    torch.testing.assert_close(ipo(*sums, counts=counts), trl_dpo(data, "ipo"))
    zero = torch.zeros(PAIRS)
    torch.testing.assert_close(
        ipo(sums[0], sums[1], zero, zero), trl_cpo(sums[0], sums[1], "ipo", beta=0.1)
    )


def trl_cpo(chosen: Tensor, rejected: Tensor, loss_type: str, **settings: float) -> Tensor:
    trainer = SimpleNamespace(
        alpha=0.0, loss_type=loss_type, label_smoothing=0.0, accelerator=ACCELERATOR
    )
    vars(trainer).update(settings)
    losses, _, _ = CPOTrainer.cpo_loss(trainer, chosen, rejected)  # type: ignore[arg-type]
    return losses


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_simpo(data: dict[str, Tensor], smoothing: float) -> None:
    """TRL's function takes means, ours sums and counts; its gamma is in the same scaled units."""
    sums, counts = ours(data)
    theirs = trl_cpo(
        sums[0] / counts[0],
        sums[1] / counts[1],
        "simpo",
        beta=2.5,
        simpo_gamma=1.0,
        label_smoothing=smoothing,
    )
    torch.testing.assert_close(
        simpo(sums[0], sums[1], counts, beta=2.5, gamma=1.0, smoothing=smoothing), theirs
    )


def test_orpo(data: dict[str, Tensor]) -> None:
    """The odds-ratio term is TRL's, to its sign. The likelihood term differs twice there.

    TRL's runs over the prompt as well as the answer, and is a mean over all tokens of the batch; the paper's and
    ours is over the answer. TRL has no clamp, so its loss is infinite for an answer of probability 1.
    """
    sums, counts = ours(data)
    trainer = SimpleNamespace(beta=0.1, accelerator=ACCELERATOR)
    means = sums[0] / counts[0], sums[1] / counts[1]
    bonus = ORPOTrainer.odds_ratio_loss(trainer, *means)[0]  # type: ignore[arg-type]
    torch.testing.assert_close(orpo(sums[0], sums[1], counts), -means[0] - bonus)

    certain = torch.zeros(1), means[1][:1]
    assert not ORPOTrainer.odds_ratio_loss(trainer, *certain)[4].isfinite()  # type: ignore[arg-type]
    assert orpo(certain[0], sums[1][:1], (counts[0][:1], counts[1][:1])).isfinite().all()


@pytest.mark.parametrize("shift", [0.0, 20.0], ids=["baseline above 0", "baseline held at 0"])
def test_kto(data: dict[str, Tensor], shift: float) -> None:
    """The mean over the batch: TRL has that alone. Its baseline, too, is a mean over ranks held at 0 from below."""
    policy, reference = data["policy_chosen"].sum(1), data["ref_chosen"].sum(1)
    mismatched = data["policy_rejected"].sum(1) + 8 - shift
    ref_mismatched = data["ref_rejected"].sum(1)
    label = torch.tensor([True, False, True, True, False, False])
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        aux_loss_enabled=False,
        precompute_ref_logps=True,
        calculate_KL=True,
        loss_type="kto",
        beta=0.1,
        desirable_weight=1.0,
        undesirable_weight=1.5,
        _compute_kl_logps=lambda model, batch: mismatched,
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    inputs = {
        "input_ids": torch.zeros(PAIRS, WIDTH, dtype=torch.int64),
        "attention_mask": torch.ones(PAIRS, WIDTH, dtype=torch.int64),
        "completion_mask": data["chosen_mask"].long(),
        "label": label,
        "ref_logps": reference,
        "ref_KL_logps": ref_mismatched,
    }
    theirs = _loss(KTOTrainer, trainer, answering(data["policy_chosen"]), inputs)
    baseline = kto_baseline(mismatched, ref_mismatched)
    assert (baseline > 0) == (shift == 0.0)
    loss = kto(policy, reference, label, baseline, weight_undesirable=1.5)
    torch.testing.assert_close(loss.mean(), theirs)


def test_bradley_terry() -> None:
    """The mean over the batch, margin and centring included."""
    generator = torch.Generator().manual_seed(1)
    chosen, rejected = torch.randn(2, PAIRS, generator=generator)
    margin = torch.rand(PAIRS, generator=generator)
    trainer = SimpleNamespace(
        model=SimpleNamespace(training=True),
        accelerator=ACCELERATOR,
        args=SimpleNamespace(center_rewards_coefficient=0.01),
        _metrics={"train": defaultdict(list)},
        _total_train_tokens=0,
        _tp_size=1,
    )
    logits = torch.cat([chosen, rejected])[:, None]
    inputs = {"attention_mask": torch.ones(2 * PAIRS, 1), "margin": margin}
    theirs = RewardTrainer.compute_loss(
        trainer,  # type: ignore[arg-type]
        lambda **_: SimpleNamespace(logits=logits),  # type: ignore[arg-type]
        inputs,
    )
    loss = bradley_terry(chosen, rejected, margin=margin, centring=0.01)
    torch.testing.assert_close(loss.mean(), theirs)
