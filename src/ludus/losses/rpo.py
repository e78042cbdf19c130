"""DPO with a small pull towards answers that are known to be good. RPO, arXiv:2405.16436."""

from __future__ import annotations

from torch import Tensor

from ludus.losses.preference import dpo
from ludus.tensors import check_vectors


def rpo(
    chosen: Tensor,
    rejected: Tensor,
    ref_chosen: Tensor,
    ref_rejected: Tensor,
    *,
    beta: float = 0.01,
    eta: float = 0.005,
    counts: Tensor | None = None,
) -> Tensor:
    """Regularised preference optimisation.

        -log sigmoid(beta delta) - eta beta log pi_w

    The exact solution of a game in which an adversary picks the reward among those that explain the
    preferences. DPO alone may move probability to answers that nobody compared; the second term
    holds it on the baseline's, here the chosen ones. Its gradient is
    (beta sigmoid(-beta delta) + eta beta) grad log pi_w - beta sigmoid(-beta delta) grad log pi_l.

    Args:     sums, each [P], over the answer's tokens alone; beta > 0; eta >= 0, 0 is DPO. The pull
              is eta * beta per summed nat: 5e-5 (Zephyr-beta) and 2.5e-4 (Zephyr-Gemma, beta 0.05).
              counts [P], tokens of the chosen: the second term is the mean per token (the authors'
              second release, better for reasoning) and wants its own, larger eta.
    Returns:  [P].
    """
    if eta < 0:
        raise ValueError(f"eta is {eta:g}; give 0 or more")
    imitation = chosen
    if counts is not None:
        check_vectors("chosen", chosen, counts=counts)
        imitation = chosen / counts.clamp(min=1)
    preference = dpo(chosen, rejected, ref_chosen, ref_rejected, beta=beta)
    return preference - eta * beta * imitation
