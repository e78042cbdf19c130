"""One side of a comparison is a process of its own, which does one training step whenever it is told to.

So two sides take turns step by step, a machine that is busy slows both, and each has its own peak of memory.

    python -m ludus.benches.side ludus|trl      a job as JSON on standard input, then a line for each step
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, TextIO

from ludus.benches.job import Job
from ludus.models import tiny


@dataclass(frozen=True)
class Ready:
    """A side before its first step: parameters of its model, bytes of memory that its process holds."""

    parameters: int
    memory: int


@dataclass(frozen=True)
class Told:
    """One step.

    seconds, sampling          by the clock: the whole step, and until the last token was sampled
    cpu, cpu_sampling          the same in seconds of the processor, which do not count those of others
    sampled                    tokens that the policy chose
    read                       tokens of all contexts: prompts, answers, observations
    """

    seconds: float
    sampling: float
    cpu: float
    cpu_sampling: float
    rollouts: int
    sampled: int
    read: int


# ------------------------------------------------------------------------------------ the side's process


class Channel:
    """What a side says to the process that compares; the clock stands while the other side works."""

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self.commands, self.answers = commands, answers
        self._began = self._sampled = (0.0, 0.0)

    def say(self, **told: Any) -> None:
        print(json.dumps(told), file=self.answers, flush=True)

    def ready(self, parameters: int) -> None:
        self.say(parameters=parameters, memory=resident())

    def begin(self) -> None:
        """Wait for one's turn."""
        if not self.commands.readline():
            raise SystemExit("the process that compares is gone")
        self._began = time.perf_counter(), time.process_time()

    def sampled(self) -> None:
        """The last token of this step was sampled."""
        self._sampled = time.perf_counter(), time.process_time()

    def end(self, *, rollouts: int, sampled: int, read: int) -> None:
        ended = time.perf_counter(), time.process_time()
        seconds, cpu = (end - begin for end, begin in zip(ended, self._began, strict=True))
        sampling, of_cpu = (
            end - begin for end, begin in zip(self._sampled, self._began, strict=True)
        )
        self.say(**asdict(Told(seconds, sampling, cpu, of_cpu, rollouts, sampled, read)))


def resident() -> int:
    """Bytes of memory that this process holds now."""
    import psutil

    return int(psutil.Process().memory_info().rss)


def peak() -> int:
    """Bytes of memory that this process held at its worst moment."""
    status = Path("/proc/self/status")
    if (
        status.exists()
    ):  # getrusage counts the parent's memory too where a process was forked from it
        found = next(x for x in status.read_text().splitlines() if x.startswith("VmHWM:"))
        return int(found.split()[1]) * 1024
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def serve(name: str) -> None:
    import torch

    # Libraries print where they like; what is said to the comparing process goes its own way.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    told = json.loads(sys.stdin.readline())
    job = Job(**told | {"size": tiny.Size(**told["size"])})
    torch.set_num_threads(job.threads)
    channel = Channel(sys.stdin, answers)
    if name == "trl":
        from ludus.benches.trl_side import run
    else:
        from ludus.benches.ludus_side import run
    run(job, channel)
    channel.say(peak=peak())


# ------------------------------------------------------------------------------------ the comparing process


class SideFailed(RuntimeError):
    """The process of a side ended before its work did; the message has what it printed last."""


class Side:
    """The process of one side, seen from outside."""

    def __init__(self, name: str, job: Job) -> None:
        self.name = name
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115 (closed when the side is)
        threads = str(job.threads)
        self._process = subprocess.Popen(
            [sys.executable, "-m", "ludus.benches.side", name],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._printed,
            text=True,
            env={
                **os.environ,
                "OMP_NUM_THREADS": threads,
                "MKL_NUM_THREADS": threads,
                "CUDA_VISIBLE_DEVICES": "",  # both sides on the CPU
                "HF_HUB_OFFLINE": "1",
                "TRL_EXPERIMENTAL_SILENCE": "1",
            },
        )
        self._tell(json.dumps(asdict(job)))

    def ready(self) -> Ready:
        return Ready(**self._hear())

    def step(self) -> Told:
        self._tell("go")
        return Told(**self._hear())

    def peak(self) -> int:
        """After the last step: its peak of memory, in bytes."""
        return int(self._hear()["peak"])

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
        self._process.communicate()
        self._printed.close()

    def _tell(self, line: str) -> None:
        assert self._process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it is gone, and hearing from it will tell why
            print(line, file=self._process.stdin, flush=True)

    def _hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self._process.wait()
            self._printed.seek(0)
            raise SideFailed(
                f"the side {self.name} ended; it printed last:\n{self._printed.read()[-4000:]}"
            )
        return json.loads(line)


@contextlib.contextmanager
def side(name: str, job: Job) -> Iterator[Side]:
    made = Side(name, job)
    try:
        yield made
    finally:
        made.close()


if __name__ == "__main__":
    serve(sys.argv[1])
