"""RL Tango, arXiv:2505.15034: a generator and a verifier of its steps are trained by turns, and raise each other.

The paper's claim: a generative verifier that is rewarded for its final verdicts alone learns to judge steps, and its
step verdicts make the generator learn faster than outcomes do. Qwen2.5-Math-7B on mathematics: 46.1 on average where
GRPO has 37.0; GRPO's level after 200 steps is reached in 60.

Reproduced: the rewards of both, the two channels normalised apart, the falling share of the steps, the verifier's loss
weighed by moving counts of the classes, the schedule; on chains of three additions (three to five: `Chains()`) with one
tag per step, which the generator seldom solves at first. No oracle judges a step in training; what the step verdicts
are worth is measured afterwards. Not reproduced: Qwen, mathematics, ProcessBench, the forms with RLOO and REINFORCE++.

Deviations: 30 steps of warm-up and 60 of the generator for 40 and 300; three verdicts on a solution, not five, of which
the generator uses the first; the class weight multiplies the advantage, so KL and entropy are not weighed; of every sum
only the last digit is kept. The generator's rate was chosen on the GRPO arm, after 5e-4 had made both rise and fall.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ludus.advantages.balanced import Balanced
from ludus.advantages.channels import OutcomeAndSteps
from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.roles import Alternating
from ludus.envs.small.chains import Chains, Proofs, to_judge
from ludus.evals.f1 import f1
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.models.trained import Trained
from ludus.models.world_base import Stage, WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.solve_and_verify import FOUND, GENERATOR, SolveAndVerify, step_verdicts
from ludus.train.claims import Claim
from ludus.train.measured import Measured
from ludus.train.recipe import Evaluation, Policy, Recipe
from ludus.train.summary import summary
from ludus.types import Group, Optim, Sampling

world = Chains(terms=(4, 4), largest=4)
WARMUP, STEPS = 30, 60  # of the verifier alone, and of the generator
TURNS = (("generator", 3), ("verifier", 1))

clipped = partial(clipped_ratio, low=0.2, high=0.2)
verifier = Policy(
    credit=Balanced(GRPO(), FOUND[0]),
    loss=clipped,
    kl=KL(0.001, k3),
    entropy=0.001,
    reference=True,
    model=WorldBase(
        Proofs(replace(world, slips=0.25)), first=(Stage(640, 0.95),), share=0.6, steps=160, turns=1
    ),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999)),
)
tries = SolveAndVerify(to_judge, Sampling(max_tokens=40), Sampling(max_tokens=80), verdicts=3)
recipe = Recipe(
    env=world,
    strategy=tries,
    credit=OutcomeAndSteps(total=STEPS),
    loss=clipped,
    kl=KL(0.001, k3),
    entropy=0.001,
    reference=True,
    others={"verifier": verifier},
    cast=Alternating(TURNS, first="verifier", warmup=WARMUP, own="generator"),
    horizon=fixed(1),
    model=WorldBase(world, share=0.05, turns=1),
    optim=Optim(lr=2e-4, betas=(0.9, 0.999)),
    tasks=8,
    answers=5,
    steps=WARMUP + STEPS * 4 // 3,
    evaluation=Evaluation(
        tasks=128, max_turns=1, strategy=replace(tries, verdicts=1), role=GENERATOR
    ),
)

grpo = replace(
    recipe,
    strategy=AgentLoop(tries.generator),
    credit=GRPO(),
    others={},
    cast=None,
    steps=STEPS,
    evaluation=Evaluation(tasks=128, max_turns=1),
)
warm = replace(recipe, steps=WARMUP)
unbalanced = replace(warm, others={"verifier": replace(verifier, credit=GRPO())})


def judging(groups: Sequence[Group]) -> dict[str, float]:
    """How well solutions are told apart, and how many of the mistaken steps are found."""
    told, steps = summary(groups), step_verdicts(groups, world.right_steps)
    return {
        "balanced accuracy": (told["terms/right found"] + told["terms/wrong found"]) / 2,
        "F1 of mistakes": f1([not said for said, _ in steps], [not true for _, true in steps]),
    }


def judged_by(trained: Recipe) -> Measured:
    """The verifier that a recipe leaves, on solutions by the generator before training."""
    others = {"verifier": replace(verifier, model=Trained(trained, "verifier"))}
    exam = replace(recipe.evaluation, answers=4)
    return Measured(replace(recipe, others=others, evaluation=exam), recipe.model, judging)


arms = {
    "tango": recipe,
    "grpo": grpo,
    "warmed up": judged_by(warm),
    "unbalanced": judged_by(unbalanced),
}
WEIGHTS = "class weights keep the verifier from denying everything"
claims = (
    Claim("solves more after as many steps of the generator", "tango", "grpo", margin=0.05),
    Claim(WEIGHTS, "warmed up", "unbalanced", margin=0.2, measure="balanced accuracy"),
)
