"""ReST-RL, arXiv:2508.19576: begin from one's own good beginnings while training, search by value while answering.

The paper's claim: (1) groups that begin with parts of the policy's best programs, of problems on which it is not sure,
tell more than groups from bare prompts: .655 against GRPO's .590 and a base of .503 (Qwen3-8B, mean of six code sets).
(2) A value model, trained on trees whose only verdicts are tests, guides a search line by line that beats choosing the
best of as many whole samples: .615 against .531, both stages .689.

Reproduced: the filter of problems by the deviation of rewards (0.05), beginnings of the first best sample drawn with
weights 0.95^i, groups of 8 from each, several rounds with the policy of then; the value model on the policy's backbone,
UCT, one child a line, its answer the most liked text anywhere; all on programs of six lines with tests of which a wrong
program passes some. `grpo` has the same budget of sampled tokens, what ReST-GRPO collects included. The value model
learns on training problems alone; its rank correlation is measured on held-out ones. Not reproduced: Python, APPS and
BigCodeBench; a sandbox; ORM and PRM baselines with models of their own (best of n chooses with the same value model).

Deviations: temperature 1 throughout (0.7 in the paper, for data and search); rates for a tiny model; 20 rounds of
search for data and not 100, 6 epochs of the value model and not 2; the end of the turn stands for the stop string, so
nothing trails behind it. The paper does not say how many samples it collects a problem (5, as in its example) nor its
KL coefficient (0 here).
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.curricula.partial_solutions import PartialSolutions
from ludus.curricula.uniform import Uniform
from ludus.envs.small.pipelines import Pipelines
from ludus.evals.tree_decoding import TreeDecoding
from ludus.losses.clipped import clipped_ratio
from ludus.models.trained import Trained
from ludus.models.world_base import WorldBase
from ludus.rollouts.continued import Continued
from ludus.train.claims import Claim
from ludus.train.recipe import Budget, Evaluation, Recipe
from ludus.types import Optim, Sampling

world = Pipelines(lines=(6, 6))
sampling = Sampling(
    temperature=1.0, max_tokens=16
)  # a line is a word and its end; some room to fail in

recipe = Recipe(
    env=world,
    strategy=Continued(sampling),
    credit=GRPO(),
    loss=partial(clipped_ratio, low=0.2, high=0.2),
    over="tokens",
    curriculum=PartialSolutions(problems=64, samples=5, answers=8),
    horizon=fixed(1),
    model=WorldBase(world, share=0.15, steps=400, turns=1),
    optim=Optim(lr=5e-4, betas=(0.9, 0.999)),
    tasks=24,
    answers=8,
    steps=60,
    evaluation=Evaluation(tasks=256, answers=2, max_turns=1),
)

grpo = replace(recipe, curriculum=Uniform())

# Decoding with the policy of a shorter first stage, which is far from sure yet.
search = TreeDecoding(
    env=world,
    model=Trained(replace(recipe, steps=30)),
    sampling=sampling,
    problems=256,
    rounds=20,
    ranked=48,
    samples=(10, 50),
    lr=2e-3,
    epochs=6,
)

# The paper's numbers, for code: replace `env` by your problems and their tests.
paper = replace(
    recipe,
    strategy=Continued(Sampling(temperature=0.7, max_tokens=1024)),
    model="Qwen/Qwen3-8B",
    optim=Optim(lr=1e-7),
)
paper_search = replace(search, model=Trained(paper), rounds=100, samples=(100,), lr=1e-7, epochs=2)

budget = Budget("tokens", 150_000)
arms = {
    "rest-grpo": replace(recipe, steps=10_000, budget=budget),
    "grpo": replace(grpo, steps=10_000, budget=budget),
    "search": search,
}
claims = (
    Claim("training makes the policy better", "rest-grpo", None, margin=0.2),
    Claim("own beginnings beat GRPO at equal tokens", "rest-grpo", "grpo", margin=0.03),
    Claim("search beats one sample", "search", "search", 0.1, "vm-mcts 10", "plain"),
    Claim("search beats the best of ten", "search", "search", 0.0, "vm-mcts 10", "best of 10"),
    Claim("search beats the best of fifty", "search", "search", 0.0, "vm-mcts 50", "best of 50"),
)
