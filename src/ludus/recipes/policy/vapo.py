"""VAPO, arXiv:2504.05118: PPO with a critic that works for long answers.

The paper's claim: with a critic trained first on whole returns, one lambda for the critic (1) and another for the
policy that grows with the length of the answer, a wider upper clip, a mean over tokens, a likelihood term on right
answers and groups of answers, PPO reaches 60.4 on AIME24 with Qwen2.5-32B, where plain PPO reaches 5 and DAPO 50.

Reproduced: all seven parts. The small world is a chain of 64 words of which the first decides, so that credit has a
way to go; the two table comparisons (256 and 64 words) are in tests/learning/test_vapo_table.py. Not reproduced:
AIME. The margin of 0.3 over PPO was measured on the tables; whether a transformer shows it, whose optimiser rescales
small gradients and whose other 63 words are certain, is what the claim finds out. The explained variance of the
critic before the first policy update (0.5 wanted) is no measure of a claim yet. In the replication it does not: seed 0
rises to .50 of its training answers (step 101) and falls back, while GRPO's stays; the trial that settings come from
had 100 steps and ended on such a peak (.53).

Lambda is bounded at 0 below 20 words, where the formula is negative (not in the paper). The paper's critic starts
from a reward model; here from the policy. The first `critic_alone` steps count: all arms sample equally often.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from ludus.advantages.credit import GAE, GRPO
from ludus.advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from ludus.curricula.horizon import fixed
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.losses.objective import Term
from ludus.losses.supervised import sft
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Batch, Optim, Sampling
from ludus.weights.positive import of_correct


def correct(batch: Batch) -> Tensor:
    """[B,T] bool: the tokens of right answers; a verifier's reward is above 0 for those alone."""
    return of_correct(batch.mask, batch.rollout, batch.scored & (batch.reward > 0))


world = Forks(forks=1, fill=63, needed=(0,))

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=world.length)),
    credit=LengthAdaptiveGAE(alpha=0.05),
    loss=partial(clipped_ratio, low=0.2, high=0.28),
    over="tokens",
    terms=(Term(sft, correct, coef=0.1),),
    critic=True,
    horizon=fixed(1),
    model=WorldBase(world, share=0.0),
    optim=Optim(lr=3e-4, betas=(0.9, 0.999), critic_lr=2e-3, updates=4, critic_alone=30),
    tasks=16,
    answers=8,
    steps=200,
    evaluation=Evaluation(tasks=256, max_turns=1),
)

# The paper's numbers, for mathematics: replace `env` by your problems and their verifier.
paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=20480)),
    model="Qwen/Qwen2.5-32B",
    optim=Optim(lr=1e-6, critic_lr=2e-6, updates=16, critic_alone=50),
    tasks=512,
    answers=16,
    steps=5000,
)

at_once = replace(recipe.optim, critic_alone=0)
arms = {
    "vapo": recipe,
    "ppo": replace(
        recipe,
        credit=GAE(lam=0.95),
        loss=partial(clipped_ratio, low=0.2, high=0.2),
        terms=(),
        optim=at_once,
    ),
    "grpo": replace(recipe, credit=GRPO(), terms=(), critic=False, optim=at_once),
    "without pre-training": replace(recipe, optim=at_once),
    "one lambda": replace(recipe, credit=GAE(lam=0.95)),
    "fixed lambda": replace(recipe, credit=DecoupledGAE(0.95)),
    "without likelihood": replace(recipe, terms=()),
}
claims = (
    Claim("training makes the policy better", "vapo", None, margin=0.3),
    Claim("all parts together beat PPO", "vapo", "ppo", margin=0.3),
    Claim("with a critic no worse than GRPO", "vapo", "grpo", margin=-0.02),
)
