"""The routes of AgentGym (arXiv:2406.04151, 2509.08755) over the sessions of a service: its clients can play here.

`/create` opens a session, known by a number; `/reset` gives it a task; then `/step`, `/observation` and `/close`.
`/detail` tells the last answer again, and `/list_envs` which numbers are open. What else a server of AgentGym shows of
its world (`/commands`, `/action_hint`, `/available_actions`, `/render` ...) comes from the world's `views`, if it has
any: name -> function of a state. A session that has no episode yet, or that is busy, shows nothing.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Response

from ludus.envs.service.bodies import Gym, GymReset, GymStep
from ludus.envs.service.sessions import Refused, Session, Sessions
from ludus.envs.service.wire import dumps, encode
from ludus.types import End, Message

Number = Annotated[int | None, Query(ge=0, lt=1 << 63)]
Codes = Callable[..., dict[int | str, dict[str, Any]]]
View = Callable[[Any], Any]


def as_json(value: Any) -> Response:
    return Response(dumps(value), media_type="application/json")


def answer(session: Session) -> dict[str, Any]:
    """A step as AgentGym's servers tell it, with the fields of all their dialects."""
    step = session.step
    assert step is not None
    text, number, done = (
        Message("user", step.observation).text,
        int(session.id),
        step.end is not None,
    )
    cut = step.end is End.OUT_OF_TURNS
    return {
        **{"id": number, "env_idx": number, "observation": text, "reward": float(step.reward)},
        **{"score": session.total, "done": done, "terminated": done and not cut, "truncated": cut},
        **{"info": {"end": None if step.end is None else str(step.end)}},
    }


def agentgym_routes(sessions: Sessions, codes: Codes, bare_ids: bool) -> APIRouter:
    """codes: of refusals, for OpenAPI; bare_ids: `/create` answers a number alone, as the SearchQA server does."""
    router = APIRouter()

    async def alone(call: Coroutine[Any, Any, Any]) -> Any:
        """One call under the limit; it goes on if its client hangs up."""

        async def run() -> Any:
            with room:
                return await call

        room = contextlib.ExitStack()
        try:
            room.enter_context(sessions.admitted(1))
        except Refused:
            call.close()
            raise
        return await asyncio.shield(sessions.later(run()))

    def playing(id: int | None, env_idx: int | None) -> Session:
        session = sessions.find(Gym(id=id, env_idx=env_idx).session())
        if session.step is None:
            raise Refused(409, f"session {session.id} has no episode yet; call /reset")
        return session

    @router.post("/create", response_model=Any, responses=codes(429))
    async def create(_: Annotated[Any, Body()] = None) -> Response:
        """A session, by number; what the body asks for is passed over, as the task comes with /reset."""
        number = next(sessions.numbers)
        sessions.create(str(number)).busy = False
        return as_json(number if bare_ids else {"id": number, "env_idx": number, "observation": ""})

    @router.post("/reset", response_model=dict[str, Any], responses=codes(404, 409, 500, 503, 504))
    async def reset(body: GymReset) -> Response:
        session, item = sessions.find(body.session()), body.item()
        train, test = (len(sessions.tasks[split]) for split in ("train", "test"))
        if item >= train + test:
            raise Refused(
                422,
                f"task {item}; wanted 0 to {train + test - 1}, {train} of train and {test} of test",
            )
        task = sessions.task(*(("train", item) if item < train else ("test", item - train)))
        sessions.take(session)
        try:
            await alone(sessions.begin(session, task, body.seed))
        finally:
            session.busy = False
        return as_json(answer(session))

    @router.post("/step", response_model=dict[str, Any], responses=codes(404, 409, 500, 503, 504))
    async def step(body: GymStep) -> Response:
        session = sessions.find(body.session())
        await alone(sessions.step(session.id, body.action))
        return as_json(answer(session))

    @router.get("/observation", response_model=str, responses=codes(404, 409))
    async def observation(id: Number = None, env_idx: Number = None) -> Response:
        step = playing(id, env_idx).step
        assert step is not None
        return as_json(Message("user", step.observation).text)

    @router.get("/detail", response_model=dict[str, Any], responses=codes(404, 409))
    async def detail(id: Number = None, env_idx: Number = None) -> Response:
        return as_json(answer(playing(id, env_idx)))

    @router.get("/list_envs", response_model=list[int], responses=codes())
    async def list_envs() -> list[int]:
        return [int(name) for name in sessions.open if name.isdecimal()]

    @router.post("/close", response_model=dict[str, Any], responses=codes(404, 409, 503))
    async def close(body: Gym) -> Response:
        session = sessions.find(body.session())
        await alone(sessions.close(session.id))
        return as_json({"closed": True})

    async def shown(session: Session, view: View) -> Response:
        return as_json(encode(await alone(sessions.show(session, view))))

    def add(name: str, view: View) -> None:
        """GET with the session in the address, POST with it in the body: AgentGym has both."""

        @router.get(f"/{name}", response_model=Any, responses=codes(404, 409, 500, 503, 504))
        async def by_address(id: Number = None, env_idx: Number = None) -> Response:
            return await shown(playing(id, env_idx), view)

        @router.post(f"/{name}", response_model=Any, responses=codes(404, 409, 500, 503, 504))
        async def by_body(body: Gym) -> Response:
            return await shown(playing(body.id, body.env_idx), view)

    for name, view in getattr(sessions.env, "views", {}).items():
        add(name, view)
    return router
