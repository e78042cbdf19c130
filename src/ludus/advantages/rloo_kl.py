"""Leave-one-out on the bare rewards, the KL taken off afterwards. The estimator of Critique-RL, arXiv:2510.24320."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ludus.advantages.credit import Stateless, token_reward
from ludus.advantages.relative import Alone, rloo
from ludus.advantages.returns import reward_to_go
from ludus.advantages.whiten import whiten
from ludus.types import Batch, Credited


@dataclass(frozen=True)
class RLOOThenKL(Stateless):
    """Per token: return-to-go of A_i at the end, less kl * k1 on every token; then whitened.

        A_i = r_i - mean of the others,    R_t = A_i - kl sum_{s>=t} (log pi_old - log ref)_s

    The KL comes after the leave-one-out step, so it is not compared with that of the others: of
    four equal rewards only the KL is left to learn from. (`RLOO` wants it inside the reward.) A
    group of one is refused, unless `alone` says what its outcome counts; one that faults have
    thinned to one counts 0. Its KL stays.
    """

    kl: float = 0.01
    whitened: bool = True
    alone: Alone = "refuse"
    needs: Sequence[str] = ("group", "ref_logp")

    def __call__(self, batch: Batch) -> Credited:
        mask = batch.mask & batch.scored[batch.rollout][:, None]
        outcome = rloo(batch.reward, batch.group, scored=batch.scored, alone=self.alone)
        reward = token_reward(batch, outcome, mask, kl=self.kl)
        advantage = reward_to_go(reward, mask, rollout=batch.rollout)
        return Credited(whiten(advantage, mask) if self.whitened else advantage)
