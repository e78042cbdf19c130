"""Every curriculum, strategy, credit and loss with every other that it declares itself compatible with: two real steps.

A new member adds a row to its table and nothing else. All pairs of two tables are covered, not all products: a row of
`COVERING` runs one of each. What cannot go together is refused by `check`, at the start, with the name of what is
missing; `REFUSED` has one row for each way of it.
"""

from __future__ import annotations

import importlib
import inspect
import itertools
import pkgutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, partial
from hashlib import blake2b
from types import ModuleType
from typing import Any, Literal

import pytest
import torch

import ludus.advantages
import ludus.curricula
import ludus.losses
import ludus.rollouts
from ludus.advantages.anchor import GiGPO
from ludus.advantages.balanced import Balanced
from ludus.advantages.channels import OutcomeAndSteps
from ludus.advantages.credit import (
    GAE,
    GRPO,
    RLOO,
    DrGRPO,
    GRPOSteps,
    Reinforce,
    ReinforcePlusPlus,
    ReMax,
    per_rollout,
)
from ludus.advantages.decoupled import DecoupledGAE, LengthAdaptiveGAE
from ludus.advantages.pool import PoolBaseline
from ludus.advantages.pooled import IGPO, IGPOReleased
from ludus.advantages.prefix_tree import Tempo
from ludus.advantages.relative import lite_ppo
from ludus.advantages.rloo_kl import RLOOThenKL
from ludus.advantages.scaled import Scaled
from ludus.curricula.adaptive import Adaptive
from ludus.curricula.bandit import Bandit
from ludus.curricula.examples import Examples
from ludus.curricula.hints import Hints
from ludus.curricula.horizon import fixed
from ludus.curricula.ordered import Ordered
from ludus.curricula.partial_solutions import PartialSolutions
from ludus.curricula.roles import Fixed, Swapping
from ludus.curricula.spread import Spread
from ludus.curricula.uniform import Uniform
from ludus.curricula.within import Within
from ludus.data.render import Renderer
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.losses.cispo import cispo
from ludus.losses.clipped import clipped_ratio
from ludus.losses.gspo import gspo
from ludus.losses.kl import k3
from ludus.losses.mixture_ratio import foreign
from ludus.losses.objective import KL
from ludus.losses.one_side import one_side
from ludus.losses.reinforce import reinforce
from ludus.losses.rover import rover
from ludus.losses.shaped import shaped
from ludus.losses.supervised import sft
from ludus.losses.topr import topr
from ludus.losses.two_sources import two_sources
from ludus.models import tiny
from ludus.models.probes import entropy, mean_logp
from ludus.rewards.forced_score import ForcedScore
from ludus.rewards.information_gain import InformationGain
from ludus.rewards.team import Team
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.continued import Continued
from ludus.rollouts.first_attempt import FirstAttempt
from ludus.rollouts.forced_answer import ForcedAnswer
from ludus.rollouts.gain import AnswerProbability
from ludus.rollouts.judged import Judged
from ludus.rollouts.single_turn import SingleTurn
from ludus.rollouts.soft_thought import SoftThought
from ludus.rollouts.summarise import Summarise
from ludus.rollouts.two_roles import PIONEER, PioneerObserver
from ludus.rollouts.untrained import Untrained, summaries
from ludus.rollouts.with_examples import WithExamples
from ludus.train.loop import start, train
from ludus.train.needs import told
from ludus.train.recipe import Evaluation, Policy, Recipe, RecipeError, check
from ludus.types import End, Group, Message, Optim, Rollout, Sampling, Soft, Step, Task

# ------------------------------------------------------------------------------------ a world that pays by chance


def coin(said: str) -> float:
    """1 or 0, by what was said alone: a model that knows nothing meets better and worse."""
    return float(blake2b(said.encode(), digest_size=1).digest()[0] % 2)


