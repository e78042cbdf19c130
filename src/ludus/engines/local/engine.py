"""Many rollouts at once on one machine: they are coroutines, and the sampler serves all that wait for tokens.

Environments are stepped while others decode. A call to a pure Python environment returns at once and its rollout
joins the next tick. A call that waits for something outside (a server, a process) joins again exactly `overlap` ticks
later: not sooner, so that the batches, and with them the last digit of every number, do not depend on the clock; not
later, because the sampler then waits for it. `overlap=None` never waits: fastest with slow environments,
reproducible but for rounding.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any

from ludus.engines.local.sampler import LocalSampler
from ludus.envs.guard import Guarded
from ludus.types import Env, Group, Key, Request, Rollout, Strategy


class LocalEngine:
    """Requests to groups, by continuous batching in this process.

    Args:
        sampler:   the policy; or several by name, where a recipe casts them.
        deadline:  seconds that one environment call may take.
        overlap:   decoding ticks during which a waiting environment is not waited for (see above).
    """

    def __init__(
        self,
        sampler: LocalSampler | Mapping[str, LocalSampler],
        *,
        deadline: float = 60.0,
        overlap: int | None = 8,
    ) -> None:
        self.samplers = dict(sampler) if isinstance(sampler, Mapping) else {"policy": sampler}
        self.deadline, self.overlap = deadline, overlap
        self._loop = asyncio.new_event_loop()

    @property
    def sampler(self) -> LocalSampler:
        """Of the recipe's own policy."""
        return self.samplers["policy"]

    def publish(self, version: int) -> None:
        for sampler in self.samplers.values():
            sampler.publish(version)

    def close(self) -> None:
        """End the loop in order: connections that environments hold in it are closed with it."""
        if not self._loop.is_closed():
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            self._loop.close()

    def collect(
        self,
        strategy: Strategy,
        requests: Sequence[Request],
        env: Env | None,
        key: Key,
        *,
        cast: Mapping[str, str] | None = None,
        done: Callable[[Rollout], None] = lambda rollout: None,
    ) -> list[Group]:
        """One group a request, in order. `done` is called as each rollout ends, for progress bars.

        With a cast (role -> name of a policy) the strategy is given a mapping from role to sampler.

        Randomness is named by (key, task, answer): not by the order of the requests or of their ends.
        """
        return self._loop.run_until_complete(
            self._collect(strategy, requests, env, key, cast, done)
        )

    async def _collect(
        self,
        strategy: Strategy,
        requests: Sequence[Request],
        env: Env | None,
        key: Key,
        cast: Mapping[str, str] | None,
        done: Callable[[Rollout], None],
    ) -> list[Group]:
        schedule = _Schedule(list(self.samplers.values()), self.overlap)
        sampler: Any = self.samplers["policy"]
        if cast is not None:
            sampler = {role: self.samplers[name] for role, name in cast.items()}
        world = Guarded(env, self.deadline, schedule) if env is not None else None
        room = asyncio.Semaphore(min(s.max_rows for s in self.samplers.values()))

        async def attempt(request: Request, name: Key) -> list[Rollout]:
            async with room:
                schedule.live += 1
                try:
                    made = await strategy(request, sampler, world, name)
                finally:
                    schedule.live -= 1
            rollouts = [made] if isinstance(made, Rollout) else list(made)
            for rollout in rollouts:
                done(rollout)
            return rollouts

        seen: Counter[str] = Counter()
        attempts = []
        for request in requests:
            # a task that is asked for twice is attempted anew, not copied
            name = key / "task" / f"{request.task.id}#{seen[request.task.id]}"
            seen[request.task.id] += 1
            attempts += [attempt(request, name / "answer" / n) for n in range(request.answers)]
        finished = await schedule.run(attempts)
        groups: list[Group] = []
        results = iter(finished)
        for request in requests:
            rollouts = [r for _ in range(request.answers) for r in next(results)]
            groups.append(Group(request.task.id, tuple(rollouts)))
        return groups


class _Schedule:
    """Decides when the samplers tick: when every live rollout waits, for tokens or for something outside."""

    def __init__(self, samplers: Sequence[LocalSampler], overlap: int | None) -> None:
        self.samplers, self.overlap = samplers, overlap
        self.live = 0
        self.tick = 0
        self._due: dict[int, int] = {}  # ticket -> the tick at which it joins again
        self._back: dict[int, asyncio.Future] = {}  # returned early, waiting for that tick
        self._returned = asyncio.Event()
        self._tickets = 0
        self._ended = False  # nobody is let go on any more, so nobody may wait for it

    @property
    def parked(self) -> int:
        return sum(sampler.parked for sampler in self.samplers)

    def leave(self) -> int:
        self._tickets += 1
        self._due[self._tickets] = self.tick + (self.overlap or 0)
        return self._tickets

    async def rejoin(self, ticket: int) -> None:
        self._returned.set()
        try:
            if self.overlap is not None and not self._ended:
                self._back[ticket] = asyncio.get_running_loop().create_future()
                await self._back[ticket]
        finally:  # a strategy may cancel a call that has returned and waits for its tick
            self._back.pop(ticket, None)
            del self._due[ticket]
            self._returned.set()

    async def run(
        self, coroutines: Sequence[Coroutine[Any, Any, list[Rollout]]]
    ) -> list[list[Rollout]]:
        tasks = [asyncio.ensure_future(coroutine) for coroutine in coroutines]
        try:
            while True:
                await self._settle()
                if failed := next((t for t in tasks if t.done() and t.exception()), None):
                    failed.result()  # a fault of the program, not of an environment: raise it
                if all(task.done() for task in tasks):
                    break
                # All that ran have ended at once; those that waited for room come now.
                if not self.live:
                    await asyncio.sleep(0)
                    continue
                if self.overlap is not None:
                    if not self.parked:  # nothing to decode until the next one is due
                        self.tick = max(self.tick, min(self._due.values()))
                    if due := [t for t, tick in self._due.items() if tick <= self.tick]:
                        await self._join(due)
                        continue
                elif not self.parked:
                    self._returned.clear()
                    await self._returned.wait()
                    continue
                for sampler in self.samplers:
                    if sampler.parked:
                        sampler.tick()
                self.tick += 1
            return [task.result() for task in tasks]
        finally:
            self._ended = True
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _settle(self) -> None:
        """Let every rollout run until it waits for tokens or for something outside."""
        await asyncio.sleep(0)
        spins = 0
        while self.live > self.parked + len(self._due):
            spins += 1  # a strategy that waits for something of its own is waited for, without burning a core
            await asyncio.sleep(0 if spins < 1000 else 0.001)

    async def _join(self, due: Sequence[int]) -> None:
        """Wait until all of these have returned, or were cancelled, then let them go on together."""
        while any(ticket in self._due and ticket not in self._back for ticket in due):
            self._returned.clear()
            await self._returned.wait()
        for ticket in due:
            if ticket in self._back and not self._back[ticket].done():
                self._back[ticket].set_result(None)
        while any(ticket in self._due for ticket in due):
            await asyncio.sleep(0)
