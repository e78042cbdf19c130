"""SALSA, arXiv:2411.01798: the KL of PPO is measured from the average of two fine-tuned models, and not from the first.

The paper's claim: the mean of the weights of two supervised fine-tunings of one base is a better and wider place to
stay near than either, so the policy goes further and earns more at the same coefficient; win rates above PPO's for
Llama2-7B, Mistral-7B and Gemma-2B on UltraFeedback, MT-Bench and Arena-Hard.

Reproduced: two models of one ancestor, tuned independently; the policy begins at the first; their soup in equal shares,
made once as one checkpoint whose fingerprint lies beside it (soup.json), is the frozen reference of PPO's KL in the
reward; a share of 0 is PPO bit for bit (tests/papers/test_salsa.py, with the worked numbers and what becomes of models
without a common ancestor). The KL to the first model is measured apart, by the first model itself. New ingredients are
tuned for each seed. Not reproduced: 7B models, chat benchmarks, the sweep over shares and coefficient.

The reward is the true one and not a learnt one, so that there is nothing to exploit. Deviation: the ingredients imitate
different answers too, not the same ones in another order alone; with those, the two were nearly one model (the soup at
a KL of 0.001 from the first). The soup's held-out loss, 2.329, is then no better than the mean of its ingredients',
2.327. A `share` (alpha) of 0.5 and the starting point are the catalogue's from memory; its KL of .822399 is .822397.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from ludus.advantages.credit import GAE
from ludus.curricula.horizon import fixed
from ludus.curricula.roles import Fixed
from ludus.envs.small.praise import Praise
from ludus.envs.world import one_of
from ludus.losses.clipped import clipped_ratio
from ludus.models.praise_base import PraiseBase
from ludus.models.soup import Soup
from ludus.models.tuned import Tuned
from ludus.rewards.gold import Gold
from ludus.rollouts.judged import Judged
from ludus.rollouts.single_turn import SingleTurn
from ludus.rollouts.watched import Watched
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Frozen, Recipe
from ludus.types import Key, Optim, Sampling, Task


@dataclass(frozen=True)
class Lines:
    """Answers to imitate: lines of so many words, each good with probability `share`."""

    world: Praise
    count: int = 96
    share: float = 0.6
    lengths: tuple[int, int] = (3, 5)

    def __call__(self, key: Key) -> Sequence[tuple[Task, str]]:
        rng, tasks, (low, high) = key.generator(), self.world.tasks("train"), self.lengths

        def line(task: Task) -> str:
            length = int(rng.integers(low, high + 1))
            return self.world.line(self.world.state(task), rng, self.share, length)

        return [(task, line(task)) for task in (one_of(rng, tasks) for _ in range(self.count))]


world = Praise(bar=0.3)
base = PraiseBase(world, share=0.3, steps=300, turns=1)
adam = Optim(lr=2e-3, betas=(0.9, 0.999))
first, second = (Tuned(base, Lines(world), draw=n, order=n, epochs=15, optim=adam) for n in (1, 2))
strategy = Watched(SingleTurn(Sampling(temperature=1.0, max_tokens=16)), by="first")

recipe = Recipe(
    env=world,
    strategy=strategy,
    reward=Gold(world),
    credit=GAE(lam=0.95, kl=0.03),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    critic=True,
    reference=Soup((first, second)),
    model=first,
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), critic_lr=2e-3, updates=4),
    others={"first": Frozen(first)},
    cast=Fixed({"policy": "policy", "first": "first"}),
    horizon=fixed(1),
    tasks=24,
    answers=8,
    steps=50,
    evaluation=Evaluation(
        tasks=128, answers=4, max_turns=1, strategy=Judged(strategy, Gold(world))
    ),
)

arms = {"salsa": recipe, "ppo": replace(recipe, reference=True)}
far = "last/terms/kl/first"
claims = (
    Claim("training makes the policy better", "salsa", None, margin=0.2),
    Claim("it earns 3 % of the range more", "salsa", "ppo", 0.03, "last/terms/gold"),
    Claim("and goes further from where it began", "salsa", "ppo", 0.0, far),
)
