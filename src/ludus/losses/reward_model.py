"""Learning a reward from comparisons."""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import logsigmoid

from ludus.tensors import check_vectors


def bradley_terry(
    chosen: Tensor, rejected: Tensor, *, margin: float | Tensor = 0.0, centring: float = 0.0
) -> Tensor:
    """The chance that the better answer wins, by the Bradley-Terry model. arXiv:2203.02155; margin: arXiv:2307.09288.

        -log sigmoid(r_w - r_l - margin) + centring (r_w + r_l)^2

    The first term does not change if a prompt's answers all gain the same reward, so rewards of different prompts may
    drift apart; the second, arXiv:2312.09244, holds them around 0 (0.01 is usual).

    Args:     chosen, rejected [P] rewards; margin >= 0 (or [P]): how much better the chosen should be.
    Returns:  [P] to be minimised, never averaged.
    """
    check_vectors("chosen", chosen, rejected=rejected)
    if isinstance(margin, Tensor):
        check_vectors("chosen", chosen, margin=margin)
    return -logsigmoid(chosen - rejected - margin) + centring * (chosen + rejected) ** 2
