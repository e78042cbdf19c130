"""The frame of an attempt in an environment: it is opened, played, and closed whatever happens."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from ludus.envs.guard import EnvFault, Guarded
from ludus.types import Request, Rollout, Step


async def played(
    who: str,
    request: Request,
    env: Guarded | None,
    play: Callable[[Guarded, Step], Awaitable[Rollout]],
) -> Rollout:
    """What `play` makes of the environment and its first step; an empty rollout where there was none to play.

    Errors: ValueError where the recipe has no environment; `who` is the strategy that wants one.
    """
    if env is None:
        raise ValueError(f"{who} wants an environment: give the recipe an env")
    try:
        step = await env.reset(request.task, request.seed)
    except EnvFault as fault:
        return Rollout(request.task, (), (), 0.0, fault.end, error=str(fault))
    try:
        return await play(env, step)
    finally:
        await env.leave(step.state)