@dataclass(frozen=True)
class Coins:
    """Pays each of `turns` actions what it tosses; solved if the last one is heads."""

    turns: int = 2
    name: str = "coins"

    def tasks(self, split: Literal["train", "test"] = "train") -> Sequence[Task]:
        prompt = (Message("system", "Toss."),)
        return [Task(f"{split}-{i}", prompt, "heads", difficulty=i % 2) for i in range(4)]

    async def reset(self, task: Task, seed: int) -> Step:
        return Step(0, f"Task {task.id}.")

    async def step(self, state: int, action: str) -> Step:
        paid, over = coin(action), state + 1 == self.turns
        end = (End.SOLVED if paid else End.FAILED) if over else None
        return Step(state + 1, "next", paid, end, {"anchor": state})


def tossed(rollout: Rollout) -> float:
    return coin(rollout.turns[-1].action) if rollout.turns else 0.0


async def judge(groups: Sequence[Group]) -> list[Group]:
    """Pays answers that no environment has seen."""
    return [
        replace(g, rollouts=tuple(replace(r, reward=tossed(r)) for r in g.rollouts)) for g in groups
    ]


# ------------------------------------------------------------------------------------ the tables
# A row is the fields of a recipe that come with a piece: what it needs stands beside it.

WORLD = Coins()
HINTS = {task.id: "heads" for task in WORLD.tasks()}
SAY = Sampling(max_tokens=3)
LOOP, ANSWER, TEAM = AgentLoop(SAY), SingleTurn(SAY), PioneerObserver(SAY)
SUMMARISE = Summarise(SAY, longest=1, summaries=2, summary_tokens=3, instruction="Sum up.")
Row = Mapping[str, Any]


def _judged(strategy: Any, reward: Any = judge) -> Row:
    """A strategy that asks no environment, with who says what its answers earned."""
    evaluation = Evaluation(strategy=Judged(strategy, judge))
    return {"strategy": strategy, "reward": reward, "evaluation": evaluation}


CURRICULA: dict[str, Row] = {
    "Uniform": {"curriculum": Uniform()},
    "Ordered": {"curriculum": Ordered(draws=4)},
    "Bandit": {"curriculum": Bandit()},
    "Adaptive": {"curriculum": Adaptive(keep=4, ask=4, rounds=2, threshold=0.5)},
    "Spread": {"curriculum": Spread()},
    "Within": {"curriculum": Within()},
    "Hints": {"curriculum": Hints(HINTS, answers=4)},
    "Examples": {"curriculum": Examples(lambda task: task.answer, answers=3)},
    "PartialSolutions": {
        "curriculum": PartialSolutions(2, 4, 4, least_std=0.0, least_best=0.0),
    },
}
STRATEGIES: dict[str, Row] = {
    "AgentLoop": {"strategy": LOOP},
    "SingleTurn": _judged(ANSWER),
    "Judged": {"strategy": Judged(ANSWER, judge), "reward": judge},
    "Summarise": {"strategy": SUMMARISE},
    "Untrained": {"strategy": Untrained(SUMMARISE, summaries)},
    "WithExamples": {"strategy": WithExamples(LOOP)},
    "FirstAttempt": {"strategy": FirstAttempt(LOOP)},
    "ForcedAnswer": {"strategy": ForcedAnswer(LOOP)},
    "AnswerProbability": {
        "strategy": AnswerProbability(LOOP, lead_in="Answer:"),
        "reward": InformationGain(tossed),
    },
    "PioneerObserver": {**_judged(TEAM, Team(judge)), "cast": Swapping(every=1)},
    "Continued": {"strategy": Continued(SAY)},
    "SoftThought": {
        "strategy": SoftThought(replace(SAY, soft=Soft()), SAY, ends="so", opens=" then"),
    },
}
CREDITS: dict[str, Row] = {
    "GRPO": {"credit": GRPO()},
    "DrGRPO": {"credit": DrGRPO()},
    "RLOO": {"credit": RLOO()},
    "per_rollout, PerRollout": {"credit": per_rollout(lite_ppo)},
    "GRPOSteps": {"credit": GRPOSteps()},
    "Reinforce, Returns": {"credit": Reinforce(whitened=True)},
    "Reinforce, per turn": {"credit": Reinforce(gamma=0.9, whitened=True, per_turn=True)},
    "ReinforcePlusPlus": {"credit": ReinforcePlusPlus(kl=0.1), "reference": True},
    "ReMax": {"credit": ReMax()},
    "GAE": {"credit": GAE(lam=0.9), "critic": True},
    "DecoupledGAE": {"credit": DecoupledGAE(0.9), "critic": True},
    "LengthAdaptiveGAE": {"credit": LengthAdaptiveGAE(alpha=0.8), "critic": True},
    "Tempo": {"credit": Tempo()},
    "GiGPO": {"credit": GiGPO()},
    "IGPO": {"credit": IGPO()},
    "IGPOReleased": {"credit": IGPOReleased()},
    "PoolBaseline": {"credit": PoolBaseline()},
    "RLOOThenKL": {"credit": RLOOThenKL(), "reference": True},
    "Balanced": {"credit": Balanced(GRPO(), "own")},
    "Scaled": {"credit": Scaled(GRPO(), "old_entropy"), "probes": {"old_entropy": entropy}},
    "OutcomeAndSteps": {"credit": OutcomeAndSteps(total=4)},
}
LOSSES: dict[str, Row] = {
    "clipped_ratio": {"loss": clipped_ratio},
    "gspo": {"loss": gspo, "over": "answers"},
    "cispo": {"loss": partial(cispo, upper=2.0)},
    "one_side": {"loss": one_side},
    "reinforce": {"loss": reinforce, "over": "answer sums"},
    "topr": {"loss": topr, "kl": KL(0.1, k3), "reference": True},
    "sft": {"loss": sft, "entropy": 0.01},
    "rover": {"loss": rover, "probes": {"old_mean_logp": mean_logp}},
    "two_sources, foreign": {"loss": partial(two_sources, own=clipped_ratio, theirs=foreign)},
    "two_sources, shaped": {"loss": partial(two_sources, own=clipped_ratio, theirs=shaped)},
}
TABLES = (CURRICULA, STRATEGIES, CREDITS, LOSSES)

