"""The gradient of rows that share prefixes: packed as a tree, against each row computed apart.

    ludus bench tree
    python -m ludus.benches.tree --depth 5 --threads 2

Two shapes: the answers of a group (one prompt, nothing else in common) and a search (from the prompt on, each state
branches in two). Both ways are the same learner over the same batch; apart means one row a pass, where nothing can be
shared. A tree's cost should follow its distinct tokens, and its gradient be the same.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path

import numpy as np
import torch
import tyro

from ludus.benches import show
from ludus.benches.clock import costs
from ludus.benches.group import advantaged, gradient, learner
from ludus.benches.job import Job
from ludus.benches.show import Target, console
from ludus.data.batch import make_batch
from ludus.engines.local.model import CausalModel
from ludus.engines.local.tree import pack
from ludus.types import Batch, End, Group, Key, Message, Node, Rollout, Task

CLOSE = 1e-5  # |one gradient - the other| / |the other|


def search(vocabulary: int, prompt: int, branches: tuple[int, ...], new: int) -> Batch:
    """Rows of a tree under a prompt: at depth d each state branches into `branches[d]`, each of `new` tokens.

    Each shared state is trained once, in the first row that holds it. `branches=(16,)` is a group of 16 answers.
    """
    rng = Key(0, ("bench", "tree", prompt, *branches)).generator()
    leaves = [Node(None, rng.integers(0, vocabulary, prompt), role="prompt")]
    old = np.full(new, -np.log(vocabulary), np.float32)  # what a random model gives, nearly
    for count in branches:
        leaves = [
            Node(leaf, rng.integers(0, vocabulary, new), trainable=True, logprobs=old)
            for leaf in leaves
            for _ in range(count)
        ]
    task = Task("question", (Message("user", ""),))
    rollouts = tuple(Rollout(task, (leaf,), (), 0.0, End.FAILED) for leaf in leaves)
    return advantaged(make_batch([Group("question", rollouts)]))


def distinct(batch: Batch) -> int:
    """How many tokens a tree of the batch's rows computes."""
    return len(pack([row[row >= 0] for row in batch.tokens.numpy()]).ids)


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    answers: int = 16,
    prompt: int = 1000,
    depth: int = 4,
    root: int = 256,
    segment: int = 64,
    repeats: int = 3,
    threads: int = 1,
) -> None:
    """answers, prompt: of the group; depth, root: levels of the search and tokens above it; segment: new tokens."""
    if quick:
        answers, prompt, depth, root, segment, repeats = 3, 40, 2, 24, 12, 1
    torch.set_num_threads(threads)
    module, tokenizer = Job().model()
    model = CausalModel(module)
    shapes = {
        f"{answers} answers": search(len(tokenizer), prompt, (answers,), segment),
        f"search of depth {depth}": search(len(tokenizer), root, (2,) * depth, segment),
    }
    settings = show.machine(threads)
    console.print(f"[bold]a tree's gradient[/]\n{show.told(settings)}")
    console.print(
        f"prompts of {prompt:,} and {root:,} tokens, {segment} more at each branch; the least of {repeats}\n"
    )
    rows = {name: int(batch.lengths().sum()) for name, batch in shapes.items()}
    tokens = {name: distinct(batch) for name, batch in shapes.items()}
    whole, apart = learner(model, max(rows.values())), learner(model, 1)
    ways: dict[str, Callable[[], object]] = {}
    errors: dict[str, float] = {}
    for name, batch in shapes.items():
        ways |= {
            f"{name} shared": partial(gradient, whole, batch),
            f"{name} apart": partial(gradient, apart, batch),
        }
        plain = gradient(apart, batch)
        errors[name] = float((gradient(whole, batch) - plain).norm() / plain.norm())
    spent = costs(ways, repeats)
    table = []
    figures = {}
    for name in shapes:
        shared, alone = spent[f"{name} shared"], spent[f"{name} apart"]
        for way, cost, count in (("shared", shared, tokens[name]), ("apart", alone, rows[name])):
            each = f"{cost.cpu / count * 1e6:.0f}"
            table.append([name, way, f"{count:,}", f"{cost.seconds:.2f}", f"{cost.cpu:.2f}", each])
        figures[name] = {
            "distinct": tokens[name],
            "rows": rows[name],
            "shared": asdict(shared),
            "apart": asdict(alone),
            "difference": errors[name],
        }
    columns = ("", "", "tokens", "seconds", "processor s", "µs a token")
    show.table("", columns, table)
    console.print()
    targets = []
    for name in shapes:
        fewer = rows[name] / tokens[name]
        faster = spent[f"{name} apart"].cpu / spent[f"{name} shared"].cpu
        console.print(f"{name}: {fewer:.2f} times fewer tokens, {faster:.2f} times faster")
        targets += [
            Target(f"{name}: the same gradient, to {CLOSE:g}", errors[name], errors[name] <= CLOSE),
            # attention sees as many tokens either way, so a part of the cost is not saved
            Target(
                f"{name}: at least half as many times faster as there are fewer tokens",
                faster / fewer,
                faster >= fewer / 2,
            ),
        ]
    console.print("\n" + "\n".join(map(str, targets)))
    show.write(
        json,
        {
            "bench": "tree",
            "machine": settings,
            "shapes": figures,
            "targets": [asdict(target) for target in targets],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
