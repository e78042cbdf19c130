"""RPO through a learner, arXiv:2405.16436: an objective for `train.offline.preference`, which gives DPO's part."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from ludus.losses.objective import Objective, Term
from ludus.losses.supervised import sft
from ludus.train.offline import PREFERENCE
from ludus.types import Batch
from ludus.weights.average import Over


def regularised(*, eta: float, beta: float, over: Over = "answer sums") -> Objective:
    """The gradient of ludus.losses.rpo: DPO's, and that of the mean over pairs of -eta beta log pi(chosen).

    Args:  beta as `preference` is given it; over "answer sums" for the sum over a chosen answer's tokens, "answers" for
           their mean; eta 0 is DPO.
    """
    if eta < 0:
        raise ValueError(f"eta is {eta:g}; give 0 or more")
    imitation = Term(sft, chosen, coef=eta * beta, over=over)
    return replace(PREFERENCE, terms=(imitation,) if eta else ())


def chosen(batch: Batch) -> Tensor:
    """[B,T] bool: the tokens of preferred answers; rollouts come in pairs, the chosen first."""
    return batch.mask & (batch.rollout % 2 == 0)[:, None]
