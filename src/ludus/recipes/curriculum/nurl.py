"""NuRL, arXiv:2509.25666: where every attempt failed, ask again with an abstract hint, and once without it.

The paper's claim: a task that no answer solves teaches nothing, and a hint makes it teach; the policy then solves tasks
that plain GRPO never reaches. Llama-3.2-3B: 37.49 on average against 35.87; pass@1024 on GPQA rises from 63.6 to 69.7,
where GRPO stays at the base's value.

Reproduced: the trigger (no success in the group), the group that is formed anew of G - 1 hinted answers and one plain
one, each learnt from under the prompt that it was sampled from, hints fixed before training and free of the answer,
evaluation without hints; on chain sums of 6 to 8 terms. Not reproduced: hints that the policy writes itself (here all
running sums but the last; `data.hints.write_hint` writes them with a real model), the stage of GRPO before (the base
stands for it: it adds badly, and with a hint has one sum left), pass@1024, and that the answer is the worst hint.

The base solves 0.12 of the held-out sums (of sums of 4 to 6 terms 0.17, so that fewer groups fail whole). The price of
the plain answer: with 7 hinted successes it alone gets -2.475. Rollouts of the dropped first try count in the budget:
both arms sample equally much.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.hints import Hints
from ludus.curricula.horizon import fixed
from ludus.curricula.uniform import Uniform
from ludus.envs.small.sums import Sums
from ludus.losses.clipped import clipped_ratio
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling

world = Sums(terms=(6, 8))
hints = {task.id: world.hint(task) for task in world.tasks()}

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(max_tokens=48)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    curriculum=Hints(hints, answers=8),
    horizon=fixed(1),
    model=WorldBase(Sums(terms=(6, 8), hinted=0.5), share=0.0, steps=300, turns=1),
    optim=Optim(lr=4e-4),
    tasks=12,
    answers=8,
    steps=100,
    evaluation=Evaluation(tasks=128, answers=4, max_turns=1),
)

grpo = replace(recipe, curriculum=Uniform())

paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(max_tokens=2048)),
    curriculum=Hints(hints, answers=16),
    model="meta-llama/Llama-3.2-3B-Instruct",
    optim=Optim(lr=1e-6),
    tasks=64,
    answers=16,
    evaluation=Evaluation(tasks=128, max_turns=1),
)

budget = Budget("rollouts", 12_000)
arms = {
    name: replace(variant, steps=10_000, budget=budget)
    for name, variant in {"hints": recipe, "plain": grpo}.items()
}
claims = (
    Claim("training makes the policy better without hints", "hints", None, margin=0.1),
    Claim("hints after failure beat plain GRPO", "hints", "plain", margin=0.0),
)
