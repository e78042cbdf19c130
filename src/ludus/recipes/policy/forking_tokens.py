"""80/20 forking tokens, arXiv:2506.01939: learn from the fifth of the tokens at which the policy is least sure.

The paper's claim: a minority of high-entropy tokens, the forks of a chain of thought, carries what reinforcement
learns. DAPO on the top 20 % alone is as good at 8B and better at 14B and 32B (AIME24 55.8 to 63.5); the bottom 80 %
fails.

Reproduced: one threshold for the batch over real tokens alone, taken once a step from the weights before the update,
the same tokens in numerator and denominator, groups of equal rewards left out; the comparison with all tokens, a
random fifth and the bottom 80 % on the fork grammar, where forks are exactly 20 % of the tokens. Not reproduced:
Qwen3 on DAPO-Math-17k; the refill of dynamic sampling and the soft punishment of overlong answers; decoding at two
temperatures. In the small world the top fifth does not beat all tokens (0.53 against 0.63 in a small experiment): its
claims are against a random fifth and the rest. Entropy at the end, higher with the top fifth, is in metrics.jsonl
and not in a claim.

`trl` is the variant of TRL's top_entropy_quantile, which counts all tokens in the denominator.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import Tensor

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.envs.small.forks import Forks
from ludus.losses.clipped import clipped_ratio
from ludus.models.probes import entropy
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Batch, Credited, Key, Optim, Sampling
from ludus.weights.entropy_top import top_entropy
from ludus.weights.groups import mixed


def everything(batch: Batch) -> Tensor:
    """[B,T] bool: tokens of groups with better and worse answers, as DAPO learns from."""
    teaches = mixed(batch.reward, batch.group, scored=batch.scored)
    return batch.mask & teaches[batch.rollout][:, None]


def top(batch: Batch, rho: float = 0.2) -> Tensor:
    return top_entropy(batch.probes["old_entropy"], everything(batch), rho=rho)


def bottom(batch: Batch, rho: float = 0.2) -> Tensor:
    return everything(batch) & ~top(batch, rho)


def random(batch: Batch, rho: float = 0.2) -> Tensor:
    """A share rho by chance; what was sampled is the seed, so a resumed run draws the same."""
    rng = Key(int(batch.tokens.sum()), ("random tokens",)).generator()
    drawn = torch.from_numpy(rng.random(tuple(batch.mask.shape))).to(batch.mask.device)
    return everything(batch) & (drawn < rho)


def counted_among_all(batch: Batch) -> Credited:
    """No advantage outside the top: the same direction at about rho times the size."""
    return Credited(GRPO()(batch).advantage * top(batch))


world = Forks(forks=3, fill=4, needed=(0, 1))

recipe = Recipe(
    env=world,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=world.length)),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.28),
    over="tokens",
    probes={"old_entropy": entropy},
    select=top,
    horizon=fixed(1),
    model=WorldBase(world, share=0.0),
    optim=Optim(lr=3e-4, betas=(0.9, 0.999)),
    tasks=24,
    answers=8,
    steps=240,
    evaluation=Evaluation(tasks=512, max_turns=1),
)

trl = replace(recipe, credit=counted_among_all, select=everything)

# The paper's numbers, for mathematics: replace `env` by your problems and their verifier.
paper = replace(
    recipe,
    strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=20480)),
    model="Qwen/Qwen3-32B-Base",
    optim=Optim(lr=1e-6, updates=16),
    tasks=512,
    answers=16,
)

names = {"top fifth": top, "all": everything, "random fifth": random, "bottom": bottom}
arms = {name: replace(recipe, select=select) for name, select in names.items()}
claims = (
    Claim("the top fifth alone teaches", "top fifth", None, margin=0.2),
    # three times the success of a random fifth: a small experiment gave 0.53 against 0.12
    Claim("the top fifth beats a random one", "top fifth", "random fifth", margin=0.2),
    Claim("all tokens beat the bottom four fifths", "all", "bottom", margin=0.3),
    Claim("the top fifth beats the rest", "top fifth", "bottom", margin=0.3),
)
