"""ROVER, arXiv:2509.24981: value the random policy instead of improving one's own.

The paper's claim: in a tree with one reward of 0 or 1 at its end, acting greedily on the value of the uniformly
random policy is optimal, and sampling from its softmax keeps several solutions. In practice the log-ratio to the
sampling policy is regressed on the centred reward and the mean, over the vocabulary, of the next state's: more
solutions and a higher pass@k than GRPO at equal or better success (Qwen3-8B, seven sets: 48.4 against 39.7).

Reproduced: the regression with its next value over the whole vocabulary (no clip, KL, entropy bonus or deviation),
the variants without next value and with GRPO's loss on the same credit, on a fork grammar with eight right answers.
Not reproduced: Qwen3, Countdown, DeepScaleR. The claims here are about success; diversity (entropy over the
solutions when success first reaches 0.9) is compared on an exact table in tests/learning/test_rover_table.py, where
most of it comes from leaving the deviation out and the next value adds nothing measurable.

What the paper's didactic figure says of rho = 1 does not hold of exact values: their softmax succeeds at 0.14 there.
With one update a step the method is REINFORCE, times 2: `updates` is 4 here. `mathematics` divides by the deviation,
as that script of the release does against the paper; length is averaged over tokens, as the code does and the paper
not.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO, DrGRPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.losses.rover import rover
from ludus.models.probes import mean_logp
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

world = Forks(forks=3, fill=1, needed=(0, 1, 2), right=2)

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=world.length)),
    credit=DrGRPO(),
    loss=rover,
    over="tokens",
    probes={"old_mean_logp": mean_logp},
    horizon=fixed(1),
    model=WorldBase(world, share=0.0),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), updates=4),
    tasks=24,
    answers=8,
    steps=160,
    evaluation=Evaluation(tasks=128, answers=8, max_turns=1),
)

# The paper's numbers, for Countdown: replace `env` by your problems and their verifier.
paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=1024)),
    model="Qwen/Qwen2.5-3B",
    optim=Optim(lr=1e-6, updates=4),  # 128 prompts in mini-batches of 32
    tasks=128,
    answers=5,
)
mathematics = replace(
    paper,
    strategy=AgentLoop(Sampling(temperature=0.6, max_tokens=8192)),
    credit=GRPO(),
    model="Qwen/Qwen3-8B-Base",
    answers=8,
    steps=600,
)

clipped = partial(clipped_ratio, low=0.2, high=0.2)
arms = {
    "rover": recipe,
    "without next value": replace(recipe, loss=partial(rover, beta=0.0)),
    "grpo": replace(recipe, credit=GRPO(), loss=clipped, probes={}),
    "grpo without deviation": replace(recipe, loss=clipped, probes={}),
}
claims = (
    Claim("training makes the policy better", "rover", None, margin=0.3),
    Claim("success is no worse than GRPO's", "rover", "grpo", margin=-0.02),
    Claim("the next value costs no success", "rover", "without next value", margin=-0.02),
)
