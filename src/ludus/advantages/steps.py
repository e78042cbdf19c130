"""Process supervision: every step of every answer is compared with all steps of its group."""

from __future__ import annotations

import torch
from torch import Tensor

from ludus.advantages.relative import relative


def grpo_steps(
    step_reward: Tensor,
    written: Tensor,
    group: Tensor,
    *,
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """Advantage of each step: the sum of the normalised rewards of this step and those after it.

        z_ik = (r_ik - mean_g) / (std_g + eps) over all steps of all answers of the group
        A_ik = sum_{j>=k} z_ij

    GRPO with process supervision, arXiv:2402.03300 section 4.1.3.

    Args:     step_reward [R,K], written [R,K] bool (steps that exist), group [R], scored [R] bool.
    Returns:  [R,K], 0 where no step was written and for rollouts lost to faults.
    """
    if step_reward.shape != written.shape:
        raise ValueError(
            f"step_reward has shape {list(step_reward.shape)}, written has shape {list(written.shape)}; "
            "give one bool per step"
        )
    if scored is not None:
        written = written & scored[:, None]
    owner, _ = written.nonzero(as_tuple=True)
    z = torch.zeros_like(step_reward)
    z[written] = relative(
        step_reward[written], group[owner], centre="group", scale="group", ddof=ddof, eps=eps
    )
    return z.flip(1).cumsum(1).flip(1).masked_fill(~written, 0.0)
