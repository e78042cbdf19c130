"""MUA-RL, arXiv:2508.18669: put a person into the rollout, who tells what they want only when asked.

The paper's claim: an agent that is trained against a simulated user, and is paid only if the final database and what
it said are right, learns to ask and to use tools: 67.3 on TAU2 retail, 45.4 on airline, 28.4 on BFCL-V3 multi-turn
with 32B parameters.

Reproduced: the episode (one tool call a message, everything else goes to the user, ended by the user, a transfer or
the turn limit), a fresh database for each rollout, the reward from database states and required outputs, GRPO with a
small KL; with a scripted customer and three kinds of orders. Not reproduced: gpt-4o as the user (give `Shop` a
`person`), the cold start on synthetic dialogues (the base stands for it: it has seen a player who knows what to do in
a share of its turns), and that questions move to the minimum, which the claims do not measure.

The base asks, looks, copies order numbers and leaves; its last games were poor ones. What limits training is that it
picks among the listed orders nearly by chance: of three ways of teaching it to look up (longer, four layers, the number
behind the item) none did. Rate and updates were chosen on seed 0 (.11 to .19 in 45 steps, from a shorter base).

The release trains on the tau-bench *test* tasks, 50 airline and 115 retail, with required outputs emptied. Here no
wish of training is in the test split. Its comparison of outputs takes commas out of one side only; here of both. An
error of the user's model loses the episode and does not score it 0.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.shop import KINDS, Shop, everything_at_once
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.models.world_base import Stage, WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling

recipe = Recipe(
    env=Shop(),
    strategy=AgentLoop(Sampling(max_tokens=12)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    kl=KL(0.001, k3),
    reference=True,
    horizon=fixed(10),
    model=WorldBase(
        Shop(train=8192),
        first=(Stage(2000, 0.9),),
        share=0.6,
        steps=60,
        turns=10,
        muon=0.02,
        adam=2e-3,
    ),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), updates=2),
    tasks=16,
    answers=8,
    steps=80,
    evaluation=Evaluation(tasks=128, answers=2, max_turns=10),
)

# Two kinds of wishes write nothing. An agent that does nothing is paid for one of them: see success by domain.
all_kinds = replace(recipe, env=Shop(KINDS), model=WorldBase(Shop(KINDS), share=0.5, steps=400))
# The control: nothing is left to ask for, so nobody learns to ask.
open_book = replace(recipe, env=Shop(person=everything_at_once))

paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(max_tokens=1024)),
    horizon=fixed(30),
    model="Qwen/Qwen3-32B",
    optim=Optim(lr=1e-6),
    tasks=32,
    steps=960,
    evaluation=Evaluation(tasks=128, max_turns=30),
)

arms = {"agent": replace(recipe, steps=10_000, budget=Budget("turns", 90_000))}
claims = (Claim("training with a person makes the agent better", "agent", None, margin=0.2),)
