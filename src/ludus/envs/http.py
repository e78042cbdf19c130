"""What the clients of environment servers share: a connection for each event loop, the token, and the way to wait."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Any

import httpx

TOKEN = "LUDUS_ENV_TOKEN"


class ServerFault(RuntimeError):
    """The server, or the world in it, failed; `status` is the HTTP code (0: none came)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Link:
    """The HTTP client of the event loop that runs. It is closed when that loop is shut down in order."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    loop: asyncio.AbstractEventLoop | None = None
    open: AsyncGenerator[httpx.AsyncClient, None] | None = None
    now: httpx.AsyncClient | None = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def client(self) -> httpx.AsyncClient:
        loop = asyncio.get_running_loop()
        if self.now is None or self.loop is not loop:
            self.loop, self.open = loop, self._opened()
            self.now = await anext(self.open)
        return self.now

    async def _opened(self) -> AsyncGenerator[httpx.AsyncClient, None]:
        """An asynchronous generator, because loops close those that are open when they end."""
        many = httpx.Limits(max_connections=None, max_keepalive_connections=64)
        base = self.url.rstrip("/") + "/"
        headers = {"content-type": "application/json", **self.headers}
        async with httpx.AsyncClient(
            base_url=base, headers=headers, timeout=self.timeout, limits=many
        ) as client:
            yield client

    def keep(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)


def authorization(token: str) -> dict[str, str]:
    found = token or os.environ.get(TOKEN, "")
    return {"authorization": f"Bearer {found}"} if found else {}


def pause(attempt: int) -> float:
    """Doubling from a quarter of a second to eight, with jitter, so that many clients do not come back as one."""
    return min(8.0, 0.25 * 2**attempt) * random.uniform(0.5, 1.0)


def refusal(content: bytes) -> str:
    """The message of a refusal, from whatever answered."""
    try:
        return str(json.loads(content)["error"])
    except (ValueError, KeyError, TypeError):
        return content[:200].decode(errors="replace")
