"""A pool of processes that each hold one world: a session has one to itself; one that died or hangs is replaced."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from typing import Generic, Protocol, TypeVar


class Worker(Protocol):
    """A process. Made by a call that blocks until it is ready; `usable` while it lives, is sound, and runs no call."""

    @property
    def usable(self) -> bool: ...
    def kill(self) -> None: ...


W = TypeVar("W", bound=Worker)


class Pool(Generic[W]):
    """Processes, started when they are first needed and then used again. It serves any number of event loops.

    most      that may live at once; further sessions wait for one
    warm      that are kept ready beside those in use, started in the background
    restarts  how many died, or were killed because a call failed or hung
    """

    def __init__(self, most: int = 4, warm: int = 0) -> None:
        if most < 1 or warm < 0:
            raise ValueError(f"most={most}, warm={warm}; give at least one process")
        self.most, self.warm, self.restarts = most, warm, 0
        self._idle: list[W] = []
        self._live = 0
        self._closed = False
        self._lock = threading.Lock()

    async def take(
        self, make: Callable[[], W], prefer: Callable[[W], bool] = lambda worker: False
    ) -> W:
        """One that nobody uses; of the idle ones, one that is preferred. Waiting is by looking again."""
        while True:
            with self._lock:
                self._idle.sort(key=prefer)
                while self._idle:
                    worker = self._idle.pop()
                    if worker.usable:
                        self._warm_up(make)
                        return worker
                    self._discard(worker)
                start = self._reserved()
            if start:
                await asyncio.to_thread(self._start, make)
            else:
                await asyncio.sleep(0.02)

    def give(self, worker: W) -> None:
        """Hand one back; it is killed if a call still runs in it, since that call was given up."""
        with self._lock:
            if self._closed or not worker.usable:
                self._discard(worker, counted=not self._closed)
            else:
                self._idle.append(worker)

    def close(self) -> None:
        """End the processes that nobody uses now, and each of the others when it is handed back."""
        with self._lock:
            self._closed = True
            while self._idle:
                self._discard(self._idle.pop(), counted=False)

    def _reserved(self) -> bool:
        """Whether one more may be started; it then counts as living. Called under the lock."""
        if self._closed:
            raise RuntimeError("this pool is closed; make another one")
        if self._live >= self.most:
            return False
        self._live += 1
        return True

    def _start(self, make: Callable[[], W]) -> None:
        """Put a new one among the idle ones: whoever asked for it may have been cancelled meanwhile."""
        try:
            worker = make()
        except BaseException:
            with self._lock:
                self._live -= 1
            raise
        with self._lock:
            if self._closed:
                self._discard(worker, counted=False)
            else:
                self._idle.append(worker)

    def _warm_up(self, make: Callable[[], W]) -> None:
        for _ in range(self.warm - len(self._idle)):
            if self._closed or not self._reserved():
                return
            threading.Thread(target=self._start, args=(make,), daemon=True).start()

    def _discard(self, worker: W, counted: bool = True) -> None:
        worker.kill()
        self._live -= 1
        self.restarts += counted
