"""The open episodes of one environment: who may act in them, when they end, and what is counted.

A session is busy while a call runs in it, is closed when it has stood idle too long, and is lost to a fault of the
environment. A step whose answer got lost on the way is answered again, not made again: the caller says its turn.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import secrets
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.service.wire import step_out
from ludus.envs.world import Split
from ludus.types import CannotFork, End, Env, Step, Task


@dataclass(frozen=True)
class Limits:
    """What a service takes on.

    sessions   that may be open at a time; one more is refused with 429
    in_flight  calls that may be under way at a time; more are refused with 503
    body       bytes of a request
    idle       seconds after which a session that nobody calls is closed
    deadline   seconds of one call of the environment, and of one body's arrival
    """

    sessions: int = 10_000
    in_flight: int = 8192
    body: int = 8 << 20
    idle: float = 600.0
    deadline: float = 60.0

    def __post_init__(self) -> None:
        if min(self.sessions, self.in_flight, self.body, self.idle, self.deadline) <= 0:
            raise ValueError(f"{self}; every limit is a number above 0")


class Refused(Exception):
    """A call that is answered with a code and a message, and has changed nothing unless the code is 5xx."""

    def __init__(self, status: int, message: str, retry_after: int | None = None) -> None:
        super().__init__(message)
        self.status, self.retry_after = status, retry_after


class Meters:
    """What /metrics tells, in a registry of its own, so that several services fit in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.sessions = Gauge("ludus_env_sessions", "Open sessions", registry=self.registry)
        self.in_flight = Gauge("ludus_env_in_flight", "Calls under way", registry=self.registry)
        self.expired = Counter(
            "ludus_env_expired", "Sessions closed as idle", registry=self.registry
        )
        self.calls = Counter(
            "ludus_env_calls",
            "Calls of the environment",
            ["call", "outcome"],
            registry=self.registry,
        )
        self.refused = Counter(
            "ludus_env_refused", "Calls refused for want of room", ["of"], registry=self.registry
        )
        self.seconds = Histogram(
            "ludus_env_call_seconds",
            "Time of a call of the environment",
            ["call"],
            buckets=(0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 60),
            registry=self.registry,
        )
        self._called: dict[tuple[str, str], tuple[Counter, Histogram]] = {}

    def called(self, call: str, outcome: str, seconds: float) -> None:
        """One call of the environment; the meters of a label are looked up once."""
        found = self._called.get((call, outcome))
        if found is None:
            found = self.calls.labels(call, outcome), self.seconds.labels(call)
            self._called[call, outcome] = found
        found[0].inc()
        found[1].observe(seconds)


@dataclass(slots=True)
class Session:
    """One episode. `turn` counts its steps; `last` is what the last call was given and answered, for a repetition."""

    id: str
    step: Step | None = None
    turn: int = 0
    total: float = 0.0
    last: tuple[Any, dict[str, Any]] | None = None
    busy: bool = True
    touched: float = 0.0
    key: str = ""


