"""A run in bad weather: 10 % of calls fail, 5 % hang, and the server of the world is killed twice.

    ludus bench faults
    python -m ludus.benches.faults --seeds 5 --fails 0.2

The same recipe, GRPO on a fork grammar (ludus.envs.small.forks), is trained on the world itself and on `Remote`, behind
which `ludus env serve` serves `Faulty(world)`. The server is killed (SIGKILL) in the midst of a third and of two thirds
of the steps, and started again. What is wanted: training finishes; every rollout is scored or lost to a cause that is
counted; none that is lost enters any number that is learnt from; held-out success stays within noise.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
import tyro

from ludus.advantages.credit import GRPO
from ludus.benches import flaky, show
from ludus.benches.served import PATIENCE, Served, served
from ludus.benches.show import Target, console
from ludus.curricula.horizon import fixed
from ludus.data.batch import make_batch
from ludus.engines.local.build import build
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.sampler import LocalSampler
from ludus.envs.service.remote import Remote
from ludus.evals.metrics import Interval, success, t_interval
from ludus.losses.clipped import clipped_ratio
from ludus.models.world_base import WorldBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.loop import start, train
from ludus.train.recipe import Evaluation, Recipe
from ludus.train.run import evaluate, held_out
from ludus.types import End, Env, Group, Key, Optim, Report, Rollout, Sampling, Step, Task

ROWS = 64  # rollouts under way at a time; the rest of a step waits its turn, and so meets the server that comes back
NOISE = 0.1  # of held-out success, by which the runs with faults may fall behind


BASE = WorldBase(flaky.world, share=0.3)


def recipe(env: Env, steps: int, tests: int = 128, base: WorldBase = BASE) -> Recipe:
    """Plain GRPO; the base knows three forks in ten and guesses the others, so success begins at a fifth."""
    return Recipe(
        env=env,
        strategy=AgentLoop(Sampling(max_tokens=flaky.world.length)),
        credit=GRPO(),
        loss=partial(clipped_ratio, low=0.2, high=0.2),
        over="tokens",
        horizon=fixed(1),
        model=base,
        optim=Optim(lr=1e-3, betas=(0.9, 0.999)),
        tasks=16,
        answers=8,
        steps=steps,
        evaluation=Evaluation(tasks=tests, answers=8, max_turns=1),
    )


# ---------------------------------------------------------------------------------------------- the weather


@dataclass
class Struck:
    """`env`, whose server is killed and started again after so many more steps, where `left` says so."""

    env: Remote
    server: Served
    left: int | None = None

    @property
    def name(self) -> str:
        return self.env.name

    def tasks(self, split: Any = "train") -> Sequence[Task]:
        return self.env.tasks(split)

    async def reset(self, task: Task, seed: int) -> Step:
        return await self.env.reset(task, seed)

    async def step(self, state: Any, action: str) -> Step:
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                self.server.kill()
                self.server.start()
        return await self.env.step(state, action)

    async def close(self, state: Any) -> None:
        await self.env.close(state)


# ---------------------------------------------------------------------------------------------- what became of it


def cause(rollout: Rollout) -> str:
    """Why a rollout was lost, by its end and by what is written in its error; empty for one that may be scored."""
    if rollout.end.scorable:
        return ""
    if rollout.end is End.ENV_TIMED_OUT:
        return "hung"
    if "drawn to fail" in rollout.error:
        return "failed"
    if "there is no session" in rollout.error or "no answer from" in rollout.error:
        return "server killed"
    return f"other: {rollout.end}"


@dataclass
class Tally:
    """What became of all the rollouts of a run, and of their groups.

    whole    groups that lost nothing
    thinned  compared within the two or more that are left
    dropped  one or none is left: nothing to compare, so an advantage of 0
    scored_but_lost  lost rollouts that had a say in what was learnt; there must be none
    """

    rollouts: int = 0
    scored: int = 0
    told_lost: int = 0  # by the run's own metrics
    ends: Counter[str] = field(default_factory=Counter)
    causes: Counter[str] = field(default_factory=Counter)
    whole: int = 0
    thinned: int = 0
    dropped: int = 0
    scored_but_lost: int = 0

    def add(self, report: Report) -> None:
        self.told_lost += int(report.metrics["lost"])
        for end in End:
            self.ends[str(end)] += int(report.metrics[f"end/{end}"])
        for group in report.groups:
            self.add_group(group)

    def add_group(self, group: Group) -> None:
        left = [r for r in group.rollouts if r.end.scorable]
        self.rollouts += len(group.rollouts)
        self.scored += len(left)
        self.causes.update(cause(r) for r in group.rollouts if not r.end.scorable)
        self.whole += len(left) == len(group.rollouts)
        self.thinned += 2 <= len(left) < len(group.rollouts)
        self.dropped += len(left) < 2
        self.scored_but_lost += wronged(group)

    @property
    def adds_up(self) -> bool:
        """Every rollout is scored or lost; the run's own numbers, the ends and the causes say how many."""
        lost = self.rollouts - self.scored
        named = sum(n for end, n in self.ends.items() if not End(end).scorable)
        return lost == self.told_lost == named == sum(self.causes.values())


