"""CORY, arXiv:2410.06101: a pioneer and an observer of its answer, who earn what both are worth and change roles.

The paper's claim: two copies of a model, one answering the query and one the query and the first answer, each trained
by a PPO of its own on the sum of their rewards, with roles exchanged every few updates, reach a higher reward at a
lower KL than PPO (GPT-2 on IMDB reviews), and do not collapse where PPO degrades (Llama-2-7b-chat on GSM8K).

Reproduced: both roles, the team's reward, two policies with critics of their own, swaps that start optimisers, KL
coefficient and reward statistics afresh, the KL over the whole vocabulary with its controller, rewards centred and
scaled, four epochs a step; evaluated is whoever is pioneer, alone. The task is lines of praise with a hidden worth of
each word, as sentiment is for reviews. PPO has as many answers a step and as many steps, one policy's worth each: it
learns from two answers where a policy of CORY learns from one. "At equal KL" is two claims: no worse, and no further.

Not reproduced: IMDB, GSM8K, and the adaptive KL's effect: at the paper's horizon it moves the coefficient by 0.2 % a
step. Deviations: the critic is a model of its own (there a head beside the policy's, its loss weighed with 0.1), so it
has a learning rate of its own; no repetition penalty; eta begins at 0.1 (0.4); the observer is shown the pioneer's
answer behind the query and not before it, and its line is judged without the query's words, which are worth nothing
here. distinct-2 is of eight answers to one query.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.adaptive_kl import AdaptiveKL
from ludus.curricula.horizon import fixed
from ludus.curricula.roles import Swapping
from ludus.envs.small.praise import LOOK, Praise
from ludus.losses.clipped import clipped_ratio
from ludus.models.full_kl import FullKL
from ludus.models.praise_base import PraiseBase
from ludus.rewards.gold import Gold
from ludus.rewards.team import Team
from ludus.rollouts.judged import Judged
from ludus.rollouts.single_turn import SingleTurn
from ludus.rollouts.two_roles import PIONEER, PioneerObserver
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Policy, Recipe
from ludus.types import Optim, Sampling

world = Praise(bar=0.3)
base = PraiseBase(world, share=0.3, steps=300, turns=1)
sampling = Sampling(temperature=1.0, max_tokens=16)
strategy = PioneerObserver(sampling, look=LOOK)
every = 5

policy = Policy(
    credit=AdaptiveKL(eta=0.1, target=6.0, horizon=10_000, restart=every),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    critic=True,
    probes={"kl": FullKL(base)},
    model=base,
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), critic_lr=2e-3, epochs=4),
)

recipe = Recipe(
    env=world,
    strategy=strategy,
    reward=Team(Gold(world)),
    credit=policy.credit,
    loss=policy.loss,
    over=policy.over,
    critic=True,
    probes=policy.probes,
    model=base,
    optim=policy.optim,
    others={"other": policy},
    cast=Swapping(every=every),
    horizon=fixed(1),
    tasks=12,
    answers=8,
    steps=45,  # an even number of swaps: the recipe's own policy ends as the pioneer
    evaluation=Evaluation(
        tasks=128, answers=4, max_turns=1, strategy=Judged(strategy, Gold(world)), role=PIONEER
    ),
)

lasting = AdaptiveKL(eta=0.1, target=6.0, horizon=10_000)
no_swap = replace(
    recipe,
    credit=lasting,
    others={"other": replace(policy, credit=lasting)},
    cast=Swapping(every=0),
)
alone = SingleTurn(sampling)
ppo = replace(
    recipe,
    strategy=alone,
    reward=Gold(world),
    credit=lasting,
    others={},
    cast=None,
    tasks=24,  # as many answers a step
    evaluation=Evaluation(tasks=128, answers=4, max_turns=1, strategy=Judged(alone, Gold(world))),
)

arms = {"cory": recipe, "no swap": no_swap, "ppo": ppo}
claims = (
    Claim("training makes the pioneer better", "cory", None, margin=0.2),
    Claim("alone it is no worse than PPO with as many samples", "cory", "ppo", margin=-0.05),
    Claim(
        *("nor further from the base: PPO's KL is as large", "ppo", "cory"),
        margin=-1.0,
        measure="last/kl",
        against="last/policy/kl",
    ),
    Claim("its lines vary more", "cory", "ppo", margin=0.0, measure="last/terms/distinct"),
    Claim("roles that never change are worse", "cory", "no swap", margin=0.0),
)
