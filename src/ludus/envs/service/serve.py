"""Any environment as a web service: many sessions, one process, JSON over HTTP.

    ludus env serve FILE.py:MyWorld          or          serve(MyWorld(), port=8765)

Two protocols over the same sessions. `POST /calls` takes many calls at once (reset, step, fork, close) and answers each
one on a line of its own as soon as it is known; that is what `Remote` (ludus.envs.service.remote) speaks. `/create`,
`/reset`, `/step`, `/observation` and `/close` are the routes of AgentGym (arXiv:2406.04151, 2509.08755), so that its
clients can play here. An answer that is not a success has `{"error": text}` and an honest code:

    400 no JSON    401 wrong token    404 no such session    409 busy, over, or out of order    413 too large
    422 JSON of the wrong kind, or an index out of range    429 too many sessions    501 cannot fork
    500 the environment crashed    503 too many calls at once    504 it took too long; 429 and 503 say Retry-After

A session whose client is gone is closed when it has stood idle for `Limits.idle` seconds.
"""

from __future__ import annotations

import asyncio
import contextlib
import hmac
import ipaddress
import logging
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ludus.envs.service.wire import dumps, task_out
from ludus.envs.world import Split
from ludus.types import Env, Explained

try:
    import uvicorn
    from fastapi import FastAPI, Query, Request, Response
    from fastapi.exceptions import RequestValidationError
    from fastapi.responses import PlainTextResponse
    from prometheus_client import generate_latest
    from pydantic import BaseModel
    from starlette.exceptions import HTTPException
    from starlette.types import ASGIApp, Receive, Scope, Send
    from starlette.types import Message as Event

    from ludus.envs.service.agentgym_routes import agentgym_routes
    from ludus.envs.service.bodies import Batch, CloseCall, ForkCall, ResetCall, StepCall
    from ludus.envs.service.sessions import Limits, Refused, Sessions
except ModuleNotFoundError as missing:
    raise Explained(
        f"serving environments wants {missing.name}, which is not installed; pip install 'ludus[serve]'"
    ) from missing

PAGE = 10_000  # tasks in one answer
KEPT = 75  # seconds that an idle connection is held: longer than clients do, or their next call may meet its end


class Problem(BaseModel):
    error: str


class Health(BaseModel):
    status: Literal["ok"] = "ok"


class About(BaseModel):
    name: str
    forks: bool
    train: int
    test: int
    sessions: int
    limits: dict[str, float]


def problem(status: int, message: str, retry_after: int | None = None) -> Response:
    headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
    if status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return Response(dumps({"error": message}), status, headers, "application/json")


# ---------------------------------------------------------------------------------------------- at the door


@dataclass
class Door:
    """Before anything is read as JSON: the token, and a body that has arrived whole and is not too large."""

    inner: ASGIApp
    token: str
    limits: Limits

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.inner(scope, receive, send)
        headers = {name.lower(): value for name, value in scope["headers"]}
        if self.token and scope["path"] != "/health":
            given = headers.get(b"authorization", b"")
            if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
                came = "another one" if given else "none"
                told = f"this server wants its token, and {came} came; send `Authorization: Bearer TOKEN`"
                return await problem(401, told)(scope, receive, send)
        try:
            async with asyncio.timeout(self.limits.deadline):
                body = await self._whole(receive, headers.get(b"content-length", b""))
        except TimeoutError:
            told = f"the body did not arrive within {self.limits.deadline:g} s"
            return await problem(408, told)(scope, receive, send)
        except Refused as refused:
            return await problem(refused.status, str(refused))(scope, receive, send)
        if body is None:
            return None
        first: list[Event] = [{"type": "http.request", "body": body, "more_body": False}]

        async def replay() -> Event:
            return first.pop() if first else await receive()

        return await self.inner(scope, replay, send)

    async def _whole(self, receive: Receive, told: bytes) -> bytes | None:
        """None if the client hung up."""
        body = bytearray()
        more = True
        while more:
            if int(told or b"0") > self.limits.body or len(body) > self.limits.body:
                raise Refused(
                    413, f"a body of more than {self.limits.body} bytes; send smaller batches"
                )
            event = await receive()
            if event["type"] == "http.disconnect":
                return None
            body += event.get("body", b"")
            more = event.get("more_body", False)
        if len(body) > self.limits.body:
            raise Refused(
                413, f"a body of more than {self.limits.body} bytes; send smaller batches"
            )
        return bytes(body)


