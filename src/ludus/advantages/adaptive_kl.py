"""PPO's credit for language models: a scaled reward at the end, a KL on every token, and a controller of the KL.

The KL's coefficient grows while the KL lies above a target and shrinks while it lies below. arXiv:1909.08593; with the
KL over the whole vocabulary, running statistics of the reward and restarts as CORY, arXiv:2410.06101, has them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ludus.advantages.credit import token_reward
from ludus.advantages.gae import gae
from ludus.advantages.whiten import whiten
from ludus.losses.kl import adapted
from ludus.rewards.running import Running
from ludus.tensors import blank
from ludus.types import Batch, Credited, Explained


def controlled(
    coefficient: float, kl: float, *, target: float, horizon: float, count: int
) -> float:
    """coefficient (1 + clip(kl / target - 1, -0.2, 0.2) count / horizon): Ziegler et al., arXiv:1909.08593, 2.2.

    Args:  kl, target in nats of an answer, target > 0; count: answers since it was last controlled; horizon: answers
           in which a KL far from its target moves the coefficient by a fifth, more than a fifth of `count`.
    """
    return adapted(coefficient, kl, target=target, count=count, horizon=horizon)


class NoProbe(Explained, ValueError):
    """The KL that a credit takes off was not measured."""


@dataclass(frozen=True)
class AdaptiveKL:
    """GAE of (scaled reward at the end) - eta KL_t, and eta for the next step.

    eta      first coefficient; target, horizon as in `controlled`
    gamma, lam  of GAE; the advantages are whitened, the critic's targets are not
    scale    centre and divide rewards by their running statistics
    restart  after so many steps of learning eta and statistics begin afresh, as where roles are swapped; 0 never
    probe    which of `Recipe.probes` is KL_t, such as ludus.models.full_kl.FullKL

    State: {"steps", "eta", "reward": of Running}. Tells "kl", the mean of an answer, and "eta", with which it was
    weighed. A rollout that was lost enters no statistic.
    """

    eta: float = 0.4
    target: float = 6.0
    horizon: float = 10_000
    gamma: float = 1.0
    lam: float = 0.95
    scale: bool = True
    restart: int = 0
    probe: str = "kl"
    needs: Sequence[str] = ("value",)

    def init(self) -> dict[str, Any]:
        return {"steps": 0, "eta": self.eta, "reward": Running().init()}

    def assign(self, state: dict[str, Any], batch: Batch) -> tuple[dict[str, Any], Credited]:
        if self.restart and state["steps"] % self.restart == 0:
            state = {**self.init(), "steps": state["steps"]}
        if self.probe not in batch.probes or batch.value is None:
            have = ", ".join(batch.probes) or "none"
            raise NoProbe(
                f"this credit reads the probe {self.probe!r} (there: {have}) and values; give the recipe "
                f"probes={{{self.probe!r}: FullKL(...)}} from ludus.models.full_kl, and critic=True"
            )
        mask = batch.mask & batch.scored[batch.rollout][:, None]
        kl_BT = blank(batch.probes[self.probe], mask)
        reward_R, statistics = batch.reward, state["reward"]
        if self.scale:
            scored = batch.reward[batch.scored].tolist()
            statistics = Running().update(statistics, scored)
            scaled = Running().scaled(statistics, batch.reward.tolist())
            reward_R = batch.reward.new_tensor(scaled) * batch.scored
        reward_BT = token_reward(batch, reward_R, mask) - state["eta"] * kl_BT
        advantage, returns = gae(
            reward_BT, batch.value, mask, gamma=self.gamma, lam=self.lam, rollout=batch.rollout
        )
        count = int(batch.scored.sum())
        kl = float(kl_BT.sum()) / max(count, 1)
        eta = state["eta"]
        if count:
            eta = controlled(eta, kl, target=self.target, horizon=self.horizon, count=count)
        told = {"kl": kl, "eta": state["eta"]}
        after = {"steps": state["steps"] + 1, "eta": eta, "reward": statistics}
        return after, Credited(whiten(advantage, mask), returns, told)
