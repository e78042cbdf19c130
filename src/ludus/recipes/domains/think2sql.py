"""Think2SQL, arXiv:2504.15077: learn SQL from what the query returns, and pay for a table that is nearly right.

The paper's claim: rewards from executing the query train small models to write SQL, most of all where a question needs
several tables, and partial credit from comparing tables helps; Qwen-Coder-2.5-7B comes out on par with models of 100B
parameters on BIRD.

Reproduced: execution in read-only SQLite, execution match as the measure, the graded score Q (cell precision, cell
recall, cardinality) as the reward, GRPO with the deviation of the batch, clip 0.2 and 0.28, token mean, no KL; on
generated databases with none to three joins. Not reproduced: BIRD and Spider, thoughts and their format reward (the
base writes bare queries, so the 5 % for the format would be the same for all answers; `paper` has it), supervised
stages. The repository holds later experiments than the first paper; the weights are the repository's.

The base answers 0.08 of 64 held-out questions. Q is a reward and no measure: it is 1 for swapped columns, which
execution match rejects. So every arm is measured by execution match, and the claim about the end is made beside the one
about the beginning.
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import per_rollout
from ludus.advantages.relative import lite_ppo
from ludus.curricula.horizon import fixed
from ludus.envs.small.sql import Judged, TextToSQL
from ludus.losses.clipped import clipped_ratio
from ludus.models.world_base import WorldBase
from ludus.rewards.sql import graded, weighted, well_formed
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling


def table(judged: Judged) -> float:
    """Q."""
    return graded(judged.rows, judged.gold).score


def table_and_form(judged: Judged) -> float:
    """0.95 Q + 0.05 for thoughts and answer in their tags."""
    return weighted(table(judged), well_formed(judged.text), share=0.05)


recipe = Recipe(
    env=TextToSQL(reward=table),
    strategy=AgentLoop(Sampling(max_tokens=64)),
    credit=per_rollout(lite_ppo),
    loss=partial(clipped_ratio, low=0.2, high=0.28),
    over="tokens",
    horizon=fixed(1),
    model=WorldBase(TextToSQL(), share=0.2, steps=400, games=32, turns=1),
    optim=Optim(lr=3e-4, max_norm=0.2),
    tasks=16,
    answers=16,
    steps=60,
    evaluation=Evaluation(tasks=128, answers=4, max_turns=1),
)

execution = replace(recipe, env=TextToSQL())

paper = replace(
    recipe,
    env=TextToSQL(reward=table_and_form),
    strategy=AgentLoop(Sampling(temperature=0.6, top_p=0.95, max_tokens=4096)),
    model="Qwen/Qwen2.5-Coder-3B-Instruct",
    optim=Optim(lr=1e-6, max_norm=0.2, warmup=100),
    steps=1000,
    evaluation=Evaluation(tasks=128, max_turns=1),
)

whole = 15_360  # rollouts: 60 steps
arms = {
    f"{reward}, {when}": replace(variant, steps=10_000, budget=Budget("rollouts", rollouts))
    for reward, variant in {"tables": recipe, "execution": execution}.items()
    for when, rollouts in {"a quarter": whole // 4, "whole": whole}.items()
}
claims = (
    Claim("training makes queries better", "tables, whole", None, margin=0.1),
    Claim(
        "partial credit is ahead early", "tables, a quarter", "execution, a quarter", margin=0.05
    ),
    Claim("partial credit is ahead at the end", "tables, whole", "execution, whole", margin=0.0),
)
