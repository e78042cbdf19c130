"""Preplan-and-Anchor, arXiv:2510.13554: amplify good answers at the tokens that plan and at those that anchor.

The paper's claim: attention shows a rhythm, a far look back that opens a chunk and then a token that all later ones
look at. Multiplying advantages by 1.5 at these tokens, with a share of an anchor's bonus for the token that prepared
it, beats GRPO and bonuses at random or uncertain tokens (Qwen3-4B on Countdown: 63.1 against 52.6, 55.0 and 57.7).

Reproduced: both measures from eager maps of the middle layers, read before each update with the weights of then; the
three rules (chunk openings, anchors, coupled), advantages below 0 left alone, no KL, no entropy bonus; and the
controls, which amplify as many tokens of an answer: random, most uncertain, least looked at. On the fork grammar, with
the distances of the card's check (window 3, later tokens 1 to 4 away). Not reproduced: Qwen3 on Countdown, CrossThink
and mathematics; the figures on entropy and perturbation. No gain is promised at this size: what is claimed is that
training works and costs nothing against GRPO, which is weaker than the paper's claim.

Deviations: a model of 3 layers has 2 to read and not 5, with 8 heads in all, of which 3 are local and 3 global. One
update a step (16 in the paper), so the clip does nothing. The paper gives no thresholds and no share for the coupled
rule: medians of the answer and a half stand in for them. The extra pass makes a step about 1.7 times as long here. The
base has seen right answers (0.3 of its games): from one that guesses, GRPO is slow (0.12 to 0.28 in 80 steps, with two
right words a fork).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from torch import Tensor

from ludus.advantages.credit import GRPO
from ludus.advantages.scaled import Scaled
from ludus.curricula.horizon import fixed
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.models import tiny
from ludus.models.probes import entropy
from ludus.models.rhythm import Highest, Rhythm, chance
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Optim, Probe, Sampling
from ludus.weights.attention_rhythm import coupled, global_anchor, local_chunk

world = Forks(forks=3, fill=2, needed=(0, 1, 2))
size = tiny.Size(hidden=64, layers=3, heads=4, shared=2, head=16, inner=192)


def local(waad: Tensor, fai: Tensor) -> Tensor:
    return local_chunk(waad)


def anchors(waad: Tensor, fai: Tensor) -> Tensor:
    return global_anchor(fai)


def forgotten(waad: Tensor, fai: Tensor) -> Tensor:
    """The tokens that later ones look at least."""
    return global_anchor(-fai)


toy = partial(Rhythm, window=3, low=1, high=4)

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=world.length)),
    credit=Scaled(GRPO(), "rhythm"),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    probes={"rhythm": toy(coupled)},
    horizon=fixed(1),
    model=WorldBase(world, share=0.3, size=size),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999)),
    tasks=24,
    answers=8,
    steps=40,
    evaluation=Evaluation(tasks=512, max_turns=1),
)

names: dict[str, Probe] = {
    "coupled": toy(coupled),
    "local chunks": toy(local),
    "global anchors": toy(anchors),
    "least influential": toy(forgotten),
    "random tokens": Highest(chance),
    "highest entropy": Highest(entropy),
}
# The paper's numbers, for puzzles and mathematics: replace `env` by your problems and their verifier.
paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=1024)),
    probes={"rhythm": Rhythm()},
    model="Qwen/Qwen3-4B-Base",
    optim=Optim(lr=1e-6, updates=16),  # 512 answers in mini-batches of 32
    tasks=64,
    steps=500,
)

arms = {
    **{name: replace(recipe, probes={"rhythm": probe}) for name, probe in names.items()},
    "grpo": replace(recipe, credit=GRPO(), probes={}),
}
claims = (
    Claim("training makes the policy better", "coupled", None, margin=0.3),
    Claim("coupled credit is no worse than GRPO by 0.1", "coupled", "grpo", margin=-0.1),
    Claim("nor than bonuses at random", "coupled", "random tokens", margin=-0.1),
)