def wronged(group: Group) -> int:
    """How many lost rollouts have a reward, or an advantage, or changed that of the others."""
    lost = [not r.end.scorable for r in group.rollouts]
    found = sum(r.reward != 0.0 for r, gone in zip(group.rollouts, lost, strict=True) if gone)
    batch = make_batch([group])
    advantage = GRPO()(batch).advantage
    for row, owner in enumerate(batch.rollout.tolist()):
        found += lost[owner] and bool(advantage[row].any() or batch.scored[owner])
    alone = tuple(r for r in group.rollouts if r.end.scorable)
    if alone and any(lost):
        rows = [n for n, owner in enumerate(batch.rollout.tolist()) if not lost[owner]]
        without = make_batch([replace(group, rollouts=alone)])
        width = without.mask.shape[1]
        if not torch.equal(GRPO()(without).advantage, advantage[rows][:, :width]):
            found += sum(lost)
    return found


@dataclass(frozen=True)
class Told:
    """One run."""

    seed: int
    steps: int
    before: float
    after: Interval
    curve: list[float]
    tally: Tally
    seconds: float
    cpu: float

    def as_json(self) -> dict[str, Any]:
        tally = vars(self.tally) | {"adds_up": self.tally.adds_up}
        return vars(self) | {"after": asdict(self.after), "tally": tally}


def learnt(
    made: Recipe,
    seed: int,
    arm: Callable[[int], None] = lambda step: None,
    deadline: float = PATIENCE,
) -> Told:
    """Train, and measure on the world itself; `arm` is told each step before it is made.

    deadline  of the engine, on top of the server's: long, so that what begins while no server is there waits for it
    """
    began = time.perf_counter(), time.process_time()
    machinery = build(made, seed=seed, device="cpu")
    # `overlap=None`: a rollout that waits for the world holds up no other
    engine = LocalEngine(
        LocalSampler(machinery.model, machinery.renderer, rows=ROWS),
        deadline=deadline,
        overlap=None,
    )
    test = held_out(flaky.world, made.evaluation.tasks)

    def measure() -> Interval:
        key = Key(seed) / "eval"
        groups = evaluate(engine, made.strategy, flaky.world, test, made.evaluation, key)
        return success([rollout for group in groups for rollout in group.rollouts])

    tasks, tally, curve = made.env.tasks("train"), Tally(), list[float]()
    before = measure().mean
    arm(1)
    for state, report in train(
        made, engine, machinery.learners, tasks, start(made, tasks), seed=seed
    ):
        tally.add(report)
        curve.append(report.metrics["success"])
        arm(state.step + 1)
    after = measure()
    engine.close()
    machinery.engine.close()
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    return Told(seed, len(curve), before, after, curve, tally, seconds, cpu)