# Pieces of the same kind that have no row, and why. Each has a test of its own.
NOT_HERE = {
    "AdaptiveKL": "reads a KL over the whole vocabulary of a frozen player: tests/papers/test_cory.py",
    "CritiqueRefine": "wants a world of answers to be criticised: tests/papers/test_critique_rl.py",
    "SolveAndVerify": "wants a world of solutions in steps: tests/papers/test_rl_tango.py",
    "Watched": "measures how far from a frozen player: nobody learns from it",
    "TreeData": "makes the data of a value model: tests/papers/test_rest_rl.py",
    "TreeSearch": "searches with trained weights, nobody learns from it: tests/papers/test_rest_rl.py",
    "BestOf": "searches with trained weights, nobody learns from it: tests/papers/test_rest_rl.py",
    "Given": "an answer that nobody samples: measures, and nothing to learn from",
}

# ------------------------------------------------------------------------------------ recipes of one row each


@cache
def recipe(curriculum: str, strategy: str, credit: str, loss: str) -> Recipe:
    """One row of each table; a cast's other player learns as the recipe's own does."""
    rows = [CURRICULA[curriculum], STRATEGIES[strategy], CREDITS[credit], LOSSES[loss]]
    made: dict[str, Any] = {name: value for row in rows for name, value in row.items()}
    made["probes"] = {n: probe for row in rows for n, probe in row.get("probes", {}).items()}
    made["optim"] = Optim(lr=1e-2, updates=2)
    if "cast" in made:
        own = {n: made[n] for n in made if n in Policy.__dataclass_fields__}
        made["others"] = {"other": Policy(**own)}
    return Recipe(env=WORLD, horizon=fixed(2), tasks=2, answers=4, steps=2, **made)


Combination = tuple[str, ...]  # a row's name of each table


@cache
def goes(combination: Combination) -> bool:
    try:
        check(recipe(*combination))
    except RecipeError:
        return False
    return True


def pairs(combination: Combination) -> Iterator[tuple[int, str, int, str]]:
    for i, j in itertools.combinations(range(len(TABLES)), 2):
        yield i, combination[i], j, combination[j]


