"""SEC, a self-evolving curriculum, arXiv:2505.14970: draw the kind of task that moves the policy most.

The paper's claim: a bandit over categories, whose reward is the mean |advantage| of a category's answers, finds by
itself the tasks that are neither hopeless nor finished, and beats random and easy-to-hard order on Countdown, Zebra,
ARC-1D and mathematics, most clearly on the hardest held-out levels; hard-to-easy order can end at nothing.

Reproduced: the bandit with its moving average and Boltzmann policy, next to random, easy-to-hard and hard-to-easy
order. The small world is a ladder: one answer of five forks, of which a task of level k needs the first k right,
from level 0, which every answer solves, to level 5, which one in 32 does. Not reproduced: the paper's worlds. A
small experiment on levels that do not build on each other, as these do, showed no gain in success over random order,
so the claim is only that none is lost. The share of tasks drawn at the frontier is no measure of a claim yet;
success by level is in metrics.jsonl.

Of a category that was not drawn the paper keeps the value; the release lets it decay: `release`. Temperature 0.4 is
the paper's for mathematics; it has 1 for Countdown and 0.2 for three kinds of tasks.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.bandit import Bandit, boltzmann
from ludus.curricula.horizon import fixed
from ludus.curricula.ordered import Ordered
from ludus.curricula.uniform import Uniform
from ludus.envs.small.forks import Forks
from ludus.envs.together import Together
from ludus.losses.clipped import clipped_ratio
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

levels = [
    Forks(5, fill=1, needed=tuple(range(k)), values=2, choices=2, test=100, name=f"forks-{k}")
    for k in range(6)
]
world = Together(tuple(levels), name="ladder")
policy = partial(boltzmann, temperature=0.4)

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=levels[0].length)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    curriculum=Bandit(policy, alpha=0.5),
    horizon=fixed(1),
    model=WorldBase(world, share=0.0),
    optim=Optim(lr=3e-4, betas=(0.9, 0.999)),
    tasks=16,
    answers=8,
    steps=200,
    evaluation=Evaluation(tasks=600, max_turns=1),
)

release = replace(recipe, curriculum=Bandit(policy, alpha=0.5, unvisited="decay"))

# The paper's numbers: replace `env` by problems with a difficulty or a domain.
paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=4096)),
    model="Qwen/Qwen2.5-3B",
    optim=Optim(lr=1e-6, updates=4),  # 256 prompts in mini-batches of 64
    tasks=256,
    steps=240,
)

drawn = recipe.steps * recipe.tasks
arms = {
    "sec": recipe,
    "random": replace(recipe, curriculum=Uniform()),
    "easy to hard": replace(recipe, curriculum=Ordered(drawn)),
    "hard to easy": replace(recipe, curriculum=Ordered(drawn, hardest_first=True)),
    "decay": release,
}
claims = (
    Claim("training makes the policy better", "sec", None, margin=0.1),
    Claim("no worse than random order", "sec", "random", margin=-0.01),
    Claim("random order beats hard to easy", "random", "hard to easy", margin=0.0),
)
