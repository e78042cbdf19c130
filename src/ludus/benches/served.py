"""`ludus env serve` in a process of its own, for benches: started, measured, killed, and started again."""

from __future__ import annotations

import contextlib
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import IO

import httpx
import psutil

PATIENCE = 120.0  # seconds for a server to come up


@dataclass
class Served:
    """A server of `world` (as `ludus env serve` names it) on a free port of loopback, which it keeps when restarted."""

    world: str
    options: Sequence[str] = ()
    port: int = 0
    process: psutil.Popen | None = None
    told: IO[bytes] = field(default_factory=tempfile.TemporaryFile)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        """Begin, and do not wait for it."""
        if not self.port:
            with socket.create_server(("127.0.0.1", 0)) as free:
                self.port = free.getsockname()[1]
        command = [sys.executable, "-m", "ludus.cli", "env", "serve", self.world, *self.options]
        command += ["--port", str(self.port)]
        self.process = psutil.Popen(command, stdout=self.told, stderr=self.told)

    def wait(self) -> None:
        """Until it answers."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(httpx.TransportError):
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return
            if self.running.poll() is not None:
                break
            time.sleep(0.05)
        self.told.seek(0)
        raise RuntimeError(f"no server at {self.url}: {self.told.read().decode(errors='replace')}")

    @property
    def running(self) -> psutil.Popen:
        assert self.process is not None, "call start() first"
        return self.process

    def kill(self) -> None:
        """As the machine would: nothing is closed and nobody is told."""
        self.running.kill()
        self.running.wait()

    def cpu(self) -> float:
        """Seconds of processor so far."""
        spent = self.running.cpu_times()
        return spent.user + spent.system

    def memory(self) -> int:
        """Resident bytes."""
        return self.running.memory_info().rss


@contextlib.contextmanager
def served(world: str, *options: str) -> Iterator[Served]:
    """A server that answers, gone at the end."""
    made = Served(world, options)
    made.start()
    try:
        made.wait()
        yield made
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            made.running.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired, psutil.TimeoutExpired):
            made.running.wait(10)
        if made.running.poll() is None:
            made.kill()
        made.told.close()
