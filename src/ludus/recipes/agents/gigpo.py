"""GiGPO, arXiv:2505.10978: beside whole episodes, compare what was done in one and the same state.

The paper's claim: rollouts of a task pass through equal states again and again, so turns can be compared with turns
without a single extra rollout, and long tasks are learnt better than from episode advantages alone: more than 12
points over GRPO on ALFWorld, 9 on WebShop, with the same rollouts.

Reproduced: both levels of the advantage with both normalisations, the episode's statistics over turns (the release's
default) or over rollouts, the penalty on what is no action, on a 4 x 4 grid where nearly every state is met again.
Not reproduced: ALFWorld and WebShop, and grouping by string similarity. Deviations: an episode is one context with its
whole history, where the release makes a sequence of each step with a history of 2 or 3 (the anchor is the observation
alone either way, so the groups are the same); the penalty is 1 % of the success reward as there, with success 1.

The base has to know a little of positions: from one that walked at random (0.33 of the held-out goals in 8 turns), 40
steps moved nothing at any rate tried, 3e-4 to 1e-3. The measure "anchor/compared" is the share of turns that had
something to be compared with. It is near 1 here and near the share of first turns in search tasks, where the method
adds little.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.anchor import GiGPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.grid import corridor, grid
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

world = replace(grid(4, 4), invalid=0.01)

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(max_tokens=4)),
    credit=GiGPO(gamma=0.95, omega=1.0, scale="none"),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    kl=KL(0.01, k3),
    reference=True,
    horizon=fixed(8),
    model=WorldBase(world, share=0.15, steps=500, turns=12, muon=0.02, adam=2e-3),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999)),
    tasks=16,
    answers=8,
    steps=40,
    evaluation=Evaluation(tasks=48, answers=8, max_turns=8),
)

episode_only = replace(recipe, credit=GiGPO(omega=0.0, scale="none"))
with_std = replace(recipe, credit=GiGPO(scale="group"))

# the table of the paper's demonstration: one row of six cells, in which a policy can only waste steps
line = replace(
    recipe,
    env=corridor(),
    model=WorldBase(corridor(), share=0.0, steps=80, turns=40),
    horizon=fixed(40),
    tasks=4,
    evaluation=Evaluation(tasks=1, answers=32, max_turns=40),
)

paper = replace(
    recipe,
    env=replace(world, success=10.0, invalid=0.1),
    strategy=AgentLoop(Sampling(max_tokens=512)),
    horizon=fixed(50),
    model="Qwen/Qwen2.5-1.5B-Instruct",
    optim=Optim(lr=1e-6),
    steps=150,
    evaluation=Evaluation(tasks=48, max_turns=50),
)

arms = {"gigpo": recipe, "episode only": episode_only}
claims = (
    Claim("training makes the agent better", "gigpo", None, margin=0.1),
    Claim("comparing equal states beats episodes alone", "gigpo", "episode only", margin=0.1),
)
