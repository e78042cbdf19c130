"""Group-in-group: compare what followed the same state, beside whole episodes. GiGPO, arXiv:2505.10978.

The rollouts of one task pass through equal states again and again. All turns that were taken in one
of them (the anchor) form a group without a single extra rollout, and their discounted returns are
compared. A rollout that comes back to a state is several members of its group: the later visit lost
less to the discount, so the turn that wandered off comes out worse. Where no state is met twice the
method is GRPO; `compared` says how much there is to gain.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ludus.advantages.compact import discounted
from ludus.advantages.credit import Stateless
from ludus.advantages.relative import Alone, relative
from ludus.advantages.turns import turns
from ludus.types import Batch, Credited

UNKNOWN = -1  # an anchor that nobody named; its turn is compared with nothing

Scale = Literal["none", "group"]


def gigpo(
    turn_reward: Tensor,
    written: Tensor,
    anchor: Tensor,
    group: Tensor,
    *,
    gamma: float = 0.95,
    omega: float = 1.0,
    scale: Scale = "none",
    over: Literal["turns", "rollouts"] = "turns",
    alone: Alone = "zero",
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """Advantage of each turn: of its episode, plus omega times that of the turn among equal states.

        A_ik = (R_i - mean_g) / F + omega A_S(i,k),   R_i = sum_k r_ik,   A_S = `anchor_relative`

    F is 1 with scale "none" (the paper's advice for hard tasks) and std_g + eps with "group".

    Args:     turn_reward [R,K]; written [R,K] bool, turns that exist; anchor [R,K] int64, equal
              numbers for equal states within a group, -1 where unknown; group [R]; scored [R] bool.
              over: what the episode's mean and std are taken over. "turns", the authors' default,
              counts a rollout once for each of its turns, so long ones weigh more.
              alone: what a lone rollout (or a lone turn, over "turns") gets; the release "reward".
    Returns:  [R,K] of the dtype of turn_reward, 0 where no turn was written and for rollouts lost
              to faults.
    """
    _check(turn_reward, written=written, anchor=anchor)
    written, turn_reward = _kept(turn_reward, written, scored)
    episode = turn_reward.sum(1)
    settings = {"centre": "group", "scale": scale, "ddof": ddof, "eps": eps, "alone": alone}
    owner = written.nonzero(as_tuple=True)[0]
    advantage = torch.zeros_like(turn_reward)
    if over == "turns":
        advantage[written] = relative(episode[owner], group[owner], **settings)
    else:
        advantage[written] = relative(episode, group, scored=scored, **settings)[owner]
    if omega:
        step = anchor_relative(
            turn_reward, written, anchor, group, gamma=gamma, scale=scale, ddof=ddof, eps=eps
        )
        advantage = advantage + omega * step
    return advantage


def anchor_relative(
    turn_reward: Tensor,
    written: Tensor,
    anchor: Tensor,
    group: Tensor,
    *,
    gamma: float = 0.95,
    scale: Scale = "none",
    ddof: int = 1,
    eps: float = 1e-6,
    scored: Tensor | None = None,
) -> Tensor:
    """Advantage of each turn over the turns of its group that were taken in the same state.

        R_ik = r_ik + gamma R_i,k+1
        A_ik = (R_ik - mean of the anchor group) / F

    Args and returns as `gigpo`. A state met once, or an unknown one, gives 0. One sort: the cost
    grows with the number of turns, not with that of their pairs.
    """
    _check(turn_reward, written=written, anchor=anchor)
    written, turn_reward = _kept(turn_reward, written, scored)
    known = written & (anchor != UNKNOWN)
    advantage = torch.zeros_like(turn_reward)
    advantage[known] = relative(
        discounted(turn_reward, gamma)[known],
        _names(anchor, known, group),
        centre="group",
        scale=scale,
        ddof=ddof,
        eps=eps,
    )
    return advantage


def compared(
    written: Tensor, anchor: Tensor, group: Tensor, *, scored: Tensor | None = None
) -> float:
    """The share of turns that were taken in a state which another turn of the group was taken in too.

    Near 1 in small worlds; near the share of first turns in search tasks, where GiGPO adds little.
    To report. Args as `gigpo`; 0 if nothing was written.
    """
    _check(written, anchor=anchor)
    if scored is not None:
        written = written & scored[:, None]
    known = written & (anchor != UNKNOWN)
    _, count = _names(anchor, known, group).unique(return_counts=True)
    return count[count > 1].sum().item() / max(int(written.sum()), 1)


@dataclass(frozen=True)
class GiGPO(Stateless):
    """`gigpo` as a credit. It reads batch.anchor and the turns' own rewards.

    An outcome that a judge gives must therefore stand on the rollout's last turn. The metric
    "anchor/compared" is `compared`.
    """

    gamma: float = 0.95
    omega: float = 1.0
    scale: Scale = "none"
    over: Literal["turns", "rollouts"] = "turns"
    alone: Alone = "zero"
    ddof: int = 1
    eps: float = 1e-6

    @property
    def needs(self) -> Sequence[str]:
        return ("group", "turn_reward", "anchor") if self.omega else ("group", "turn_reward")

    def __call__(self, batch: Batch) -> Credited:
        at = turns(batch)
        anchor = self._anchor(batch, at.written)
        acted = at.written.any(1) & batch.scored
        if batch.reward[acted].any() and not batch.turn_reward[acted].any():
            raise ValueError(
                "rollouts have rewards but none of their turns has, so GiGPO would see nothing; put the outcome "
                "on the last turn: replace(turn, reward=outcome)"
            )
        advantage = gigpo(
            batch.turn_reward,
            at.written,
            anchor,
            batch.group,
            gamma=self.gamma,
            omega=self.omega,
            scale=self.scale,
            over=self.over,
            alone=self.alone,
            ddof=self.ddof,
            eps=self.eps,
            scored=batch.scored,
        )
        share = compared(at.written, anchor, batch.group, scored=batch.scored)
        return Credited(at.spread(advantage), metrics={"anchor/compared": share})

    def _anchor(self, batch: Batch, written: Tensor) -> Tensor:
        anchor = batch.anchor
        if anchor is None:
            anchor = torch.full_like(batch.turn_reward, UNKNOWN, dtype=torch.int64)
        if self.omega and written.any() and bool((anchor[written] == UNKNOWN).all()):
            raise ValueError(
                "no turn of this batch has an anchor, so GiGPO has no states to compare; let the environment name "
                'them in Step.info["anchor"], or take GRPO()'
            )
        return anchor


def _kept(turn_reward: Tensor, written: Tensor, scored: Tensor | None) -> tuple[Tensor, Tensor]:
    """written and turn_reward without the rollouts that were lost to faults."""
    if scored is None:
        return written, turn_reward
    return written & scored[:, None], turn_reward.masked_fill(~scored[:, None], 0.0)


def _names(anchor: Tensor, known: Tensor, group: Tensor) -> Tensor:
    """[M]: one number for each (group, anchor) of the known turns."""
    _, member = group.unique(return_inverse=True)
    names, state = anchor[known].unique(return_inverse=True)
    return member[known.nonzero(as_tuple=True)[0]] * len(names) + state


def _check(like: Tensor, **others: Tensor) -> None:
    for name, tensor in others.items():
        if tensor.shape != like.shape:
            raise ValueError(
                f"{name} has shape {list(tensor.shape)}, the turns have shape {list(like.shape)}; "
                "give one value per turn, [R,K]"
            )
