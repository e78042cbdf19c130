"""RPO, arXiv:2405.16436: DPO with a small imitation of the chosen answers, against over-optimisation.

The paper's claim: the loss of DPO plus eta beta (-log pi(chosen)) solves a game in which an adversary picks the reward
among those that explain the preferences, so over-optimisation has a bound; Zephyr-7B-beta and -Gemma trained with it
beat DPO on MT-Bench and AlpacaEval 2.

Reproduced: the loss (a term of imitation beside DPO's, each with its own denominator; sum or mean over an answer's
tokens) on pairs of short lines of praise with labels by Bradley and Terry. The gap in what is covered: nobody compares
lines of more than five words, nor words outside the language. Probability then leaves the compared lines, under DPO the
chosen ones too; whether gold, which no training sees, falls while the loss does is what the claims ask. Not reproduced:
7B models, chat benchmarks, and the bound.

Deviations: the paper's eta is 0.005 and its beta 0.01 or 0.05, for answers of hundreds of tokens; here eta is 1 and
beta 0.1, as in the catalogue's case of three actions. Sixteen epochs on few pairs (one or two), for that is what
over-optimises. The rate is constant (warm-up and cosine). The mean over tokens is `by_mean`, with an eta of its own.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from ludus.data.batch import make_batch
from ludus.data.pairs import Pair
from ludus.data.praise_pairs import Compared
from ludus.engines.local.build import open_model
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.sampler import LocalSampler
from ludus.envs.small.praise import Praise
from ludus.evals.metrics import mean
from ludus.losses.preference import sequence_logp
from ludus.models.praise_base import PraiseBase
from ludus.rollouts.single_turn import SingleTurn
from ludus.train.claims import Claim
from ludus.train.offline import preference
from ludus.train.recipe import Made
from ludus.train.regularised import regularised
from ludus.train.study import Track
from ludus.types import Group, Key, Optim, Request, Sampling
from ludus.weights.average import Over


@dataclass(frozen=True)
class Overoptimised:
    """Preference learning on some pairs, and what the policy writes before, at half-time and after.

    eta, beta   of RPO, eta 0 is DPO; `over`: sum or mean of a chosen answer's tokens, as in `regularised`
    tasks, answers, longest   how many held-out queries, attempts at each, and tokens of one
    """

    model: str | Made
    pairs: Compared
    eta: float = 1.0
    beta: float = 0.1
    over: Over = "answer sums"
    epochs: int = 16
    size: int = 32
    optim: Optim = field(default_factory=lambda: Optim(lr=1e-3, betas=(0.9, 0.999)))
    tasks: int = 128
    answers: int = 4
    longest: int = 16

    def measure(self, seed: int, folder: Path, track: Track) -> Mapping[str, float]:
        policy, renderer = open_model(self.model, seed=seed)
        objective = regularised(eta=self.eta, beta=self.beta, over=self.over)
        learner = LocalLearner(policy, objective, self.optim, reference=True, seed=seed)
        engine, key = LocalEngine(LocalSampler(policy, renderer)), Key(seed, ("rpo",))
        pairs = self.pairs(renderer, key / "pairs")
        told = self.told(learner, engine, pairs, "before")
        with (folder / "metrics.jsonl").open("w") as log:
            for epoch in track(range(1, self.epochs + 1), "epochs"):
                of = {"beta": self.beta, "epochs": 1, "size": self.size, "key": key / epoch}
                log.writelines(json.dumps(step) + "\n" for step in preference(learner, pairs, **of))
                engine.publish(epoch)
                if epoch == self.epochs // 2:
                    told |= self.told(learner, engine, pairs, "half")
        return {**told, **self.told(learner, engine, pairs, "after")}

    def told(
        self, learner: LocalLearner, engine: LocalEngine, pairs: Sequence[Pair], when: str
    ) -> dict[str, float]:
        """Log-probabilities of the compared lines, and gold and length of lines for held-out tasks."""
        world = self.pairs.world
        batch = make_batch([Group(str(i), (p.chosen, p.rejected)) for i, p in enumerate(pairs)])
        batch = learner.annotate(batch, ("old_logp",))
        assert batch.old_logp is not None
        sums = sequence_logp(batch.old_logp, batch.mask)[0]
        strategy = SingleTurn(Sampling(max_tokens=self.longest))
        requests = [Request(t, self.answers, 1) for t in world.tasks("test")[: self.tasks]]
        groups = engine.collect(strategy, requests, None, Key(0, ("held-out",)))
        lines = [(world.state(r.task), r.turns[0].action) for g in groups for r in g.rollouts]
        return {
            f"chosen/{when}": float(sums[0::2].mean()),
            f"rejected/{when}": float(sums[1::2].mean()),
            f"gold/{when}": mean(world.gold(*each) for each in lines),
            f"words/{when}": mean(len(line.split()) for _, line in lines),
        }


world = Praise(bar=0.3)
recipe = Overoptimised(PraiseBase(world, share=0.3, steps=300, turns=1), Compared(world))
by_mean = replace(recipe, over="answers", eta=4.0)  # an answer has four words on average
arms = {"rpo": recipe, "dpo": replace(recipe, eta=0.0)}
start, end = "chosen/before", "chosen/after"
claims = (
    Claim("its gold reward is no lower than DPO's", "rpo", "dpo", 0.0, "gold/after"),
    Claim("chosen lines stay as probable as they were", "rpo", None, 0.0, end, start),
    Claim("under DPO they lose", "dpo", None, 0.0, start, end),
    Claim("and gold, from half-time on", "dpo", None, 0.0, "gold/half", "gold/after"),
)
