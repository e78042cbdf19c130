"""AgentGym-RL with ScalingInter-RL, arXiv:2509.08755: train an agent over many turns, with a horizon that grows.

The paper's claim: an agent that learns first with few allowed interactions and is given more in stages explores
without collapsing, and ends above one that had the long horizon from the start.

Reproduced: the agent loop, outcome rewards, the multi-turn forms of GRPO, PPO, RLOO, REINFORCE++ and ReMax, the staged
horizon, TextCraft with its real recipes. Not reproduced here: 7B models, the other four families (see the
environment module). Deviations from the release, each of which it has wrong: sampled ids are kept and never encoded
again; the reward stands on the last token that the policy wrote; the horizon is derived from the step number.

The default is the small world: a base of under a million parameters and generated books, held-out ones for
evaluation. The paper's own setting for TextCraft is `paper` below.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GAE, GRPO, RLOO, ReinforcePlusPlus, ReMax
from ludus.curricula.horizon import fixed, staged
from ludus.envs.games.books import generated, minecraft
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling

recipe = Recipe(
    env=generated(depth=(1, 1)),
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=32), total="last"),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    entropy=0.004,
    horizon=staged([4, 5, 6], every=20),
    model="textcraft",
    optim=Optim(lr=6e-4),
    tasks=16,
    answers=8,
    steps=90,
    evaluation=Evaluation(tasks=256, max_turns=6, every=15),
)

ppo = replace(recipe, credit=GAE(), critic=True)
rloo = replace(recipe, credit=RLOO())
reinforce_pp = replace(recipe, credit=ReinforcePlusPlus())
remax = replace(recipe, credit=ReMax())

real_book = replace(
    recipe,
    env=minecraft(),
    model="minecraft",
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=64), total="last"),
    horizon=staged([10, 15, 20], every=15),
    steps=45,
    evaluation=Evaluation(tasks=108, max_turns=20, every=15),
)

paper = replace(
    real_book,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=512), total="last"),
    kl=KL(0.001, partial(k3, cap=10.0)),
    entropy=0.0,
    reference=True,
    model="Qwen/Qwen2.5-7B-Instruct",
    optim=Optim(lr=1e-6, updates=4),
    horizon=staged([10, 20, 30], every=100),
    tasks=32,
    answers=8,
    steps=400,
    evaluation=Evaluation(tasks=100, max_turns=30),
)

budget = Budget("turns", 40_000)
arms = {
    name: replace(recipe, horizon=horizon, steps=10_000, budget=budget)
    for name, horizon in {
        "staged": recipe.horizon,
        "fixed short": fixed(4),
        "fixed long": fixed(6),
    }.items()
}
claims = (
    Claim("training makes the agent better", "staged", None, margin=0.3),
    Claim("a staged horizon is no worse than a long one", "staged", "fixed long", margin=-0.02),
    Claim("a staged horizon beats a short one", "staged", "fixed short", margin=0.08),
)
