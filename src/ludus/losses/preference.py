"""Losses on comparisons: of a better and a worse answer to one prompt, or of answers marked good or bad.

They see an answer as one number, its log-probability, summed over the tokens that the policy wrote; those that want a
mean per token take the counts as well. One value per pair [P] comes back, to be minimised, never averaged; extra terms
(the chosen answer's -log pi / n, say) are added by the recipe with their own weight.

    loss     sum or mean        reference   falls until
    dpo      sums               yes         never: log-sigmoid
    ipo      sums, or means     yes         the gap is 1 / (2 beta)
    simpo    means              no          never: log-sigmoid
    orpo     means              no          never: log-sigmoid, beside -log pi of the chosen
    kto      sums, no pairs     yes         a value function saturates

    pi, ref  summed log-probability of policy and reference;  delta = (pi_w - ref_w) - (pi_l - ref_l)
    w, l     chosen (won) and rejected (lost)
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from ludus.tensors import blank, check_tokens, check_vectors


def sequence_logp(logp: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Each row's summed log-probability and how many tokens went into it.

    Args:     logp [B,T], mask [B,T] bool: the tokens that the answer consists of; prompt, observations and padding
              are False.
    Returns:  sum [B] (float32 or wider), count [B] int64; 0 and 0 for an empty row.
    """
    check_tokens(mask, logp=logp)
    wide = torch.promote_types(logp.dtype, torch.float32)
    return blank(logp, mask).sum(1, dtype=wide), mask.sum(1)


def dpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float | Tensor = 0.1,
    smoothing: float = 0.0,
) -> Tensor:
    """Direct preference optimisation. arXiv:2305.18290; smoothing: cDPO, ericmitchell.ai/cdpo.pdf.

        -(1 - smoothing) log sigmoid(beta delta) - smoothing log sigmoid(-beta delta)

    The gradient is beta sigmoid(-beta delta) (grad log pi_w - grad log pi_l) without smoothing. Only the gap is
    pushed: log pi_w may fall while the loss does. Smoothing is the probability that a label is flipped; with it the
    loss has a minimum, at sigmoid(beta delta) = 1 - smoothing.

    Args:     sums, each [P]; beta > 0 (or [P], a temperature for each pair, not differentiated), smoothing in [0, 0.5).
    Returns:  [P]; log 2 where policy and reference agree.
    """
    delta = _delta(chosen, rejected, ref_chosen, ref_rejected)
    if isinstance(beta, Tensor):
        check_vectors("chosen", chosen, beta=beta)
        beta = beta.detach()
    else:
        _positive(beta=beta)
    _smoothing(smoothing)
    return -(1 - smoothing) * logsigmoid(beta * delta) - smoothing * logsigmoid(-beta * delta)


def implicit_reward(logp: Tensor, ref_logp: Tensor, *, beta: float = 0.1) -> Tensor:
    """beta (log pi - log ref): the reward that DPO's policy is optimal for, up to a constant per prompt. To report.

    Args:     sums, each [P].   Returns:  [P], without gradient.
    """
    check_vectors("logp", logp, ref_logp=ref_logp)
    return beta * (logp - ref_logp).detach()


def ipo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    counts: tuple[Tensor, Tensor] | None = None,
    beta: float = 0.1,
) -> Tensor:
    """Identity preference optimisation. arXiv:2310.12036, eq. 17 (beta is its tau).

        (delta - 1 / (2 beta))^2

    Unlike DPO's its gradient vanishes at a finite gap, so pairs that are always won do not run away. The paper's theory
    is about sums (counts=None). Its experiments, as the authors confirmed, divided each log-ratio by the length of its
    answer: with counts, delta is the difference of the means, and the same beta is a much stronger pull.

    Args:     sums, each [P]; counts: tokens of (chosen, rejected), each [P]; beta > 0.
    Returns:  [P].
    """
    _positive(beta=beta)
    if counts is None:
        delta = _delta(chosen, rejected, ref_chosen, ref_rejected)
    else:
        delta = _delta(
            _mean(chosen, counts[0]),
            _mean(rejected, counts[1]),
            _mean(ref_chosen, counts[0]),
            _mean(ref_rejected, counts[1]),
        )
    return (delta - 1 / (2 * beta)) ** 2


def simpo(
    chosen: Tensor,
    rejected: Tensor,
    counts: tuple[Tensor, Tensor],
    *,
    beta: float = 2.0,
    gamma: float = 1.0,
    smoothing: float = 0.0,
) -> Tensor:
    """Simple preference optimisation, without a reference. arXiv:2405.14734.

        -log sigmoid(beta (pi_w / n_w - pi_l / n_l) - gamma)

    gamma is the margin in scaled units: 0.3 to 0.5 of beta is usual, beta 2 to 2.5 (up to 10).

    Args:     sums, each [P]; counts: tokens of (chosen, rejected), each [P]; beta > 0; smoothing as in `dpo`.
    Returns:  [P].
    """
    _positive(beta=beta)
    _smoothing(smoothing)
    check_vectors("chosen", chosen, rejected=rejected)
    gap = beta * (_mean(chosen, counts[0]) - _mean(rejected, counts[1])) - gamma
    return -(1 - smoothing) * logsigmoid(gap) - smoothing * logsigmoid(-gap)


