"""SUPO, arXiv:2510.06727: let the agent summarise when its context is full, and train the summaries with the rest.

The paper's claim: horizon is no longer bounded by the length of a context. On CodeGym about 3.2 points more with a
context of 4k than others with 32k; on BrowseComp-Plus about 53, and 60 where more summaries are allowed in the test
than in training.

Reproduced: contexts that restart from prompt and summary, one advantage per rollout on all of its contexts, token mean,
attempts that were cut off compared with and not learnt from; on a memory task of six pages that a context holds four
of. Not reproduced: CodeGym and BrowseComp-Plus; no release was found, and the paper's constants are from memory.
Deviation: the turn that overflowed is shown to the summary, since this world never shows a page twice.

One of the pages holds the fact; with one on each, and colours among the chatter, the small base did not learn to copy
from 3.6 million tokens.

The controls: a context that restarts with nothing but a token of its past (what is left of the summary is what plain
GRPO with truncation has), and summaries that are written but not trained. `longer` has twice the pages and twice the
summaries, for `ludus eval` of a trained model.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.memory import Memory
from ludus.losses.clipped import clipped_ratio
from ludus.models.memory_base import MemoryBase
from ludus.rollouts.summarise import Summarise
from ludus.rollouts.untrained import Untrained, cut_off, summaries
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling

world = Memory(turns=6, sentences=4, facts=1)
loop = Summarise(
    Sampling(max_tokens=4),
    longest=105,
    summaries=3,
    overflow="shown",
    summary_tokens=40,
    instruction="Remember who keeps which keys.",
    heading="keys",
)

recipe = Recipe(
    env=world,
    strategy=Untrained(loop, cut_off),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.28),
    over="tokens",
    horizon=fixed(10),
    model=MemoryBase(
        world,
        share=0.2,
        steps=900,
        muon=0.02,
        adam=2e-3,
        instruction=loop.instruction,
        heading=loop.heading,
    ),
    optim=Optim(lr=4e-4),
    tasks=16,
    answers=8,
    steps=80,
    evaluation=Evaluation(tasks=128, answers=2, max_turns=10),
)

truncated = replace(recipe, strategy=Untrained(replace(loop, summary_tokens=1), cut_off))
untrained = replace(recipe, strategy=Untrained(recipe.strategy, summaries))

longer = replace(
    recipe,
    env=replace(world, turns=12),
    strategy=Untrained(replace(loop, summaries=6), cut_off),
    horizon=fixed(16),
    evaluation=Evaluation(tasks=128, answers=2, max_turns=16),
)

paper = replace(
    recipe,
    env=Memory(),
    strategy=Untrained(Summarise(Sampling(max_tokens=1024), longest=4096, summaries=7), cut_off),
    horizon=fixed(100),
    model="Qwen/Qwen2.5-7B-Instruct",
    optim=Optim(lr=1e-6),
    evaluation=Evaluation(tasks=128, max_turns=100),
)

budget = Budget("rollouts", 5_000)
arms = {
    name: replace(variant, steps=10_000, budget=budget)
    for name, variant in {
        "summaries": recipe,
        "truncated": truncated,
        "untrained summaries": untrained,
    }.items()
}
claims = (
    Claim("summaries beat a context that forgets", "summaries", "truncated", margin=0.3),
    Claim("training them beats the base's", "summaries", None, margin=0.15),
    Claim("it matters that they are trained", "summaries", "untrained summaries", margin=0.1),
)
