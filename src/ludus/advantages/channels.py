"""Two reward channels, normalised apart, then mixed: the outcome and the steps. RL Tango, arXiv:2505.15034.

Mixed before they are normalised, the channel of the larger spread would drown the other, and the
step rewards of a wrong answer would lift it. Here each is first compared within its own kind.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ludus.advantages.place import place_terminal, place_turns
from ludus.advantages.relative import relative
from ludus.advantages.returns import reward_to_go
from ludus.tensors import check_tokens, check_vectors
from ludus.types import Batch, Credited


def outcome_and_steps(
    outcome: Tensor,
    step_reward: Tensor,
    ends_step: Tensor,
    mask: Tensor,
    rollout: Tensor,
    group: Tensor,
    *,
    alpha: float,
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """A_t = (1 - alpha) sum_{s>=t} z_s + alpha sum_{s>=t} u_s, both over the tokens of the rollout.

        z   (o - mean_g) / (std_g + eps) on the last token         outcomes of the group's rollouts
        u   (r - mean) / (std + eps) on the last token of a step   all steps of all the group's rollouts

    A token behind the last step has the outcome alone. A group with a single step has mean 0 and
    deviation 1, as the release has it. alpha 0 is GRPO.

    Args:     outcome [R]; step_reward [B,T], read where ends_step [B,T] bool is True; mask [B,T]
              bool; rollout [B]; group [R]; scored [R] bool.
    Returns:  [B,T], 0 where mask is False and for rollouts lost to faults.
    """
    check_tokens(mask, step_reward=step_reward, ends_step=ends_step)
    check_vectors("outcome", outcome, group=group)
    stray = ends_step & ~mask
    if bool(stray.any()):
        b, t = stray.nonzero()[0].tolist()
        raise ValueError(
            f"a step ends on token {t} of row {b}, which the policy did not write; put its reward on the last "
            "token of the step that the policy wrote"
        )
    if scored is None:
        scored = torch.ones_like(group, dtype=torch.bool)
    mask = mask & scored[rollout][:, None]
    z = relative(outcome, group, centre="group", scale="group", ddof=ddof, eps=eps, scored=scored)
    silent = torch.ones_like(scored).index_fill(0, rollout[mask.any(1)], False)
    advantage = (1 - alpha) * reward_to_go(
        place_terminal(z.masked_fill(silent, 0.0), mask, rollout), mask, rollout=rollout
    )
    ends = ends_step & mask
    if alpha and ends.any():
        u = torch.zeros_like(step_reward)
        u[ends] = relative(
            step_reward[ends],
            group[rollout[ends.nonzero(as_tuple=True)[0]]],
            centre="group",
            scale="group",
            ddof=ddof,
            eps=eps,
            alone="reward",
        )
        advantage = advantage + alpha * reward_to_go(u, mask, rollout=rollout)
    return advantage


def share_of_steps(step: int, *, total: int, first: float = 0.1, last: float = 1e-3) -> float:
    """alpha at a generator step counted from 0: from `first` down to `last` at `total`, exponentially.

    alpha = first exp(-step log(first / last) / total)       first 0.1 for GRPO, 0.5 for REINFORCE++
    """
    if not 0 < last <= first or total < 1:
        raise ValueError(
            f"first={first:g}, last={last:g}, total={total}; give first >= last > 0 and total of 1 or more"
        )
    return max(last, first * math.exp(-step * math.log(first / last) / total))


@dataclass(frozen=True)
class OutcomeAndSteps:
    """The rollout's reward and those of its turns, each turn a step that ends with its last token.

    A turn with reward 0 is no step: text behind the last one, or a step without a verdict. The steps' share falls with
    the updates of this policy, `total` of them, and with no others: state {"step": updates so far}.
    """

    total: int
    first: float = 0.1
    last: float = 1e-3
    ddof: int = 1
    eps: float = 1e-6
    needs: Sequence[str] = ("group", "turn_reward")

    def init(self) -> dict[str, int]:
        return {"step": 0}

    def assign(self, state: Mapping[str, int], batch: Batch) -> tuple[dict[str, int], Credited]:
        step = state["step"]
        alpha = share_of_steps(step, total=self.total, first=self.first, last=self.last)
        turn_reward = batch.turn_reward * batch.scored[:, None]
        step_reward = place_turns(turn_reward, batch.turn, batch.mask, batch.rollout)
        advantage = outcome_and_steps(
            batch.reward,
            step_reward,
            step_reward != 0,
            batch.mask,
            batch.rollout,
            batch.group,
            alpha=alpha,
            ddof=self.ddof,
            eps=self.eps,
            scored=batch.scored,
        )
        return {"step": step + 1}, Credited(advantage, None, {"share of steps": alpha})