def orpo(
    chosen: Tensor, rejected: Tensor, counts: tuple[Tensor, Tensor], *, weight: float = 0.1
) -> Tensor:
    """Odds-ratio preference optimisation: fine-tuning and preference in one stage, no reference. arXiv:2403.07691.

        -p_w - weight log sigmoid(log odds_w - log odds_l)
        p = pi / n,   log odds = p - log(1 - exp p)

    weight 0 is supervised fine-tuning on the chosen, a mean per answer. An answer of probability 1 has infinite odds:
    p is held below -1e-6, where its gradient ends.

    Args:     sums, each [P]; counts: tokens of (chosen, rejected), each [P]; weight >= 0 (the paper's lambda).
    Returns:  [P].
    """
    if weight < 0:
        raise ValueError(f"weight is {weight:g}; give 0 or more")
    check_vectors("chosen", chosen, rejected=rejected)
    won, lost = _mean(chosen, counts[0]), _mean(rejected, counts[1])
    return -won - weight * logsigmoid(_log_odds(won) - _log_odds(lost))


def kto(
    logp: Tensor,
    ref_logp: Tensor,
    desirable: Tensor,
    baseline: Tensor,
    *,
    beta: float = 0.1,
    weight_desirable: float = 1.0,
    weight_undesirable: float = 1.0,
) -> Tensor:
    """Kahneman-Tversky optimisation: answers marked good or bad, without pairs. arXiv:2402.01306.

        desirable     weight (1 - sigmoid(beta (rho - z)))        rho = log pi - log ref
        undesirable   weight (1 - sigmoid(beta (z - rho)))        z = baseline

    Gains and losses are measured from z, how far the policy has moved on the whole (`kto_baseline`). Uneven data want
    weights: see `kto_undesirable_weight`.

    Args:     logp, ref_logp: sums, each [P]; desirable [P] bool; baseline: one number; beta > 0.
    Returns:  [P], one value per answer.
    """
    _positive(beta=beta)
    check_vectors("logp", logp, ref_logp=ref_logp, desirable=desirable)
    if desirable.dtype != torch.bool:
        raise TypeError(f"desirable has dtype {desirable.dtype}; give torch.bool: reward > 0, say")
    ahead = beta * (logp - ref_logp - baseline.detach())
    return torch.where(
        desirable,
        weight_desirable * torch.sigmoid(-ahead),
        weight_undesirable * torch.sigmoid(ahead),
    )


def kto_baseline(logp: Tensor, ref_logp: Tensor) -> Tensor:
    """z = max(0, mean of log pi - log ref over mismatched answers): an estimate of KL(policy || reference).

    Mismatched: each prompt of the batch with the answer to another one, which takes a batch of two or more. Over
    several ranks the mean is of all of them.

    Args:     logp, ref_logp: sums, each [M], M >= 1.   Returns:  one number >= 0, without gradient.
    """
    check_vectors("logp", logp, ref_logp=ref_logp)
    if not len(logp):
        raise ValueError("no mismatched answers; give each prompt the answer to the next one")
    return (logp - ref_logp).detach().mean().clamp(min=0)


def kto_undesirable_weight(
    desirable: int, undesirable: int, *, weight_desirable: float = 1.0
) -> tuple[float, float]:
    """The range of weight_undesirable for which the desirable weigh 1 to 4/3 times the undesirable, in all.

    The paper's advice for uneven data.   Args:  how many of each.   Returns:  (lowest, highest).
    """
    if desirable < 1 or undesirable < 1:
        raise ValueError(
            f"{desirable} desirable and {undesirable} undesirable answers; KTO wants some of both"
        )
    highest = weight_desirable * desirable / undesirable
    return highest * 3 / 4, highest


def _delta(chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor) -> Tensor:
    check_vectors(
        "chosen", chosen, rejected=rejected, ref_chosen=ref_chosen, ref_rejected=ref_rejected
    )
    return (chosen - ref_chosen) - (rejected - ref_rejected)


def _mean(total: Tensor, count: Tensor) -> Tensor:
    """Sum to mean; an answer without tokens has sum 0 and mean 0."""
    check_vectors("sum", total, count=count)
    return total / count.clamp(min=1)


def _log_odds(p: Tensor) -> Tensor:
    """log(P / (1 - P)) of log P: log1p is exact for small P, expm1 for P near 1."""
    p = p.clamp(max=-1e-6)
    small = p < -0.6931  # P < 1/2
    # Each branch sees only its own inputs, since the unused one's gradient would be 0 times infinity.
    log_rest = torch.where(
        small,
        torch.log1p(-torch.exp(torch.where(small, p, -1.0))),
        torch.log(-torch.expm1(torch.where(small, -0.1, p))),
    )
    return p - log_rest


def _positive(**settings: float) -> None:
    for name, value in settings.items():
        if not value > 0:
            raise ValueError(f"{name} is {value:g}; give a number above 0")


def _smoothing(smoothing: float) -> None:
    if not 0 <= smoothing < 0.5:
        raise ValueError(
            f"smoothing is {smoothing:g}; give the share of flipped labels, at least 0 and below 0.5"
        )
