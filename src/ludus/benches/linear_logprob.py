"""The head: chunked log-probabilities against torch's dense ones, in memory and time of forward and backward.

    ludus bench linear_logprob
    python -m ludus.benches.linear_logprob --tokens 16384 --vocabulary 151936 --hidden 4096 --device cuda \\
        --dtype bfloat16

Dense is torch's own: hidden @ weight^T in float32, log_softmax, gather. Both give log-probabilities and the gradients
of hidden and weight, of the same numbers; the largest differences stand beside the figures.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Literal

import torch
import tyro
from torch import Tensor

from ludus.benches import show
from ludus.benches.clock import costs
from ludus.benches.show import MIB, Target, console
from ludus.models.linear_logprob import linear_logprob
from ludus.train.memory import peak_memory


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    tokens: int = 8192,
    vocabulary: int = 16384,
    hidden: int = 256,
    chunks: tuple[int, ...] = (256, 1024),
    repeats: int = 2,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    threads: int = 1,
) -> None:
    """The sizes of the head; chunks: how many tokens at a time."""
    if quick:
        tokens, vocabulary, hidden, chunks, repeats = 64, 256, 16, (16,), 1
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    x = torch.randn(tokens, hidden, device=device, dtype=kind, requires_grad=True)
    w = (torch.randn(vocabulary, hidden, device=device) / hidden**0.5).to(kind).requires_grad_()
    y = torch.randint(vocabulary, (tokens,), device=device)
    g = torch.randn(tokens, device=device)

    def dense() -> Tensor:
        return torch.log_softmax((x @ w.T).float(), -1).gather(1, y[:, None])[:, 0]

    def chunked(chunk: int) -> Tensor:
        return linear_logprob(x, w, y, chunk=chunk)[0]

    def run(logprob: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        logp = logprob()
        done = logp.detach(), *torch.autograd.grad((logp * g).sum(), [x, w])
        if device == "cuda":
            torch.cuda.synchronize()
        return done

    ways = {"dense": partial(run, dense)}
    ways |= {f"chunk {chunk}": partial(run, partial(chunked, chunk)) for chunk in chunks}
    settings = show.machine(threads)
    console.print(f"[bold]log-probabilities from hidden states[/]\n{show.told(settings)}")
    console.print(
        f"{tokens:,} tokens, vocabulary {vocabulary:,}, hidden {hidden:,}, {dtype} on {device}; "
        f"the logits alone are {tokens * vocabulary * 4 / MIB:,.0f} MiB in float32; the least of {repeats}\n"
    )
    reference = ways["dense"]()
    errors = {
        name: [
            float((a.float() - b.float()).abs().max())
            for a, b in zip(way(), reference, strict=True)
        ]
        for name, way in ways.items()
    }
    del reference
    spent = costs(ways, repeats)
    memory = {name: peak_memory(way, device) for name, way in ways.items()}
    show.table(
        "",
        ("", "peak MiB", "of dense", "seconds", "processor s", "of dense", "logp", "dh", "dW"),
        [
            [
                name,
                f"{memory[name] / MIB:.1f}",
                f"{memory[name] / memory['dense']:.3f}",
                f"{spent[name].seconds:.2f}",
                f"{spent[name].cpu:.2f}",
                f"{spent[name].cpu / spent['dense'].cpu:.2f}",
                *(f"{error:.0e}" for error in errors[name]),
            ]
            for name in ways
        ],
    )
    least = f"chunk {min(chunks)}"
    share, slower = memory[least] / memory["dense"], spent[least].cpu / spent["dense"].cpu
    targets = [
        Target(f"{least}: at most a tenth of the dense memory", share, share <= 0.1),
        Target(f"{least}: at most 1.1 times the dense time", slower, slower <= 1.1),
    ]
    console.print("\n" + "\n".join(map(str, targets)))
    show.write(
        json,
        {
            "bench": "linear_logprob",
            "machine": settings,
            "job": {"tokens": tokens, "vocabulary": vocabulary, "hidden": hidden, "dtype": dtype},
            "ways": {
                name: asdict(spent[name]) | {"memory": memory[name], "differences": errors[name]}
                for name in ways
            },
            "targets": [asdict(target) for target in targets],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
