"""What an answer costs in groups of 1 to 16 that share a prompt of 1,000 tokens: to sample, and to learn from.

    ludus bench group
    python -m ludus.benches.group --prompt 4000 --threads 2

Sampling starts from an empty cache. Learning is one gradient (forward and backward) over the whole group in one pass.
Both compute the prompt once a group.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import partial
from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
import tyro

from ludus.benches import show
from ludus.benches.clock import costs
from ludus.benches.job import Job
from ludus.benches.show import Target, console
from ludus.data.batch import make_batch
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler
from ludus.losses.clipped import clipped_ratio
from ludus.losses.objective import Objective
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import Batch, Group, Key, Message, Node, Optim, Request, Sampling, Task


class Asks:
    """A renderer that opens every conversation with the same tokens, and for which none ends an answer."""

    stop_ids: frozenset[int] = frozenset()

    def __init__(self, ids: np.ndarray) -> None:
        self.ids = ids

    def open(self, messages: Sequence[Message]) -> Node:
        return Node(None, self.ids, role="prompt")

    def text(self, ids: np.ndarray) -> str:
        return ""


def sample(model: CausalModel, prompt: np.ndarray, answers: int, new: int) -> tuple[Group, int]:
    """A group of answers sampled with an empty cache, and how many tokens were prefilled for it."""
    sampler = LocalSampler(model, Asks(prompt))
    engine = LocalEngine(sampler)
    task = Task("question", (Message("user", ""),))
    strategy = SingleTurn(Sampling(max_tokens=new))
    (group,) = engine.collect(strategy, [Request(task, answers, 1)], None, Key(0))
    engine.close()
    return group, sampler.counts["prefilled"]


def advantaged(batch: Batch) -> Batch:
    """The batch with an advantage for every trained token, drawn from a fixed seed."""
    drawn = torch.randn(batch.mask.shape, generator=torch.Generator().manual_seed(0))
    return replace(batch, advantage=drawn * batch.mask)


def learner(model: CausalModel, pass_tokens: int) -> LocalLearner:
    return LocalLearner(model, Objective(clipped_ratio), Optim(pass_tokens=pass_tokens))


def gradient(made: LocalLearner, batch: Batch) -> torch.Tensor:
    """The gradient of all parameters as one vector."""
    parameters = list(made.model.module.parameters())
    for parameter in parameters:
        parameter.grad = None
    made.gradients(batch)
    return torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    groups: tuple[int, ...] = (1, 2, 4, 8, 16),
    prompt: int = 1000,
    new: int = 32,
    repeats: int = 3,
    threads: int = 1,
) -> None:
    """groups: how many answers share the prompt, ascending; prompt, new: tokens of it and of each answer."""
    if quick:
        groups, prompt, new, repeats = (1, 2, 4), 40, 4, 1
    torch.set_num_threads(threads)
    module, tokenizer = Job().model()
    model = CausalModel(module)
    ids = Key(0, ("bench", "group")).generator().integers(0, len(tokenizer), prompt)
    learns = learner(model, max(groups) * (prompt + new))
    settings = show.machine(threads)
    console.print(f"[bold]the cost of an answer in a group[/]\n{show.told(settings)}")
    console.print(f"a prompt of {prompt:,} tokens, {new} more an answer; the least of {repeats}\n")
    made = {n: sample(model, ids, n, new) for n in groups}
    batches = {n: advantaged(make_batch([group])) for n, (group, _) in made.items()}
    ways: dict[str, Callable[[], object]] = {}
    for n in groups:
        ways[f"sampling {n}"] = partial(sample, model, ids, n, new)
        ways[f"learning {n}"] = partial(gradient, learns, batches[n])
    spent = {name: cost / int(name.split()[1]) for name, cost in costs(ways, repeats).items()}
    both = {n: spent[f"sampling {n}"].cpu + spent[f"learning {n}"].cpu for n in groups}
    show.table(
        "processor milliseconds an answer",
        ("answers", "prefilled", "sampling", "learning", "both", ""),
        [
            [
                str(n),
                str(made[n][1]),
                *(f"{spent[f'{what} {n}'].cpu * 1e3:.1f}" for what in ("sampling", "learning")),
                f"{both[n] * 1e3:.1f}",
                show.bar(both[n], max(both.values())),
            ]
            for n in groups
        ],
    )
    targets = []
    for what in ("sampling", "learning"):
        curve = [spent[f"{what} {n}"].cpu for n in groups]
        falls = all(later < earlier for earlier, later in pairwise(curve))
        targets.append(
            Target(
                f"{what}: an answer costs less the larger the group; {groups[-1]} against {groups[0]}",
                curve[-1] / curve[0],
                falls,
            )
        )
    console.print("\n" + "\n".join(map(str, targets)))
    show.write(
        json,
        {
            "bench": "group",
            "machine": settings,
            "job": {"prompt": prompt, "new": new, "repeats": repeats},
            "groups": {
                n: {
                    "prefilled": made[n][1],
                    "sampling": asdict(spent[f"sampling {n}"]),
                    "learning": asdict(spent[f"learning {n}"]),
                }
                for n in groups
            },
            "targets": [asdict(target) for target in targets],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
