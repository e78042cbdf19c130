"""Critique-RL, arXiv:2510.24320: a critic learns to judge first, then to help, and may not forget to judge.

The paper's claim: a critic that is rewarded only for what a frozen actor makes of its critiques does not learn to tell
right answers from wrong ones. So stage one rewards the verdict, and stage two, begun and anchored where it ended, the
second answer and still the verdict. MATH, Qwen2.5-3B, Acc@Refine and Acc@Dis: 44.2 and 66.5 of the critic before,
47.3 and 77.7 without judging in stage two, 48.6 and 82.8 with it.

Reproduced: both stages, in the paper's form and in the release's (`released`: a wrong verdict costs -1, whatever became
of the answer); leave-one-out of four critiques with the KL taken off afterwards, return-to-go, whitening, clip 0.2, two
epochs; on two-digit additions without a carry, half of them answered wrong. Not reproduced: Qwen2.5, MATH, GSM8K.

Deviations: the first answers are a program's that errs as often, not samples of the actor; the actor was taught by
program to do as it is told (a "Wrong" makes it write the sum that the steps give, a "Correct" its own again); critiques
are sampled at temperature 1, not 0.7; 16 answers with 4 critiques a step.

The card asks that after the second answer as the only reward one of the rates, "right to wrong" or "wrong to right", is
no better than before. Nothing speaks for that where the actor does as it is told, so it is no claim here. Acc@Dis,
Acc@Refine, their difference and both rates are in every run: "terms/dis", "terms/refined", "terms/delta" ...
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.rloo_kl import RLOOThenKL
from ludus.curricula.horizon import fixed
from ludus.curricula.roles import Fixed
from ludus.envs.small.critiques import Critiques
from ludus.losses.clipped import clipped_ratio
from ludus.models.actor_base import ActorBase
from ludus.models.trained import Trained
from ludus.models.world_base import Stage, WorldBase
from ludus.rewards.critique import Helping, Judging
from ludus.rollouts.critique_refine import CRITIC, CritiqueRefine
from ludus.train.claims import Claim
from ludus.train.measured import Measured
from ludus.train.recipe import Evaluation, Frozen, Recipe
from ludus.types import Optim, Sampling

world = Critiques()

stage_one = Recipe(
    env=world,
    strategy=CritiqueRefine(Sampling(max_tokens=32), Sampling(temperature=0.0, max_tokens=4)),
    reward=Judging(),
    credit=RLOOThenKL(kl=0.01),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    reference=True,
    others={"actor": Frozen(ActorBase(world, share=0.5))},
    cast=Fixed({"critic": "policy", "actor": "actor"}),
    horizon=fixed(1),
    model=WorldBase(world, first=(Stage(560, 0.95),), share=0.6, steps=140, turns=1),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), epochs=2),
    tasks=16,
    answers=4,
    steps=40,
    evaluation=Evaluation(tasks=128, max_turns=1, role=CRITIC),
)
recipe = replace(stage_one, reward=Helping(), model=Trained(stage_one))
indirect = replace(stage_one, reward=Helping(weight=0.0), steps=stage_one.steps + recipe.steps)

first_released = replace(stage_one, reward=Judging("released"))
released = replace(recipe, reward=Helping(mode="released"), model=Trained(first_released))

# The paper's numbers, for MATH: replace `env` by your problems, the actor's answers to them and their verifier.
first_paper = replace(
    stage_one,
    strategy=CritiqueRefine(
        Sampling(temperature=0.7, max_tokens=1536), Sampling(temperature=0.0, max_tokens=1024)
    ),
    others={"actor": Frozen("Qwen/Qwen2.5-3B")},
    model="Qwen/Qwen2.5-3B",
    optim=Optim(lr=5e-7, epochs=2),
    steps=500,
)
paper = replace(first_paper, reward=Helping(), model=Trained(first_paper))

exam = replace(stage_one, evaluation=Evaluation(tasks=256, answers=4, max_turns=1))
arms = {
    "two stages": Measured(exam, Trained(recipe)),
    "released": Measured(exam, Trained(released)),
    "indirect only": Measured(exam, Trained(indirect)),
    "before": Measured(exam, stage_one.model),
}
pair = ("two stages", "indirect only")
claims = (
    Claim("verdicts are better at equal steps", *pair, margin=0.1, measure="terms/dis"),
    Claim("second answers are no worse", *pair, margin=-0.03, measure="terms/refined"),
    Claim("the actor is helped more", "two stages", "before", margin=0.1, measure="terms/refined"),
)