def covering() -> tuple[list[Combination], set[tuple[int, str, int, str]]]:
    """Few combinations that hold every pair of two tables' rows which goes together, and the pairs that do not.

    Greedy: the first pair that is left, with those rows of the other tables which bring most pairs that are left.
    """
    left = dict.fromkeys(
        (i, a, j, b)
        for i, j in itertools.combinations(range(len(TABLES)), 2)
        for a, b in itertools.product(TABLES[i], TABLES[j])
    )
    chosen: list[Combination] = []
    never = set[tuple[int, str, int, str]]()
    while left:
        i, a, j, b = next(iter(left))
        rows = [[a] if n == i else [b] if n == j else list(t) for n, t in enumerate(TABLES)]
        candidates = sorted(
            itertools.product(*rows), key=lambda c: -sum(pair in left for pair in pairs(c))
        )
        found = next((c for c in candidates if goes(c)), None)
        if found is None:
            never.add((i, a, j, b))
            del left[i, a, j, b]
            continue
        chosen.append(found)
        for pair in pairs(found):
            left.pop(pair, None)
    return chosen, never


COVERING, NEVER = covering()

# ------------------------------------------------------------------------------------ two steps of each


@cache
def renderer() -> Renderer:
    return Renderer(tiny.tokenizer(("heads", "tails", "Toss", "Task", "next", "so", "then")))


def machine(recipe: Recipe) -> tuple[LocalEngine, dict[str, LocalLearner]]:
    size, samplers, learners = tiny.Size(32, 1, 2, 1, 16, 64), {}, {}
    for seed, (name, policy) in enumerate(recipe.policies.items()):
        model = CausalModel(tiny.model(size, len(renderer().tokenizer), seed))
        samplers[name] = LocalSampler(model, renderer())
        learners[name] = LocalLearner(
            model,
            policy.objective,
            policy.optim,
            reference=bool(policy.reference),
            critic=policy.critic,
            probes=policy.probes,
        )
    return LocalEngine(samplers), learners


@pytest.mark.parametrize("combination", COVERING, ids=[" - ".join(c) for c in COVERING])
def test_two_steps(combination: Combination) -> None:
    made = recipe(*combination)
    engine, learners = machine(made)
    parameters = list(learners["policy"].model.module.parameters())
    before = [p.detach().clone() for p in parameters]
    tasks = made.env.tasks("train")
    steps = train(made, engine, learners, tasks, start(made, tasks), seed=0)
    reports = [report for _, report in steps]
    engine.close()
    assert [report.step for report in reports] == [1, 2]
    for report in reports:
        learnt = {n: x for n, x in report.metrics.items() if n.endswith(("loss", "grad_norm"))}
        assert learnt and all(torch.tensor(x).isfinite() for x in learnt.values()), learnt
        assert report.metrics["lost"] == 0
    moved = [not torch.equal(a, b) for a, b in zip(before, parameters, strict=True)]
    assert any(moved) and all(bool(p.isfinite().all()) for p in parameters)


def test_every_row_goes_with_something() -> None:
    for number, table in enumerate(TABLES):
        assert {c[number] for c in COVERING} == set(table)


# ------------------------------------------------------------------------------------ every member has a row


def modules(package: ModuleType) -> Iterator[ModuleType]:
    for found in pkgutil.iter_modules(package.__path__, f"{package.__name__}."):
        yield importlib.import_module(found.name)


def own(package: ModuleType) -> Iterator[tuple[str, Any]]:
    """What the modules of a package define themselves, without what begins with an underscore."""
    for module in modules(package):
        for name, value in vars(module).items():
            if getattr(value, "__module__", "") == module.__name__ and not name.startswith("_"):
                yield name, value


def is_piece(value: Any, *methods: str) -> bool:
    return (
        inspect.isclass(value)
        and not inspect.isabstract(value)
        and not getattr(value, "_is_protocol", False)
        and all(callable(getattr(value, method, None)) for method in methods)
    )


def strategies() -> Iterator[str]:
    for name, value in own(ludus.rollouts):
        if is_piece(value) and inspect.iscoroutinefunction(value.__dict__.get("__call__")):
            yield name


def credits() -> Iterator[str]:
    classes = {name for name, value in own(ludus.advantages) if is_piece(value, "init", "assign")}
    yield from classes
    for name, value in own(ludus.advantages):  # and functions that make one
        if inspect.isfunction(value) and value.__annotations__.get("return") in classes:
            yield name


