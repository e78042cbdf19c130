"""Credits: what a recipe names to turn the rewards of a batch into one number per token.

A credit composes the formulas of this folder. Those here are frozen values without state, so they
can be called on a batch directly; `init` and `assign` are the protocol of types.py. Rollouts that
were lost to faults (scored False) enter no statistic and get 0 on every token.

    GRPO()  DrGRPO()  RLOO()  per_rollout(...)  one number per rollout, on each of its tokens
    GRPOSteps()                                 one number per turn
    Reinforce()  ReinforcePlusPlus()  ReMax()   reward-to-go of each token
    GAE()                                       with a critic
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from ludus.advantages import relative
from ludus.advantages.gae import gae
from ludus.advantages.place import place_terminal, place_turns, turn_of_tokens
from ludus.advantages.returns import remax, reward_to_go
from ludus.advantages.steps import grpo_steps
from ludus.advantages.whiten import whiten
from ludus.losses.kl import k1
from ludus.types import Batch, Credited


class Stateless(ABC):
    """The Credit protocol for a credit that remembers nothing between steps."""

    def init(self) -> tuple[()]:
        return ()

    def assign(self, state: tuple[()], batch: Batch) -> tuple[tuple[()], Credited]:
        return state, self(batch)

    @abstractmethod
    def __call__(self, batch: Batch) -> Credited: ...


# --------------------------------------------------------------------------- one number per rollout


@dataclass(frozen=True)
class PerRollout(Stateless):
    """estimator(reward [R], group [R], scored=[R], **knobs) -> [R], on every token of the rollout."""

    estimator: Callable[..., Tensor]
    needs: Sequence[str]
    knobs: Mapping[str, Any]

    def __call__(self, batch: Batch) -> Credited:
        per_rollout = self.estimator(batch.reward, batch.group, scored=batch.scored, **self.knobs)
        return Credited(batch.spread(per_rollout))


def per_rollout(
    estimator: Callable[..., Tensor], *, needs: Sequence[str] = ("group",), **knobs: Any
) -> PerRollout:
    """An estimator of rollouts, such as those of relative.py, as a credit: per_rollout(lite_ppo, ddof=0)."""
    return PerRollout(estimator, tuple(needs), knobs)


def GRPO(*, ddof: int = 1, eps: float = 1e-6) -> PerRollout:
    """(r - mean_g) / (std_g + eps). arXiv:2402.03300."""
    return per_rollout(relative.grpo, ddof=ddof, eps=eps)


def DrGRPO() -> PerRollout:
    """r - mean_g; average with over=L, the longest answer allowed. arXiv:2503.20783."""
    return per_rollout(relative.dr_grpo)


def RLOO() -> PerRollout:
    """r - mean of the other answers. arXiv:2402.14740."""
    return per_rollout(relative.rloo)


@dataclass(frozen=True)
class GRPOSteps(Stateless):
    """GRPO with process supervision: a turn gets the normalised rewards of itself and later turns."""

    ddof: int = 1
    eps: float = 1e-6
    needs: Sequence[str] = ("group", "turn_reward")

    def __call__(self, batch: Batch) -> Credited:
        turn = turn_of_tokens(batch.turn, batch.mask, batch.turn_reward.shape[1])
        owner = batch.rollout[batch.mask.nonzero(as_tuple=True)[0]]
        written = torch.zeros_like(batch.turn_reward, dtype=torch.bool)
        written[owner, turn] = True
        advantage = grpo_steps(
            batch.turn_reward,
            written,
            batch.group,
            ddof=self.ddof,
            eps=self.eps,
            scored=batch.scored,
        )
        out = advantage.new_zeros(batch.mask.shape)
        out[batch.mask] = advantage[owner, turn]
        return Credited(out)


# --------------------------------------------------------------------------- reward-to-go of tokens


@dataclass(frozen=True)
class Returns(Stateless):
    """Reward-to-go of every token, less a baseline, whitened or not.

    gamma     discount from one token that the policy wrote to the next
    kl        beta: every token's reward less beta (log pi_old - log ref), k1 in the reward
    baseline  taken off: nothing, the mean of the group (before anything else), the greedy answer's
    whitened  over all tokens of the batch, with ddof, eps and floor as in whiten.py
    per_turn  the turns' own rewards, each on the last token of its turn, instead of the rollout's
              reward at the end
    """

    gamma: float = 1.0
    kl: float = 0.0
    baseline: Literal["none", "group", "greedy"] = "none"
    whitened: bool = False
    ddof: int = 1
    eps: float = 1e-8
    floor: float = 0.0
    per_turn: bool = False

    def __post_init__(self) -> None:
        if self.per_turn and self.baseline == "group":
            raise ValueError(
                'the mean of a group is that of whole rollouts; give per_turn=False, or baseline="none"'
            )

    @property
    def needs(self) -> Sequence[str]:
        asked = {"none": (), "group": ("group",), "greedy": ("baseline",)}[self.baseline]
        return (*asked, *_read(self.kl, self.per_turn))

    def __call__(self, batch: Batch) -> Credited:
        mask = _scored(batch)
        outcome = batch.reward
        if self.baseline == "group":
            outcome = relative.dr_grpo(outcome, batch.group, scored=batch.scored)
        reward = token_reward(batch, outcome, mask, kl=self.kl, per_turn=self.per_turn)
        if self.baseline == "greedy":
            greedy = _filled(batch, "baseline")
            advantage = remax(reward, mask, greedy, gamma=self.gamma, rollout=batch.rollout)
        else:
            advantage = reward_to_go(reward, mask, gamma=self.gamma, rollout=batch.rollout)
        if self.whitened:
            advantage = whiten(advantage, mask, ddof=self.ddof, eps=self.eps, floor=self.floor)
        return Credited(advantage)


def Reinforce(*, gamma: float = 1.0, whitened: bool = False, per_turn: bool = False) -> Returns:
    """Reward-to-go, no baseline."""
    return Returns(gamma=gamma, whitened=whitened, per_turn=per_turn)


def ReinforcePlusPlus(
    *,
    gamma: float = 1.0,
    kl: float = 0.0,
    baseline: Literal["none", "group"] = "none",
    ddof: int = 1,
    eps: float = 1e-8,
    floor: float = 0.0,
    per_turn: bool = False,
) -> Returns:
    """Whitened reward-to-go; baseline="group" is REINFORCE++-baseline. arXiv:2501.03262."""
    return Returns(
        gamma, kl, baseline, whitened=True, ddof=ddof, eps=eps, floor=floor, per_turn=per_turn
    )


def ReMax(*, gamma: float = 1.0, kl: float = 0.0) -> Returns:
    """Reward-to-go less the reward of a greedy answer. arXiv:2310.10505."""
    return Returns(gamma, kl, "greedy")


# ------------------------------------------------------------------------------------ with a critic


@dataclass(frozen=True)
class GAE(Stateless):
    """Generalised advantage estimation, and the targets of the critic.

    The targets come from the advantages before whitening. `kl`, `per_turn` and the whitening knobs
    as in `Returns`.
    """

    gamma: float = 1.0
    lam: float = 1.0
    kl: float = 0.0
    whitened: bool = True
    ddof: int = 1
    eps: float = 1e-8
    floor: float = 0.0
    per_turn: bool = False

    @property
    def needs(self) -> Sequence[str]:
        return ("value", *_read(self.kl, self.per_turn))

    def __call__(self, batch: Batch) -> Credited:
        mask = _scored(batch)
        reward = token_reward(batch, batch.reward, mask, kl=self.kl, per_turn=self.per_turn)
        value = _filled(batch, "value")
        advantage, returns = gae(
            reward, value, mask, gamma=self.gamma, lam=self.lam, rollout=batch.rollout
        )
        if self.whitened:
            advantage = whiten(advantage, mask, ddof=self.ddof, eps=self.eps, floor=self.floor)
        return Credited(advantage, returns)


# ---------------------------------------------------------------------------- shared by the credits


def token_reward(
    batch: Batch, outcome: Tensor, mask: Tensor, *, kl: float = 0.0, per_turn: bool = False
) -> Tensor:
    """[B,T]: the outcome [R], or the turns' own rewards, on their last tokens, less kl * k1 on all.

    A rollout with no token in `mask`, lost or silent, has no place for a reward and gets none.
    """
    silent = torch.ones_like(batch.scored).index_fill(0, batch.rollout[mask.any(1)], False)
    if per_turn:
        turn_reward = batch.turn_reward.masked_fill(silent[:, None], 0.0)
        reward = place_turns(turn_reward, batch.turn, mask, batch.rollout)
    else:
        reward = place_terminal(outcome.masked_fill(silent, 0.0), mask, batch.rollout)
    if kl:
        old = batch.logp if batch.old_logp is None else batch.old_logp
        reward = reward - kl * k1(old, _filled(batch, "ref_logp"), mask)
    return reward


def _read(kl: float, per_turn: bool) -> tuple[str, ...]:
    """What `token_reward` wants."""
    return ("ref_logp",) * bool(kl) + ("turn_reward",) * per_turn


def _scored(batch: Batch) -> Tensor:
    return batch.mask & batch.scored[batch.rollout][:, None]


def _filled(batch: Batch, name: str) -> Tensor:
    tensor = getattr(batch, name)
    if tensor is None:
        raise ValueError(
            f"this credit reads batch.{name}, which is empty; fill what `needs` lists before assigning credit"
        )
    return tensor
