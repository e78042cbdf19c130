"""What the clients of environment servers share: a connection for each event loop, the token, and the way to wait."""

from __future__ import annotations

import asyncio
import json
import os
import random
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import httpx

TOKEN = "LUDUS_ENV_TOKEN"


class ServerFault(RuntimeError):
    """The server, or the world in it, failed; `status` is the HTTP code (0: none came)."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


Opens = Callable[[str, Mapping[str, str], float], AbstractAsyncContextManager[Any]]


def plain(url: str, headers: Mapping[str, str], timeout: float) -> httpx.AsyncClient:
    many = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    return httpx.AsyncClient(base_url=url, headers=headers, timeout=timeout, limits=many)


def lean(url: str, headers: Mapping[str, str], timeout: float) -> aiohttp.ClientSession:
    """Where requests are many: one costs a third of the processor that httpx takes for it."""
    return aiohttp.ClientSession(
        url,
        headers=headers,
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=timeout, sock_read=timeout),
        connector=aiohttp.TCPConnector(limit=0),
        cookie_jar=aiohttp.DummyCookieJar(),
    )


@dataclass
class Link:
    """The HTTP client of the event loop that runs. It is closed when that loop is shut down in order."""

    url: str
    headers: Mapping[str, str]
    timeout: float
    opens: Opens = plain
    loop: asyncio.AbstractEventLoop | None = None
    open: AsyncGenerator[Any, None] | None = None
    now: Any = None
    tasks: set[asyncio.Task[None]] = field(default_factory=set)

    async def client(self) -> Any:
        loop = asyncio.get_running_loop()
        if self.now is None or self.loop is not loop:
            self.loop, self.open = loop, self._opened()
            self.now = await anext(self.open)
        return self.now

    async def _opened(self) -> AsyncGenerator[Any, None]:
        """An asynchronous generator, because loops close those that are open when they end; it holds no other."""
        headers = {"content-type": "application/json", **self.headers}
        async with self.opens(self.url.rstrip("/") + "/", headers, self.timeout) as client:
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
