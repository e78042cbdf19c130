"""RL-PLUS, arXiv:2508.00222: one right answer by somebody else in every group, weighed by what is known of it.

The paper's claim: a policy that learns from its own answers alone stays within what it can already do. With one
external solution in a group of eight, a ratio to a mixture instead of the unknown author, and more weight where the
policy is unsure, six mathematics sets rise from 45.5 (GRPO) and 50.1 (LUFFY) to 53.4 with Qwen2.5-Math-7B.

Reproduced: group and mean with the external answer in them, mixture ratio and unsureness with the released
constants, no clip, sum over tokens by a fixed length; beside it GRPO, LUFFY and imitation, on a fork grammar whose
six forks nobody guesses (1 in 4096). Not reproduced: OpenR1-Math traces. The formula of the paper divides by the
deviation; the released script does not, nor does `recipe`. The constants do not amplify what is very unlikely: the
weight of a token is 0.04 at probability 0.01 and largest (0.57) at 0.46; `unlikely` guesses the author by 1 /
vocabulary instead of 1.

An external answer earns what the world gives for it: "wrong examples" earn 0 and must not be imitated. Equal steps
of 24 groups of 8; RL-PLUS samples 7 of them, so the baselines sample more.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from math import inf

from torch import Tensor, ones_like

from ludus.advantages.credit import GRPO, DrGRPO
from ludus.curricula.examples import Examples
from ludus.curricula.horizon import fixed
from ludus.curricula.uniform import Uniform
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.losses.mixture_ratio import foreign
from ludus.losses.shaped import shaped
from ludus.losses.supervised import sft
from ludus.losses.two_sources import two_sources
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.with_examples import WithExamples
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Batch, Key, Optim, Sampling, Task

world = Forks(forks=6, fill=1, needed=tuple(range(6)))


def gold(task: Task) -> str:
    return task.answer


def wrong(task: Task) -> str:
    rng = Key(0, ("wrong example", task.id)).generator()
    return world.wrong(world.start("train", task.extras["index"]), rng)


def external(batch: Batch) -> Tensor:
    assert batch.external is not None
    return batch.external


def one(batch: Batch) -> Tensor:
    return ones_like(batch.logp)


own = partial(clipped_ratio, low=inf, high=inf)  # released: not clipped

recipe = Recipe(
    env=world,
    strategy=WithExamples(AgentLoop(Sampling(temperature=1.0, max_tokens=world.length))),
    credit=DrGRPO(),
    loss=partial(two_sources, own=own, theirs=foreign),
    over=world.length,
    entropy=0.001,
    curriculum=Examples(gold, answers=7),
    horizon=fixed(1),
    model=WorldBase(world, share=0.0),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999)),
    tasks=24,
    answers=8,
    steps=300,
    evaluation=Evaluation(tasks=512, max_turns=1),
)

unlikely = replace(
    recipe,
    loss=partial(two_sources, own=own, theirs=partial(foreign, uniform="vocab", vocabulary=320)),
)
# The released numbers, for mathematics: replace `env`, and `gold` by your solutions.
paper = replace(
    recipe,
    strategy=WithExamples(AgentLoop(Sampling(temperature=1.0, max_tokens=8192))),
    over=8192,
    model="Qwen/Qwen2.5-Math-7B",
    optim=Optim(lr=1e-6, updates=2),  # 128 prompts in mini-batches of 64
    tasks=128,
)

arms = {
    "rl-plus": recipe,
    "grpo": replace(recipe, credit=GRPO(), loss=clipped_ratio, over="tokens", curriculum=Uniform()),
    "wrong examples": replace(recipe, curriculum=Examples(wrong, answers=7)),
    "luffy": replace(recipe, loss=partial(two_sources, own=own, theirs=shaped)),
    "imitation": replace(recipe, credit=one, loss=sft, over="tokens", select=external),
}
claims = (
    Claim("an external answer in every group teaches", "rl-plus", None, margin=0.8),
    Claim("it finds what GRPO does not", "rl-plus", "grpo", margin=0.6),
    Claim("wrong examples do no harm", "wrong examples", "grpo", margin=-0.05),
)