def losses() -> Iterator[str]:
    for name, value in own(ludus.losses):
        if inspect.isfunction(value):
            first = list(inspect.signature(value).parameters)[:4]
            if first == ["logp", "old_logp", "advantage", "mask"]:
                yield name


@pytest.mark.parametrize(
    ("members", "table"),
    [
        (lambda: (n for n, v in own(ludus.curricula) if is_piece(v, "init", "draw")), CURRICULA),
        (strategies, STRATEGIES),
        (credits, CREDITS),
        (losses, LOSSES),
    ],
    ids=["curricula", "strategies", "credits", "losses"],
)
def test_every_member_has_a_row(members: Callable[[], Iterator[str]], table: Mapping) -> None:
    found = set(members())
    rows = {name for key in table for name in key.split(", ")}
    missing = found - rows - set(NOT_HERE)
    assert not missing, f"give {sorted(missing)} a row in its table, or a reason in NOT_HERE"
    assert len(found) >= len(table) // 2  # or nothing was found at all


def test_strategies_with_a_row_say_what_they_give() -> None:
    assert [name for name, row in STRATEGIES.items() if not told(row["strategy"])] == []


# ------------------------------------------------------------------------------------ refused at the start

PLAIN = recipe("Uniform", "AgentLoop", "GRPO", "clipped_ratio")
TWO = recipe("Uniform", "PioneerObserver", "GRPO", "clipped_ratio")
EVALUATED = Evaluation(strategy=Judged(ANSWER, judge))


async def silent(request: Any, sampler: Any, env: Any, key: Any) -> Rollout:
    raise NotImplementedError


@dataclass(frozen=True)
class Deaf:
    """Asks the environment, and reads no hints."""

    gives = ("reward",)

    async def __call__(self, request: Any, sampler: Any, env: Any, key: Any) -> Rollout:
        raise NotImplementedError


