"""IGPO, arXiv:2510.14967: pay each turn by how much it raised the policy's own probability of the right answer.

The paper's claim: on long searches whose answers are all wrong, an outcome reward says nothing and this one still
does. 58.7 average F1 over seven question-answering sets against 53.9 for DeepResearcher, with Qwen2.5-7B-Instruct.

Reproduced: the score by the policy that acts, before each turn and beside the rollout (the gold answer enters neither
an observation nor a training sequence), gains and outcomes in one pool per group, discounted sums, the clipped loss
with a KL; on look-up chains of two and three pages. Not reproduced: web search, the seven sets, the format penalty of
-2 (here what is no action costs a turn). The outcome is the exact code and not its F1: with F1 (`Lookup(graded=True)`)
a guess at once earns a quarter, and the policy came to guess at once.

The base has seen other corpora; it copies names out of what it read, and its last games were poor ones, so
that it solves 15 of 256 held-out attempts. It hardly knows which relation a question asks for: a base of its 800 good
steps alone follows pages, and solves .53 of the chains of two and .22 of those of three, greedily. Rate and updates
were chosen on the arm `gain` alone, seed 0: from .06 to .28 in 50 steps and .29 in 75.

The release differs from the paper, and `released` is what its trainer computes: returns with gamma 1, less the mean at
the same token position of the group, not divided by a deviation.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.advantages.pooled import IGPO, IGPOReleased
from ludus.curricula.horizon import fixed
from ludus.envs.small.lookup import Lookup
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL
from ludus.models.world_base import Stage, WorldBase
from ludus.rewards.information_gain import InformationGain
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.gain import AnswerProbability
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Rollout, Sampling, Task


def outcome(rollout: Rollout) -> float:
    """What the world paid for the answer."""
    return rollout.reward


def gold(task: Task) -> str:
    """The right code, as it stands behind `answer`."""
    return f" {task.answer}"


def other(task: Task) -> str:
    """A code that is somewhere in the corpus and answers nothing: the control."""
    return f" {task.extras['other']}"


agent = AgentLoop(Sampling(max_tokens=8))

recipe = Recipe(
    env=Lookup(),
    strategy=AnswerProbability(agent, lead_in="answer", answer=gold),
    reward=InformationGain(outcome),
    credit=IGPO(gamma=1.0),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    kl=KL(0.001, k3),
    reference=True,
    horizon=fixed(8),
    model=WorldBase(
        Lookup(train=8192),
        first=(Stage(800, 0.9),),
        share=0.6,
        steps=60,
        turns=8,
        muon=0.02,
        adam=2e-3,
    ),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999), updates=2),
    tasks=16,
    answers=8,
    steps=80,
    evaluation=Evaluation(tasks=128, answers=2, max_turns=8),
)

released = replace(recipe, credit=IGPOReleased())
outcome_only = replace(recipe, strategy=agent, reward=None, credit=GRPO())
wrong_answer = replace(recipe, strategy=AnswerProbability(agent, lead_in="answer", answer=other))

paper = replace(
    recipe,
    strategy=AnswerProbability(AgentLoop(Sampling(max_tokens=1024)), lead_in="answer", answer=gold),
    horizon=fixed(10),
    model="Qwen/Qwen2.5-7B-Instruct",
    optim=Optim(lr=1e-6),
    tasks=32,
    answers=16,
    evaluation=Evaluation(tasks=128, max_turns=10),
)

budget = Budget("turns", 40_000)
arms = {
    name: replace(variant, steps=10_000, budget=budget)
    for name, variant in {
        "gain": recipe,
        "outcome only": outcome_only,
        "gain of a wrong answer": wrong_answer,
    }.items()
}
claims = (
    Claim("gains of turns beat the outcome alone", "gain", "outcome only", margin=0.1),
    Claim("it is the right answer that helps", "gain", "gain of a wrong answer", margin=0.1),
)