class Sessions:
    """The episodes of one environment: opened, stepped, forked, closed, and expired when idle.

    clock  seconds that never go back; a test brings its own
    """

    def __init__(
        self, env: Env, limits: Limits, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.env, self.limits, self.clock = env, limits, clock
        # read at once: a world without its data says so where it is started, not to its clients
        self.tasks: dict[Split, Sequence[Task]] = {
            "train": env.tasks("train"),
            "test": env.tasks("test"),
        }
        self.guarded = Guarded(env, limits.deadline)
        self.open: OrderedDict[str, Session] = OrderedDict()  # the one touched longest ago first
        self.keys: dict[str, str] = {}
        self.in_flight = 0
        # AgentGym's clients know no turns: a number of the server before a restart must never come again
        self.numbers = itertools.count(secrets.randbits(31) << 16)
        self.chores: set[asyncio.Future[Any]] = set()
        self.meters = Meters()

    def task(self, split: Split, index: int) -> Task:
        there = self.tasks[split]
        if not 0 <= index < len(there):
            wanted = f"0 to {len(there) - 1}" if there else "nothing: the split is empty"
            raise Refused(422, f"index {index} of {split}; wanted {wanted} (see GET /tasks)")
        return there[index]

    # ------------------------------------------------------------------------------ the four calls

    def create(self, id_: str | None = None) -> Session:
        """A session without an episode yet; busy, so that nobody else takes it."""
        self.expire()
        if len(self.open) >= self.limits.sessions:
            self.meters.refused.labels("sessions").inc()
            raise Refused(
                429,
                f"{len(self.open)} sessions are open, and no more are allowed; close some, or start the "
                "server with a larger --sessions",
                retry_after=5,
            )
        session = Session(id_ or secrets.token_hex(16), touched=self.clock())
        self.open[session.id] = session
        return session

    async def reset(
        self, split: Split, index: int, seed: int, key: str = "", name: str = ""
    ) -> dict[str, Any]:
        """A new session; repeated with the same key, the one that there is already. `name`: what the task must be."""
        task, given = self.task(split, index), (split, index, seed)
        if name not in ("", task.id):
            raise Refused(
                409,
                f"task {index} of {split} is {task.id!r}, not {name!r}; the server was started with other tasks: "
                "read them again (a new Remote)",
            )
        if key in self.keys:
            session = self.find(self.keys[key])
            self._free(session)
            if session.turn or session.last is None or session.last[0] != given:
                raise Refused(409, f"key {key!r} has been used already; give every reset a new one")
            return session.last[1]
        session = self.create()
        if key:
            self.keys[key], session.key = session.id, key
        return await self.begin(session, task, seed, given)

    async def begin(
        self, session: Session, task: Task, seed: int, given: object = None
    ) -> dict[str, Any]:
        """Start an episode in a session that is busy for the caller."""
        before = session.step
        session.step = None
        if before is not None:
            self.later(self._close(before.state))
        step = await self._run(session, "reset", self.guarded.reset(task, seed))
        session.step, session.turn, session.total = step, 0, float(step.reward)
        return self._answer(session, given)

    async def step(self, id_: str, action: str, turn: int | None = None) -> dict[str, Any]:
        """`turn` is how many steps the caller knows of; a step that it did not hear the answer of is not done twice."""
        session = self.find(id_)
        self._free(session)
        if turn is not None and turn == session.turn - 1 and session.last is not None:
            if session.last[0] == action:
                return session.last[1]
            raise Refused(
                409,
                f"step {turn} of session {id_} was made already, with another action; "
                "fork the session before you branch",
            )
        if turn is not None and turn != session.turn:
            raise Refused(
                409, f"session {id_} is at step {session.turn}, not {turn}; step it in order"
            )
        if session.step is None:
            raise Refused(409, f"session {id_} has no episode yet; reset it with a task first")
        if session.step.end is not None:
            raise Refused(
                409, f"the episode of session {id_} is over ({session.step.end}); call reset"
            )
        session.busy = True
        step = await self._run(session, "step", self.guarded.step(session.step.state, action))
        session.step, session.turn = step, session.turn + 1
        session.total += float(step.reward)
        return self._answer(session, action)

    async def fork(self, id_: str, turn: int | None = None) -> dict[str, Any]:
        """A second session that goes on from where this one is."""
        session = self.find(id_)
        self._free(session)
        if turn is not None and turn != session.turn:
            raise Refused(409, f"session {id_} is at step {session.turn}; step {turn} is past")
        if session.step is None:
            raise Refused(409, f"session {id_} has no episode yet; reset it with a task first")
        branch, session.busy, origin = self.create(), True, session.step
        try:
            state = await self._run(branch, "fork", self.guarded.fork(origin.state))
        except CannotFork as never:
            self.forget(branch)
            raise Refused(501, str(never)) from None
        finally:
            session.busy = False
            if id_ not in self.open:  # closed in the meantime
                self.later(self._close(origin.state))
        branch.step, branch.turn, branch.total = (
            Step(state, origin.observation, origin.reward, origin.end, origin.info),
            session.turn,
            session.total,
        )
        return self._answer(branch, None)

    async def close(self, id_: str) -> dict[str, Any]:
        """Closing what is not there is no mistake: it may have expired, or the answer to the first try got lost."""
        session = self.open.get(id_)
        if session is not None:
            self.forget(session)
            if session.step is not None and not session.busy:  # else the call under way closes it
                await self._close(session.step.state)
        return {"session": id_, "closed": session is not None}

    # ------------------------------------------------------------------------------ what they share

    def find(self, id_: str) -> Session:
        self.expire()
        if id_ not in self.open:
            raise Refused(
                404,
                f"there is no session {id_[:100]}: it was never opened, was closed, was lost to a fault of the "
                f"environment, or stood idle for more than {self.limits.idle:g} s; open a new one",
            )
        session = self.open[id_]
        self._touch(session)
        return session

    def take(self, session: Session) -> None:
        """Make a session busy, or refuse."""
        self._free(session)
        session.busy = True

    def _free(self, session: Session) -> None:
        if session.busy:
            raise Refused(
                409,
                f"session {session.id} is busy with another call; wait for its answer",
                retry_after=1,
            )

    async def show(self, session: Session, view: Callable[[Any], Any]) -> Any:
        """What a function says of the session's state; it may take its time, in a thread, and the session is busy."""
        self.take(session)
        assert session.step is not None
        state = session.step.state
        try:
            async with asyncio.timeout(self.limits.deadline):
                return await asyncio.to_thread(view, state)
        except TimeoutError as error:
            raise Refused(504, f"it took longer than {self.limits.deadline:g} s") from error
        except Exception as error:
            raise Refused(500, f"{type(error).__name__}: {error}") from error
        finally:
            session.busy = False
            if self.open.get(session.id) is not session:  # closed in the meantime
                self.later(self._close(state))

    async def _run(self, session: Session, what: str, call: Awaitable[Any]) -> Any:
        """Await a call of the environment for a busy session; a fault ends the session."""
        self._touch(session)
        started, outcome = time.perf_counter(), "ok"
        try:
            result = await call
            if self.open.get(session.id) is not session:
                outcome = "closed"
                self.later(self._close(result.state if isinstance(result, Step) else result))
                raise Refused(404, f"session {session.id} was closed during this call")
            return result
        except CannotFork:
            outcome = "cannot"
            raise
        except EnvFault as fault:
            outcome = str(fault.end)
            self.forget(session)
            if session.step is not None:
                self.later(self._close(session.step.state))
            status = 504 if fault.end is End.ENV_TIMED_OUT else 500
            raise Refused(status, str(fault)) from fault
        finally:
            session.busy = False
            self._touch(session)
            self.meters.called(what, outcome, time.perf_counter() - started)

    def _answer(self, session: Session, given: object) -> dict[str, Any]:
        assert session.step is not None
        told = {"session": session.id, "turn": session.turn, **step_out(session.step)}
        session.last = (given, told)
        return told

    def _touch(self, session: Session) -> None:
        session.touched = self.clock()
        if session.id in self.open:
            self.open.move_to_end(session.id)

    def forget(self, session: Session) -> None:
        self.open.pop(session.id, None)
        self.keys.pop(session.key, None)

    async def _close(self, state: Any) -> None:
        try:
            await self.guarded.close(state)
        except EnvFault as fault:
            self.meters.calls.labels("close", str(fault.end)).inc()
        else:
            self.meters.calls.labels("close", "ok").inc()

    def expire(self) -> None:
        """Close what has stood idle too long; those touched longest ago come first, so few are looked at."""
        now, gone = self.clock(), []
        for session in self.open.values():
            if now - session.touched <= self.limits.idle:
                break
            if not session.busy:
                gone.append(session)
        for session in gone:
            self.forget(session)
            self.meters.expired.inc()
            if session.step is not None:
                self.later(self._close(session.step.state))

    def later(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Start a task that nobody cancels: a client that hangs up leaves no half-made step behind."""
        task = asyncio.create_task(call)
        self.chores.add(task)
        task.add_done_callback(self.chores.discard)
        return task

    async def close_all(self) -> None:
        for session in list(self.open.values()):
            self.forget(session)
            if session.step is not None and not session.busy:
                self.later(self._close(session.step.state))
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.limits.deadline):
                while self.chores:  # a call that ends leaves its session's closing behind
                    await asyncio.wait(self.chores)

    @contextlib.contextmanager
    def admitted(self, calls: int):
        """Room for so many calls, or a refusal of all of them."""
        if self.in_flight + calls > self.limits.in_flight:
            self.meters.refused.labels("in flight").inc()
            raise Refused(
                503,
                f"{self.in_flight} calls are under way and {calls} more came; {self.limits.in_flight} are allowed "
                "at once: send them again a little later, in smaller batches if they are many",
                retry_after=1,
            )
        self.in_flight += calls
        try:
            yield
        finally:
            self.in_flight -= calls
