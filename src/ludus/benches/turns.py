"""What a turn costs in episodes of 4 to 64 turns, each of as many new tokens as any other.

    ludus bench turns
    python -m ludus.benches.turns --model tiny

A batch of rollouts is sampled by the local engine, prompts included. Keys and values survive between turns, so a turn
runs its new tokens through the model and not its history: `computed` counts them. What grows is that each new token
attends over a longer context.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro

from ludus.benches import show
from ludus.benches.clock import costs
from ludus.benches.job import Job, sums, unstopped
from ludus.benches.show import Target, console
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.models import tiny
from ludus.rollouts.agent_loop import AgentLoop
from ludus.types import Key, Request, Sampling, Step, Task

SIZES = {
    "seventh": tiny.Size(512, 4, 8, 1, 64, 2688),  # Qwen2.5-7B, a seventh as wide and as deep
    "tiny": tiny.Size(),  # the small world's own
}
MOST = 1.3  # times the cost of a turn of the second shortest episodes, for one of the longest


@dataclass(frozen=True)
class Steady:
    """A world that says the same after every action and never ends. State: the number of the turn."""

    of: Sequence[Task]
    says: str = "You are not carrying anything"
    name: str = "steady"

    def tasks(self, split: str = "train") -> Sequence[Task]:
        return self.of

    async def reset(self, task: Task, seed: int) -> Step:
        return Step(0, self.says)

    async def step(self, state: int, action: str) -> Step:
        return Step(state + 1, self.says)


@dataclass(frozen=True)
class Sampled:
    """What one batch of episodes came to, in tokens of one rollout."""

    context: int  # at the end
    new: float  # a turn: sampled and observed
    computed: float  # a turn: run through the model


def play(model: CausalModel, job: Job) -> Sampled:
    """Sample the job's rollouts with an empty cache."""
    sampler = LocalSampler(model, unstopped(tiny.tokenizer()))
    env = Steady(sums(job.tasks))
    engine = LocalEngine(sampler)
    requests = [Request(task, job.answers, job.turns) for task in env.of]
    groups = engine.collect(AgentLoop(Sampling(max_tokens=job.new)), requests, env, Key(job.seed))
    engine.close()
    leaves = [rollout.contexts[-1] for group in groups for rollout in group.rollouts]
    opened = sum(leaf.chain()[0].length for leaf in leaves)
    turns = job.rollouts * job.turns
    # the first token of an answer comes of what was prefilled; of the others each was run for the next one
    computed = sampler.counts["prefilled"] + sampler.counts["sampled"] - turns
    observed = sum(leaf.length for leaf in leaves) - opened - turns * job.new
    return Sampled(
        context=max(leaf.length for leaf in leaves),
        new=job.new + observed / (turns - job.rollouts),
        computed=computed / turns,
    )


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    turns: tuple[int, ...] = (4, 8, 16, 32, 64),
    tasks: int = 4,
    answers: int = 4,
    new: int = 8,
    model: Literal["seventh", "tiny"] = "seventh",
    repeats: int = 2,
    threads: int = 1,
) -> None:
    """turns: episodes' lengths, ascending; tasks, answers: the batch; new: tokens sampled in each turn; model:
    its proportions, which say how much attention weighs beside the rest."""
    if quick:
        turns, tasks, answers, new, model, repeats = (2, 4, 8), 2, 2, 4, "tiny", 1
    torch.set_num_threads(threads)
    jobs = {str(n): Job(tasks, answers, n, new, threads=threads, size=SIZES[model]) for n in turns}
    made = CausalModel(jobs[str(turns[0])].model()[0])
    settings = show.machine(threads)
    console.print(f"[bold]the cost of a turn[/]\n{show.told(settings)}")
    console.print(
        f"{tasks} tasks, {answers} answers each, {new} tokens sampled a turn; sampling alone, "
        f"the least of {repeats}\n"
    )
    told = {name: play(made, job) for name, job in jobs.items()}  # also warms up
    spent = costs({name: partial(play, made, job) for name, job in jobs.items()}, repeats)
    a_turn = {name: spent[name] / (jobs[name].rollouts * jobs[name].turns) for name in jobs}
    most = max(cost.cpu for cost in a_turn.values())
    show.table(
        "",
        ("turns", "context", "new", "computed", "ms a turn", "processor ms", ""),
        [
            [
                name,
                str(told[name].context),
                f"{told[name].new:.1f}",
                f"{told[name].computed:.1f}",
                f"{cost.seconds * 1e3:.2f}",
                f"{cost.cpu * 1e3:.2f}",
                show.bar(cost.cpu, most),
            ]
            for name, cost in a_turn.items()
        ],
    )
    short, long = str(turns[1]), str(turns[-1])
    grown = a_turn[long].cpu / a_turn[short].cpu
    target = Target(
        f"a turn of {long} costs at most {MOST:g} times one of {short}", grown, grown <= MOST
    )
    console.print(f"\n{target}")
    show.write(
        json,
        {
            "bench": "turns",
            "machine": settings,
            "jobs": [asdict(job) for job in jobs.values()],
            "turns": {name: asdict(told[name]) | asdict(a_turn[name]) for name in jobs},
            "targets": [asdict(target)],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
