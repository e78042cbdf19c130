"""The head step, dense against chunked: peak memory and time of one forward and backward pass.

    python benchmarks/linear_logprob.py                      # about 4 GB of memory and 4 minutes on one CPU core
    python benchmarks/linear_logprob.py --tokens 16384 --vocabulary 151936 --hidden 4096 --device cuda --dtype bfloat16

Dense is torch's own: hidden @ weight^T, float32, log_softmax, gather. Both compute log-probabilities and the gradients
of hidden and weight, of the same numbers; the largest differences are printed beside the figures. Times are the
fastest of `repeats`, taken in turns. On one core of an AMD EPYC (torch 2.13, float32; T 8192, V 32768, H 512):

                  peak GiB  of dense   seconds  of dense
           dense     3.000     1.000     20.44      1.00
       chunk 256     0.172     0.057     20.00      0.98
      chunk 1024     0.453     0.151     18.90      0.92
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Literal

import torch
import tyro
from torch import Tensor

from ludus.models.linear_logprob import linear_logprob
from ludus.train.memory import peak_memory

GIB = 1 << 30


def main(
    tokens: int = 8192,
    vocabulary: int = 32768,
    hidden: int = 512,
    chunks: tuple[int, ...] = (256, 1024),
    repeats: int = 2,
    device: str = "cpu",
    dtype: Literal["float32", "bfloat16"] = "float32",
    threads: int = 1,
) -> None:
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    kind = getattr(torch, dtype)
    x = torch.randn(tokens, hidden, device=device, dtype=kind, requires_grad=True)
    w = (torch.randn(vocabulary, hidden, device=device) / hidden**0.5).to(kind).requires_grad_()
    y = torch.randint(vocabulary, (tokens,), device=device)
    g = torch.randn(tokens, device=device)

    def dense() -> Tensor:
        return torch.log_softmax((x @ w.T).float(), -1).gather(1, y[:, None])[:, 0]

    def run(logprob: Callable[[], Tensor]) -> tuple[Tensor, ...]:
        logp = logprob()
        return logp.detach(), *torch.autograd.grad((logp * g).sum(), [x, w])

    ways: dict[str, Callable[[], Tensor]] = {"dense": dense}
    for chunk in chunks:
        ways[f"chunk {chunk}"] = lambda chunk=chunk: linear_logprob(x, w, y, chunk=chunk)[0]

    seconds = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        for name, way in ways.items():
            seconds[name] = min(seconds[name], _seconds(lambda way=way: run(way), device))
    memory = {name: peak_memory(lambda way=way: run(way), device) for name, way in ways.items()}

    reference = run(dense)
    print(f"{tokens} tokens, vocabulary {vocabulary}, hidden {hidden}, {dtype} on {device}")
    print(f"the logits alone: {tokens * vocabulary * 4 / GIB:.2f} GiB in float32\n")
    print(
        f"{'':>12} {'peak GiB':>9} {'of dense':>9} {'seconds':>9} {'of dense':>9}   largest difference"
    )
    for name, way in ways.items():
        errors = [
            float((a.float() - b.float()).abs().max())
            for a, b in zip(run(way), reference, strict=True)
        ]
        print(
            f"{name:>12} {memory[name] / GIB:9.3f} {memory[name] / memory['dense']:9.3f}"
            f" {seconds[name]:9.2f} {seconds[name] / seconds['dense']:9.2f}  "
            + "  ".join(
                f"{label} {e:.0e}" for label, e in zip(("logp", "dh", "dW"), errors, strict=True)
            )
        )


def _seconds(work: Callable[[], object], device: str) -> float:
    if device == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    if device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == "__main__":
    tyro.cli(main)
