"""AgentGym-RL in its five families, arXiv:2509.08755: one algorithm, and a tiny agent that learns in each.

The paper's claim: one framework trains agents from scratch in digital games, embodied tasks, scientific tasks, deep
search and web navigation, with the same estimators in each.

Reproduced: that the same loop, GRPO and clipped loss teach an agent of a family, measured on tasks that it never
trained on, on real parts: TextCraft, BabyAI of minigrid, ScienceWorld with its Java process, an index over articles,
sites with a database. Not reproduced: 7B models, the families' whole difficulty (each world here is its simplest that
takes more than one turn). The horizon grows in the games alone, where it costs nothing. Settings were chosen on single
runs, cut short for embodied and web; those of scientific were tried once, with seed 0, and kept.

A base makes itself from games of a player who knows what to do in a share of its turns: in none in embodied, in half in
scientific and web, in .9 for 450 of 500 steps and then in half in deep search. The player of games thinks first in .7
of them for 1,400 of 1,480 steps, then in .1. What reinforcement learning has to find:

    games        to think before it acts; this is the small world of `agentgym-rl`, for 20 of its 90 steps
    embodied     to turn until the ball of the goal's colour is in sight, and to go to that and nothing else
    scientific   to go where the animals are, look, and name the one that lives longest; one wrong name ends the task
    deep search  to search for what is asked about, to follow its page to another, and to answer from that one
    web          which button of which page does what was asked, and to stop then
"""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from ludus.advantages.credit import GRPO
from ludus.curricula.horizon import fixed
from ludus.envs.babyai import BabyAI
from ludus.envs.corpus.deep_search import DeepSearch
from ludus.envs.corpus.encyclopaedia import Counts
from ludus.envs.corpus.search import Desk
from ludus.envs.science_games import ScienceGames
from ludus.envs.web.websites import Websites
from ludus.envs.world import World
from ludus.losses.clipped import clipped_ratio
from ludus.models.few_games import FewGames
from ludus.models.world_base import Stage, WorldBase
from ludus.recipes.agents import agentgym_rl
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.claims import Claim
from ludus.train.recipe import Evaluation, Recipe
from ludus.types import Message, Optim, Sampling

quick: dict[str, Any] = {"muon": 0.02, "adam": 2e-3}  # rates of a base


def learner(env: World, base: WorldBase, turns: int, steps: int, said: int = 10) -> Recipe:
    """The algorithm, the same in every family; an answer has at most `said` tokens."""
    return Recipe(
        env=env,
        strategy=AgentLoop(Sampling(temperature=1.0, max_tokens=said)),
        credit=GRPO(),
        loss=partial(clipped_ratio, low=0.2, high=0.2),
        over="tokens",
        horizon=fixed(turns),
        model=base,
        optim=Optim(lr=5e-4, betas=(0.9, 0.999), updates=2),
        tasks=16,
        answers=8,
        steps=steps,
        evaluation=Evaluation(tasks=128, answers=2, max_turns=turns, every=10),
    )


games = replace(
    agentgym_rl.recipe, steps=20, evaluation=Evaluation(tasks=128, answers=2, max_turns=6, every=5)
)

ball = BabyAI(levels=(2, 9), scoring="success", train=256, test=64)
embodied = learner(
    ball, WorldBase(ball, share=0.0, steps=150, games=12, turns=3, **quick), turns=3, steps=45
)

animals = ScienceGames(kinds=("7-1",))
scientific = replace(
    learner(
        animals,
        FewGames(animals, share=0.5, steps=250, games=12, turns=3, different=186, **quick),
        turns=3,
        steps=25,
    ),
    tasks=8,
    evaluation=Evaluation(tasks=32, answers=4, max_turns=3, every=5),
)

pages = DeepSearch((2, 2), Desk("plain", top=2), Counts(6, 4, 4, aliases=0.0), editions=256)
found = replace(pages, train=8192)  # what must be copied out of pages is learnt from many
good = (Stage(450, 0.9),)
search = learner(
    pages,
    WorldBase(found, share=0.5, steps=50, games=24, turns=6, first=good, **quick),
    turns=6,
    steps=30,
    said=8,
)

short = Message(
    "system", "Write one action: click [number], type [number] [text] [1], stop [answer]."
)
kinds = ("shop cancel", "manager approve")
sites = Websites(("shop", "manager"), kinds, size=4, rows=12, prompt=short, train=512)
web = learner(
    sites, WorldBase(sites, share=0.5, steps=250, games=12, turns=4, **quick), turns=4, steps=50
)

recipe = search  # the family that needs no package besides Ludus, and that makes its own base

arms = {
    "digital games": games,
    "embodied": embodied,
    "scientific": scientific,
    "deep search": search,
    "web navigation": web,
}
claims = tuple(
    Claim(f"a tiny agent learns in {family}", family, None, margin=0.2) for family in arms
)