# what is changed of a recipe that goes together, and what is said of it
REFUSED: dict[str, tuple[Recipe, Row, str]] = {
    "no critic": (PLAIN, {"credit": GAE()}, r"GAE needs values.*critic=True"),
    "no critic to learn alone": (
        PLAIN,
        {"optim": Optim(critic_alone=3)},
        r"for 3 steps the critic would learn alone.*optim\.critic_alone=0",
    ),
    "no reference, loss": (PLAIN, {"kl": KL(0.1, k3)}, r"KL needs the weights.*reference=True"),
    "no reference, reward": (PLAIN, {"credit": RLOOThenKL()}, r"KL needs.*reference=True"),
    "no group": (PLAIN, {"answers": 1}, r"compares the answers of a group.*asks for 1.*answers=8"),
    "no group to choose by": (
        PLAIN,
        {"answers": 1, "credit": Reinforce(), "curriculum": Within()},
        r"Within chooses by how the answers of a group differ.*asks for 1",
    ),
    "no greedy twin": (
        PLAIN,
        {"credit": ReMax(), "strategy": Untrained(LOOP, summaries)},
        r"needs a greedy twin.*Untrained has no `sampling`",
    ),
    "two baselines": (
        PLAIN,
        {"credit": ReMax(), "curriculum": Adaptive()},
        r"greedy answer, and Adaptive gives groups a baseline of its own",
    ),
    "no pool": (
        PLAIN,
        {"credit": PoolBaseline()},
        r"PoolBaseline needs 'pool', and AgentLoop and Uniform give none.*Adaptive\(\)",
    ),
    "no turns": (
        PLAIN,
        {"credit": IGPO(), "strategy": ANSWER, "reward": judge, "evaluation": EVALUATED},
        r"IGPO needs 'turn_reward', and SingleTurn and Uniform and judge give none.*AgentLoop",
    ),
    "no turns to sum": (
        PLAIN,
        {"credit": Reinforce(per_turn=True), "strategy": ANSWER, "reward": judge},
        r"Returns needs 'turn_reward'",
    ),
    "no states to compare": (
        PLAIN,
        {"credit": GiGPO(), **STRATEGIES["SoftThought"]},
        r"GiGPO needs 'anchor', and SoftThought and Uniform give none.*Step\.info",
    ),
    "several contexts": (
        PLAIN,
        {"credit": IGPOReleased(), "strategy": SUMMARISE},
        r"IGPOReleased needs 'one context', and Summarise and Uniform give none.*IGPO\(\)",
    ),
    "several prompts, hints": (
        PLAIN,
        {"credit": Tempo(), "curriculum": Hints(HINTS)},
        r"Tempo compares answers to one prompt.*Hints gives some answers of a group a hint.*GRPO\(\)",
    ),
    "several prompts, roles": (TWO, {"credit": Tempo()}, r"Tempo needs 'one prompt'.*GRPO\(\)"),
    "no examples": (
        PLAIN,
        {"curriculum": CURRICULA["Examples"]["curriculum"]},
        r"Examples needs 'example', and AgentLoop gives none; give strategy=WithExamples",
    ),
    "nobody goes on": (
        PLAIN,
        {"curriculum": PartialSolutions()},
        r"PartialSolutions needs 'begun', and AgentLoop gives none; give strategy=Continued",
    ),
    "nobody else writes": (
        PLAIN,
        {"loss": partial(two_sources, own=clipped_ratio, theirs=foreign)},
        r"reads 'external'.*nobody asks for any.*Examples",
    ),
    "nobody reads hints": (
        PLAIN,
        {"curriculum": Hints(HINTS), "strategy": Deaf()},
        r"Hints needs 'guidance', and Deaf gives none.*request\.guidance",
    ),
    "no probe": (PLAIN, {"loss": rover}, r"rover reads 'old_mean_logp'.*probes="),
    "no reward": (
        PLAIN,
        {"strategy": ANSWER},
        r"SingleTurn leaves it to a reward what an attempt earned.*strategy=AgentLoop",
    ),
    "no judge in evaluation": (
        PLAIN,
        {"strategy": ANSWER, "reward": judge},
        r"evaluation asks none, so held-out success would be 0.*Judged",
    ),
    "no signal, gain": (
        PLAIN,
        {"reward": InformationGain(tossed)},
        r"InformationGain needs 'answer_probability'.*strategy=AnswerProbability",
    ),
    "no signal, score": (
        PLAIN,
        {"reward": ForcedScore({})},
        r"ForcedScore needs 'reference_logp'.*strategy=ForcedAnswer",
    ),
    "what the inner curriculum chose": (
        PLAIN,
        {"curriculum": Spread(inner=Adaptive())},
        r"Spread takes its tasks from Adaptive and would never ask it.*Uniform\(\)",
    ),
    "a cast for nobody": (
        PLAIN,
        {"cast": Fixed({"pioneer": "policy"})},
        r"cast is for pioneer, and AgentLoop plays no roles; leave the cast out",
    ),
    "a role for nobody": (
        TWO,
        {"cast": Fixed({PIONEER: "policy"}), "others": {}},
        r"cast is for pioneer, and PioneerObserver plays pioneer, observer; cast those",
    ),
    "others without a cast": (TWO, {"cast": None}, r"nothing says who plays which role"),
    "a stranger in the cast": (
        PLAIN,
        {"strategy": silent, "cast": Fixed({"a": "somebody"})},
        r"the cast names somebody; the recipe's players are policy",
    ),
    "a team of nobody": (
        PLAIN,
        {"reward": Team(judge)},
        r"reward pays observer, pioneer, and AgentLoop plays no roles.*PioneerObserver",
    ),
    "nobody to measure": (
        PLAIN,
        {"evaluation": Evaluation(role="critic")},
        r"evaluation\.role='critic', and AgentLoop plays no roles",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_at_the_start(name: str) -> None:
    goes_together, changes, said = REFUSED[name]
    check(goes_together)
    with pytest.raises(RecipeError, match=f"(?s){said}"):
        check(replace(goes_together, **changes))


def test_a_strategy_that_says_nothing_is_believed() -> None:
    check(replace(PLAIN, strategy=silent, credit=IGPO(), curriculum=Hints(HINTS)))
