"""SRPO, arXiv:2506.01713: a model that sees answers, reflects and answers again, and is paid for what that changed.

The paper's claim: supervised on reflections that a stronger model wrote (a part of them on wrong first answers), then
trained by GRPO with a reward for format, for the effect of the reflection and for its length, Qwen2.5-VL-7B and 32B
reason better than with GRPO on accuracy and format (MathVista, MathVision, MathVerse, MMMU-Pro).

Reproduced: the five parts in one response, the table of outcomes, the length term, the release's rule that a response
without two full attempts earns nothing, the filter on the accuracy of a prompt, GRPO over eight answers without KL, a
frozen vision tower and projector; on generated pictures of nine cells (count, compare, locate), with a tiny model of
LLaVA's classes. The base is made in one go: scripted play in five parts, where in a share a teacher who knows what was
drawn reflects, on a wrong first attempt in three of ten cases; it stands for pre-training and for the reflection SFT.
Not reproduced: Qwen2.5-VL, whose pictures have positions in three dimensions, which contexts of the local engine do not
carry (see ludus.engines.local.pictures); the larger model that writes the reflections; math-verify, since answers here
are words; the benchmarks. In the paper the filter is applied to the data beforehand, here to each step's groups.

The table pays for a feigned mistake: wrong and then right earns 1.0, right and kept 0.75. "first answer counts" is the
arm that does not pay for it (0.5 against 0.75). terms/first is the accuracy of the first answer, and must not fall.

Without length and effect terms the reward is GRPO's only where accuracy is that of the last answer; the table's own is
also paid where the first answer alone is right. The released code for verl has the table as a chained comparison, which
computes something else (see ludus.rewards.reflection); this is the intended one.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.within import Within
from ludus.envs.small.shapes import Shapes
from ludus.losses.clipped import clipped_ratio
from ludus.models.shapes_base import ShapesBase
from ludus.rewards.reflection import Effects, Reflection
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.first_attempt import FirstAttempt
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Sampling

recipe = Recipe(
    env=Shapes(),
    strategy=FirstAttempt(AgentLoop(Sampling(max_tokens=48))),
    reward=Reflection(),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    curriculum=Within(0.1, 0.9),
    horizon=fixed(1),
    model=ShapesBase(Shapes(), share=0.3, clear=800, steps=900, muon=0.02, adam=2e-3),
    optim=Optim(lr=4e-4, betas=(0.9, 0.999)),
    tasks=24,
    answers=8,
    steps=100,
    evaluation=Evaluation(tasks=128, answers=4, max_turns=1),
)

# The paper's numbers: for a model of LLaVA's family, and an environment with your pictures and problems.
paper = replace(
    recipe,
    strategy=FirstAttempt(AgentLoop(Sampling(max_tokens=2048))),
    model="llava-hf/llava-1.5-7b-hf",
    optim=Optim(lr=1e-6),
    tasks=128,
)

grpo = Reflection(counts="last", effects=Effects(0, 0, 0), alpha=0.0)
arms = {
    "srpo": recipe,
    "first answer counts": replace(recipe, reward=Reflection(counts="first")),
    "grpo": replace(recipe, reward=grpo),
}
claims = (
    Claim("training makes the last answer better", "srpo", None, margin=0.1),
    Claim("the last answer is better than GRPO's", "srpo", "grpo", margin=0.03),
    Claim(
        "reflections repair more than they spoil",
        "srpo",
        "srpo",
        margin=0.0,
        measure="last/terms/repaired",
        against="last/terms/spoiled",
    ),
    Claim(
        "nobody learns to feign a mistake",
        "srpo",
        "grpo",
        margin=-0.03,
        measure="last/terms/first",
    ),
)