class Lines(Response):
    """So many lines, sent as they come, those that come at one time together; nobody waits for a client to hang up."""

    def __init__(self, lines: asyncio.Queue[bytes], count: int) -> None:
        super().__init__()
        self.lines, self.count = lines, count

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = [(b"content-type", b"application/x-ndjson")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        left = self.count
        while left:
            ready = [await self.lines.get()]
            await asyncio.sleep(0)  # what ends in this turn of the loop goes along
            while not self.lines.empty():
                ready.append(self.lines.get_nowait())
            left -= len(ready)
            body = b"".join(ready)
            await send({"type": "http.response.body", "body": body, "more_body": left > 0})


# ---------------------------------------------------------------------------------------------- the application


def app(
    env: Env,
    *,
    token: str = "",
    limits: Limits | None = None,
    clock: Callable[[], float] = time.monotonic,
    bare_ids: bool = False,
) -> FastAPI:
    """The service as an ASGI application; its `state.sessions` are the live sessions.

    token     what clients must send as `Authorization: Bearer TOKEN`; none is asked for if empty
    clock     seconds; sessions expire by it
    bare_ids  `/create` answers a number alone, as the original SearchQA server does
    """
    limits = limits or Limits()
    sessions = Sessions(env, limits, clock)

    @contextlib.asynccontextmanager
    async def life(_: FastAPI) -> AsyncIterator[None]:
        async def reap() -> None:
            while True:
                await asyncio.sleep(min(10.0, limits.idle / 4))
                sessions.expire()

        reaper = asyncio.create_task(reap())
        try:
            yield
        finally:
            reaper.cancel()
            await sessions.close_all()

    made = FastAPI(title=f"Ludus environment: {env.name}", version="1", lifespan=life)
    made.state.sessions = sessions
    made.add_middleware(Door, token=token, limits=limits)

    @made.exception_handler(Refused)
    async def refused(_: Request, error: Refused) -> Response:
        return problem(error.status, str(error), error.retry_after)

    @made.exception_handler(HTTPException)
    async def missed(request: Request, error: HTTPException) -> Response:
        told = f"{request.method} {request.url.path}: {error.detail}; /docs lists what there is"
        answer = problem(error.status_code, told)
        answer.headers.update(error.headers or {})
        return answer

    @made.exception_handler(Exception)
    async def broke(_: Request, error: Exception) -> Response:
        return problem(500, f"{type(error).__name__}: {error}")

    @made.exception_handler(RequestValidationError)
    async def misread(_: Request, error: RequestValidationError) -> Response:
        found = error.errors()
        if any(one["type"] == "json_invalid" for one in found):
            return problem(400, f"the body is not JSON: {found[0].get('ctx', {}).get('error', '')}")
        where = [f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in found[:3]]
        return problem(422, f"{'; '.join(where)} (the schema is at /openapi.json)")

    def codes(*numbers: int) -> dict[int | str, dict[str, Any]]:
        return {number: {"model": Problem} for number in (400, 401, 408, 413, 422, *numbers)}

    @made.get("/", response_class=PlainTextResponse, responses=codes())
    async def banner() -> str:
        return f"ludus environment {env.name}"

    @made.get("/health")
    async def health() -> Health:
        """Asked without a token; an answer means that the loop of the server turns."""
        return Health()

    @made.get("/metrics", response_class=PlainTextResponse, responses=codes())
    async def metrics() -> str:
        sessions.meters.sessions.set(len(sessions.open))
        sessions.meters.in_flight.set(sessions.in_flight)
        return generate_latest(sessions.meters.registry).decode()

    @made.get("/about", responses=codes())
    async def about() -> About:
        counts = {split: len(tasks) for split, tasks in sessions.tasks.items()}
        return About(
            name=env.name,
            forks=hasattr(env, "fork"),
            train=counts["train"],
            test=counts["test"],
            sessions=len(sessions.open),
            limits=vars(limits),
        )

    @made.get("/tasks", response_model=list[dict[str, Any]], responses=codes())
    async def tasks(
        split: Split = "train",
        start: Annotated[int, Query(ge=0, lt=1 << 63)] = 0,
        count: Annotated[int, Query(ge=1, le=PAGE)] = PAGE,
    ) -> Response:
        """A page of the tasks of a split, in order; an empty one behind the last."""
        there = sessions.tasks[split]
        indices = range(start, min(start + count, len(there)))
        return Response(
            dumps([task_out(there[index]) for index in indices]), media_type="application/json"
        )

    @made.post(
        "/calls",
        status_code=200,
        response_class=Lines,
        responses={
            **codes(503),
            200: {
                "description": "A line of JSON for every call, in the order in which they end: `at` is the call's "
                "place in the batch and `status` its own code, as if it had come alone.",
                "content": {"application/x-ndjson": {"schema": {"type": "string"}}},
            },
        },
    )
    async def calls(batch: Batch) -> Response:
        """Many calls at once. They run side by side, so of two that act in one session the second is refused."""
        room = contextlib.ExitStack()
        room.enter_context(sessions.admitted(len(batch.calls)))
        lines: asyncio.Queue[bytes] = asyncio.Queue()
        acting: set[str] = set()

        async def answer(at: int, call: Any) -> None:
            try:
                if isinstance(call, StepCall | ForkCall):
                    if call.session in acting:
                        told = f"session {call.session} acts twice in one batch"
                        raise Refused(409, told, retry_after=1)
                    acting.add(call.session)
                line = dumps({"at": at, "status": 200, **await perform(call)})
            except Refused as error:
                told = {"at": at, "status": error.status, "error": str(error)}
                if error.retry_after is not None:
                    told["retry_after"] = error.retry_after
                line = dumps(told)
            except (
                Exception
            ) as error:  # a defect of the server: told and logged, and nobody left waiting
                line = dumps({"at": at, "status": 500, "error": f"{type(error).__name__}: {error}"})
                logging.getLogger("uvicorn.error").exception("a call failed")
            lines.put_nowait(line + b"\n")

        async def all_of_them() -> None:
            with room:
                await asyncio.gather(*(answer(at, one) for at, one in enumerate(batch.calls)))

        sessions.later(all_of_them())
        return Lines(lines, len(batch.calls))

    async def perform(call: ResetCall | StepCall | ForkCall | CloseCall) -> dict[str, Any]:
        match call:
            case ResetCall():
                return await sessions.reset(call.split, call.index, call.seed, call.key, call.task)
            case StepCall():
                return await sessions.step(call.session, call.action, call.turn)
            case ForkCall():
                return await sessions.fork(call.session, call.turn)
        return await sessions.close(call.session)

    made.include_router(agentgym_routes(sessions, codes, bare_ids))
    if re.fullmatch(
        r"[\w-]+", env.name
    ):  # some of AgentGym's servers have theirs below the name of the world
        below = agentgym_routes(sessions, codes, bare_ids)
        made.include_router(below, prefix=f"/{env.name}", include_in_schema=False)
    return made


def loopback(host: str) -> bool:
    """Whether what listens on `host` is reached from this machine alone."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def server(
    env: Env,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str = "",
    limits: Limits | None = None,
    bare_ids: bool = False,
) -> uvicorn.Server:
    """A server that is not running yet: `.run()` serves until it is told to stop."""
    if not loopback(host) and not token:
        raise Explained(
            f"{host} can be reached from other machines, and no token was given; set one, for example\n"
            f"  LUDUS_ENV_TOKEN=$(openssl rand -hex 16) ludus env serve ... --host {host}"
        )
    made = app(env, token=token, limits=limits, bare_ids=bare_ids)
    settings = uvicorn.Config(
        made,
        host=host,
        port=port,
        log_level="warning",
        timeout_keep_alive=KEPT,
        timeout_graceful_shutdown=5,
    )
    return uvicorn.Server(settings)


def serve(
    env: Env,
    *,
    host: str = "127.0.0.1",
    port: int = 8765,
    token: str = "",
    limits: Limits | None = None,
    bare_ids: bool = False,
) -> None:
    """Serve until interrupted."""
    server(env, host=host, port=port, token=token, limits=limits, bare_ids=bare_ids).run()
