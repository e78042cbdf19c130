"""RLPR, arXiv:2506.18254: the reward is the policy's own probability of the reference, after its own reasoning.

The paper's claim: no verifier is needed, so reinforcement learning reaches domains whose answers have no single form;
above VeriFree by 7.6 on TheoremQA and 7.5 on Minerva, above General-Reasoner, which has a trained verifier, by 1.6 on
average over seven benchmarks.

Reproduced: the reference in the place of the answer that was given, the mean of its tokens' probabilities, less what
the first weights give it without reasoning (measured once), the share of 0.1 for the format, -1 for repetition, groups
dropped by a moving bar on their deviation, GRPO with clip 0.2 and 0.27; on chain sums whose answer has two right
spellings. Not reproduced: the general-domain data, and generating more until the batch is full after groups were
dropped. What is paid is the probability of one spelling; success is either one.

The base solves 0.22 of the held-out sums. The claims: where the reference is spelled as the policy spells, RLPR comes
within 5 points of exact match; where it is spelled as the policy seldom does, RLPR comes out above.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.spread import Spread
from ludus.curricula.uniform import Uniform
from ludus.envs.small.sums import Sums, given
from ludus.losses.clipped import clipped_ratio
from ludus.models.prior import Prior
from ludus.models.world_base import WorldBase
from ludus.rewards.forced_score import ForcedScore
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.forced_answer import ForcedAnswer
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Group, Optim, Sampling
from ludus.weights.spread import SpreadFilter

digits, words = Sums(terms=(3, 4)), Sums(terms=(3, 4), reference="words")
base = WorldBase(Sums(terms=(3, 4), spelled=0.1), share=0.2, steps=300, turns=1)
agent = AgentLoop(Sampling(max_tokens=40))


async def exact_match(groups: Sequence[Group]) -> list[Group]:
    """1 for the answer spelled as the reference is, else 0: all that can be paid without knowing what it means."""

    def paid(group: Group) -> Group:
        rollouts = (
            replace(r, reward=float(any(given(t.action) == r.task.answer for t in r.turns)))
            for r in group.rollouts
        )
        return replace(group, rollouts=tuple(rollouts))

    return [paid(group) for group in groups]


recipe = Recipe(
    env=digits,
    strategy=ForcedAnswer(agent),
    reward=ForcedScore(without=Prior(digits, base)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.27),
    over="tokens",
    entropy=0.001,
    curriculum=Spread(SpreadFilter(beta=0.5)),
    horizon=fixed(1),
    model=base,
    optim=Optim(lr=4e-4),
    tasks=16,
    answers=8,
    steps=80,
    evaluation=Evaluation(tasks=128, answers=4, max_turns=1),
)

other_spelling = replace(recipe, env=words, reward=ForcedScore(without=Prior(words, base)))
exact = replace(recipe, strategy=agent, reward=exact_match, curriculum=Uniform())
exact_other_spelling = replace(exact, env=words)

# The paper's numbers: replace `env`, here and in the Prior, by your problems with their reference answers.
paper = replace(
    recipe,
    strategy=ForcedAnswer(AgentLoop(Sampling(max_tokens=3072))),
    reward=ForcedScore(without=Prior(digits, "Qwen/Qwen2.5-7B")),
    model="Qwen/Qwen2.5-7B",
    optim=Optim(lr=1e-6, updates=4),
    tasks=96,
    steps=400,
    evaluation=Evaluation(tasks=128, max_turns=1),
)

budget = Budget("rollouts", 12_000)
arms = {
    name: replace(variant, steps=10_000, budget=budget)
    for name, variant in {
        "rlpr": recipe,
        "exact": exact,
        "rlpr, other spelling": other_spelling,
        "exact, other spelling": exact_other_spelling,
    }.items()
}
claims = (
    Claim("the reward teaches to add", "rlpr", None, margin=0.2),
    Claim("it is as good as exact match", "rlpr", "exact", margin=-0.05),
    Claim(
        "and better where the reference is spelled in another way",
        "rlpr, other spelling",
        "exact, other spelling",
        margin=0.0,
    ),
)