@contextmanager
def weather(
    seed: int, steps: int, fails: float, hangs: float, deadline: float
) -> Iterator[tuple[Struck, Callable[[int], None]]]:
    """The remote world, and what arms it: the server dies in two steps, with half of the first rows under way twice."""
    set_ = [f"--set={name}={value}" for name, value in (("fails", fails), ("hangs", hangs))]
    with served(
        f"{flaky.__file__}:flaky", *set_, f"--set=seed={seed}", "--deadline", str(deadline)
    ) as server:
        env = Struck(Remote(server.url), server)
        strikes = {max(1, steps // 3), max(2, 2 * steps // 3)}

        def arm(step: int) -> None:
            env.left = ROWS + ROWS // 2 if step in strikes else None

        yield env, arm


# ---------------------------------------------------------------------------------------------- the bench


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    seeds: int = 3,
    steps: int = 60,
    fails: float = 0.1,
    hangs: float = 0.05,
    deadline: float = 1.0,
    tests: int = 128,
    threads: int = 1,
) -> None:
    """seeds: runs of each kind; fails, hangs: shares of calls; deadline: seconds that the server gives a call; tests:
    held-out tasks."""
    base = BASE
    if quick:
        seeds, steps, deadline, tests = 2, 3, 0.3, 8
        base = replace(BASE, steps=20, games=8, warmup=5)
    torch.set_num_threads(threads)
    settings = show.machine(threads)
    console.print(f"[bold]a run in bad weather[/]\n{show.told(settings)}")
    console.print(
        f"{steps} steps, {fails:.0%} of calls fail, {hangs:.0%} hang ({deadline:g} s), "
        "the server is killed twice\n"
    )
    runs: dict[str, list[Told]] = {"no faults": [], "faults": []}
    for seed in range(seeds):
        runs["no faults"].append(learnt(recipe(flaky.world, steps, tests, base), seed))
        with weather(seed, steps, fails, hangs, deadline) as (env, arm):
            runs["faults"].append(learnt(recipe(env, steps, tests, base), seed, arm))
        without, with_ = (each[-1].after for each in runs.values())
        console.print(f"seed {seed}: success {without} without faults, {with_} with them")
    show.table(
        "held-out success",
        ("", "seed", "before", "after", "lost", "of", "seconds", "processor"),
        [
            [
                name if not told.seed else "",
                *(str(told.seed), f"{told.before:.3f}", f"{told.after}"),
                *(str(told.tally.rollouts - told.tally.scored), str(told.tally.rollouts)),
                *(f"{told.seconds:.0f}", f"{told.cpu:.0f}"),
            ]
            for name, each in runs.items()
            for told in each
        ],
    )
    faulty = [told.tally for told in runs["faults"]]
    causes = sum((tally.causes for tally in faulty), Counter[str]())
    console.print(f"\nlost by cause: {show.told(dict(causes.most_common()))}")
    groups = {
        name: sum(getattr(t, name) for t in faulty) for name in ("whole", "thinned", "dropped")
    }
    console.print(f"groups: {show.told(groups)}")
    finished = min(told.steps for told in runs["faults"])
    differences = [
        with_.after.mean - without.after.mean
        for with_, without in zip(runs["faults"], runs["no faults"], strict=True)
    ]
    apart = t_interval(differences)
    wrong = sum(tally.scored_but_lost for tally in faulty)
    unnamed = sum(n for name, n in causes.items() if name.startswith("other"))
    killed = causes["server killed"]
    targets = [
        Target("training finishes; steps of the shortest run", finished, finished == steps),
        Target(
            "every rollout is scored, or lost to a cause that is counted; unnamed ones",
            unnamed,
            unnamed == 0 and all(tally.adds_up for tally in faulty),
        ),
        Target("the server died with rollouts under way; lost to that", killed, killed > 0),
        Target("a lost rollout has no say in what is learnt; those that had", wrong, wrong == 0),
        Target(
            f"success against the runs without faults, over seeds: {apart}; at most {NOISE:g} less",
            apart.mean,
            apart.mean >= -NOISE and apart.high >= 0,
        ),
    ]
    console.print("\n" + "\n".join(map(str, targets)))
    show.write(
        json,
        {
            "bench": "faults",
            "machine": settings,
            "job": {
                **{"seeds": seeds, "steps": steps, "fails": fails, "hangs": hangs},
                **{"deadline": deadline, "rows": ROWS},
            },
            "runs": {name: [told.as_json() for told in each] for name, each in runs.items()},
            "causes": causes,
            "groups": groups,
            "difference": asdict(apart),
            "targets": [asdict(target) for target in targets],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
