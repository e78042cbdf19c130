"""What a world costs behind `ludus env serve`, against the same world in this process; what an idle session weighs.

    ludus bench service
    python -m ludus.benches.service --curve service.svg
    python -m ludus.benches.service --soak 100000

Sessions are stepped side by side, each at its own pace. Both ways go under the guard that every engine puts around a
world, and the server is a process of its own on loopback. A step of 1 ms either waits, so that those of 64 sessions
overlap, or computes, so that they queue. `--soak` instead opens so many sessions and looks at the server's memory.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import tyro

from ludus.benches import pace, show
from ludus.benches.pace import Pace
from ludus.benches.served import Served, served
from ludus.benches.show import Target, console
from ludus.envs.guard import Guarded
from ludus.envs.service.remote import BATCH, Remote
from ludus.envs.service.wire import dumps
from ludus.types import Env, Step

WORLDS = {
    "no work": Pace(),
    "waits 1 ms": Pace(waits=0.001),
    "computes 1 ms": Pace(computes=0.001),
}
MOST = 1.5  # times in-process, at 64 sessions of a step of 1 ms
LEAK = 50.0  # bytes a session over which memory is not flat; an open session has about 900


@dataclass(frozen=True)
class Cost:
    """Of one step, in seconds: by the clock, of this process, and of the server."""

    seconds: float
    client: float
    server: float = 0.0

    @property
    def cpu(self) -> float:
        return self.client + self.server


# ---------------------------------------------------------------------------------------------- speed


async def opened(env: Guarded, sessions: int) -> list[Step]:
    (task,) = env.tasks()
    return list(await asyncio.gather(*(env.reset(task, seed) for seed in range(sessions))))


async def closed(env: Guarded, steps: Sequence[Step]) -> None:
    await asyncio.gather(*(env.close(step.state) for step in steps))


async def stepped(env: Guarded, sessions: int, steps: int, server: Served | None) -> Cost:
    """So many steps of each session, each as soon as the one before is answered; opening and closing apart."""

    async def episode(step: Step) -> Step:
        for _ in range(steps):
            step = await env.step(step.state, "go north")
        return step

    first = await opened(env, sessions)
    spent = server.cpu() if server else 0.0
    began = time.perf_counter(), time.process_time()
    last = await asyncio.gather(*map(episode, first))
    seconds, client = time.perf_counter() - began[0], time.process_time() - began[1]
    spent = (server.cpu() - spent) if server else 0.0
    assert all(step.observation == pace.SAYS for step in last)
    await closed(env, last)
    count = sessions * steps
    return Cost(seconds / count, client / count, spent / count)


def compared(
    world: Pace, sessions: Sequence[int], steps: int, repeats: int
) -> dict[int, dict[str, Cost]]:
    """Both ways by number of sessions: of each the fastest of some repeats, taken in turns."""
    found: dict[int, dict[str, Cost]] = {}
    options = (f"--set=waits={world.waits}", f"--set=computes={world.computes}")
    with served(f"{pace.__file__}:Pace", *options) as server:
        ways: dict[str, tuple[Env, Served | None]] = {
            "in process": (world, None),
            "served": (Remote(server.url), server),
        }
        for n in sessions:
            each = max(4, steps // n)
            costs: dict[str, list[Cost]] = {name: [] for name in ways}
            for _ in range(repeats):
                for name, (env, beside) in ways.items():
                    costs[name].append(asyncio.run(stepped(Guarded(env), n, each, beside)))
            found[n] = {name: min(all_, key=lambda c: c.seconds) for name, all_ in costs.items()}
    return found


def draw(costs: Mapping[str, Mapping[int, Mapping[str, Cost]]], file: Path) -> None:
    """Steps a second over sessions: in process, and served (dashed)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.5, 3.6), layout="constrained")
    axes = figure.subplots()
    for number, (world, by_sessions) in enumerate(costs.items()):
        for way, style in (("in process", "-"), ("served", "--")):
            rates = [1 / cost[way].seconds for cost in by_sessions.values()]
            label = f"{world}, {way}"
            axes.plot(
                list(by_sessions), rates, style, color=f"C{number}", marker="o", ms=4, label=label
            )
    axes.set(xlabel="sessions", ylabel="steps a second", xscale="log", yscale="log")
    axes.set_xticks(list(next(iter(costs.values()))), labels=map(str, next(iter(costs.values()))))
    axes.minorticks_off()
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.2)
    figure.legend(loc="outside right center", frameon=False, fontsize=8)
    figure.savefig(file, metadata={"Date": None} if file.suffix == ".svg" else None)


# ---------------------------------------------------------------------------------------------- memory


def weighed(sessions: int) -> dict[str, float]:
    """The server's memory with no session (after some have come and gone) and with so many idle ones."""

    async def measure(server: Served) -> tuple[int, int]:
        env = Guarded(Remote(server.url))
        await closed(env, await opened(env, min(sessions, BATCH)))
        empty = server.memory()
        steps = []
        for start in range(0, sessions, BATCH):
            steps += await opened(env, min(BATCH, sessions - start))
        full = server.memory()
        for start in range(0, sessions, BATCH):
            await closed(env, steps[start : start + BATCH])
        return empty, full

    with served(f"{pace.__file__}:Pace", "--sessions", str(sessions + BATCH)) as server:
        empty, full = asyncio.run(measure(server))
    return {"empty": empty, "full": full, "a session": (full - empty) / sessions}


# ---------------------------------------------------------------------------------------------- the soak

ROUND = 500  # sessions that are opened together
STEPS = 2
BAD: Sequence[tuple[bytes, int]] = (
    (b"{", 400),
    (b"[]", 422),
    (b'{"calls":[]}', 422),
    (b'{"calls":[{"call":"step","session":"none","action":1}]}', 422),
    (b'{"calls":[{"call":"step","session":"none","action":"x"}]}', 404),
    (b'{"calls":[{"call":"reset","index":99}]}', 422),
    (b'{"calls":[{"call":"dance"}]}', 422),
    (b'{"calls":[{"call":"fork","session":"\\ud800"}]}', 422),
)


@dataclass(frozen=True)
class Soak:
    """What a round of sessions comes to; the counts are kept, and the server must answer each as it should."""

    env: Guarded
    client: httpx.AsyncClient
    server: Served
    counts: Counter[str]

    async def round(self, number: int) -> None:
        """Of ten sessions eight are played to their end, one is left alone, and one's client hangs up."""
        one = ROUND // 10
        played, left = await asyncio.gather(self.play(8 * one, STEPS), self.play(one, 1))
        await closed(self.env, played)
        self.counts["closed"] += len(played)
        self.counts["left alone"] += len(left)
        await asyncio.gather(*(self.hang_up(number * one + n) for n in range(one)))
        for n in range(one):
            await self.bad(*BAD[(number * one + n) % len(BAD)])

    async def play(self, sessions: int, steps: int) -> list[Step]:
        made = await opened(self.env, sessions)
        for _ in range(steps):
            made = await asyncio.gather(*(self.env.step(s.state, "go north") for s in made))
        return list(made)

    async def bad(self, body: bytes, wanted: int) -> None:
        came = await self.client.post("/calls", content=body)
        told = came.json()
        code = told.get("status", came.status_code)
        assert code == wanted and told["error"], (body, came.status_code, told)
        self.counts[f"refused with {code}"] += 1

    async def hang_up(self, seed: int) -> None:
        """Ask for a session and be gone: in the midst of the question, or before the answer."""
        body = dumps({"calls": [{"call": "reset", "index": 0, "seed": seed}]})
        lines = ("POST /calls HTTP/1.1", "Host: x", "Content-Type: application/json")
        head = "\r\n".join((*lines, f"Content-Length: {len(body)}", "", ""))
        _, writer = await asyncio.open_connection("127.0.0.1", self.server.port)
        writer.write(head.encode() + (body[:20] if seed % 2 else body))
        with contextlib.suppress(ConnectionError):
            await writer.drain()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()
        self.counts["hung up"] += 1


def soak(sessions: int, every: int, idle: float) -> dict[str, Any]:
    """The server's memory after each `every` sessions, and what is still open when all have had time to expire."""

    async def run(server: Served) -> dict[str, Any]:
        memory = [(0, server.memory())]
        headers = {"content-type": "application/json"}
        async with httpx.AsyncClient(base_url=server.url, headers=headers) as client:
            about = await client.get("/about")
            assert about.json()["sessions"] == 0
            made = Soak(Guarded(Remote(server.url)), client, server, Counter())
            done = 0
            while done < sessions:
                await made.round(done // ROUND)
                done += ROUND
                if done % every == 0:
                    memory.append((done, server.memory()))
                    console.print(f"{done:,} sessions  {memory[-1][1] / show.MIB:.1f} MiB")
            until = time.monotonic() + 10 * idle + 30
            while (left := (await client.get("/about")).json()["sessions"]) and (
                time.monotonic() < until
            ):
                await asyncio.sleep(idle / 4)
            told = (await client.get("/metrics")).text
        expired = next(
            float(line.split()[1])
            for line in told.splitlines()
            if line.startswith("ludus_env_expired_total")
        )
        counts = dict(made.counts) | {"expired": int(expired), "still open": left}
        return {"counts": counts, "memory": memory}

    began = time.perf_counter()
    with served(f"{pace.__file__}:Pace", "--idle", str(idle)) as server:
        found = asyncio.run(run(server))
        found["server cpu"] = server.cpu()
    found["seconds"] = time.perf_counter() - began
    found["bytes a session"] = growth(found["memory"])
    return found


def growth(memory: Sequence[tuple[int, int]]) -> float:
    """Bytes a session, the least-squares slope over the samples after the first fifth, in which caches fill."""
    kept = memory[max(1, len(memory) // 5) :]
    if len(kept) < 2:
        return float("inf")
    x, y = np.array(kept, dtype=float).T
    return float(np.polyfit(x, y, 1)[0])


def main_soak(sessions: int, every: int, idle: float, json: Path | None) -> None:
    settings = show.machine(1)
    console.print(f"[bold]a soak of {sessions:,} sessions[/]\n{show.told(settings)}\n")
    found = soak(sessions, every, idle)
    console.print(f"\n{show.told(found['counts'])}; {found['seconds']:.0f} s")
    slope, left = found["bytes a session"], found["counts"]["still open"]
    targets = [
        Target(f"memory is flat: under {LEAK:g} bytes a session", slope, slope < LEAK),
        Target("sessions still open at the end", left, left == 0),
    ]
    console.print("\n" + "\n".join(map(str, targets)))
    show.write(
        json,
        {
            "bench": "service --soak",
            "machine": settings,
            "job": {"sessions": sessions, "every": every, "idle": idle},
            **found,
            "targets": [asdict(target) for target in targets],
        },
    )


# ---------------------------------------------------------------------------------------------- the bench


def main(
    *,
    quick: bool = False,
    json: Path | None = None,
    sessions: tuple[int, ...] = (1, 64, 1024),
    steps: int = 512,
    idle_sessions: int = 10_000,
    repeats: int = 3,
    curve: Path | None = None,
    soak: int = 0,
    every: int = 5000,
    idle: float = 5.0,
) -> None:
    """sessions: how many are stepped side by side; steps: of all of them together; idle_sessions: to weigh one; curve:
    a picture (.svg, .png); soak: instead of all that, so many sessions, memory taken after `every`, idle ones closed
    after `idle` seconds."""
    if soak:
        return main_soak(soak, every, idle, json)
    if quick:
        sessions, steps, idle_sessions, repeats = (1, 4), 32, 200, 1
    settings = show.machine(1)
    console.print(f"[bold]the cost of a service[/]\n{show.told(settings)}")
    console.print(f"{steps} steps in all, at least 4 a session; the fastest of {repeats}\n")
    costs = {}
    for name, world in WORLDS.items():
        with console.status(name):
            costs[name] = compared(world, sessions, steps, repeats)
    show.table(
        "steps a second, and microseconds of processor a step",
        ("", "sessions", "in process", "served", "times", "in process", "client", "server"),
        [
            [
                world,
                str(n),
                *(f"{1 / ways[name].seconds:,.0f}" for name in ("in process", "served")),
                f"{ways['served'].seconds / ways['in process'].seconds:.2f}",
                f"{ways['in process'].cpu * 1e6:.0f}",
                f"{ways['served'].client * 1e6:.0f}",
                f"{ways['served'].server * 1e6:.0f}",
            ]
            for world, by_sessions in costs.items()
            for n, ways in by_sessions.items()
        ],
    )
    weight = weighed(idle_sessions)
    console.print(
        f"\nan idle session: {weight['a session']:,.0f} bytes of the server "
        f"({weight['empty'] / show.MIB:.1f} MiB with none, {weight['full'] / show.MIB:.1f} with {idle_sessions:,})"
    )
    at = 64 if 64 in sessions else sessions[-1]
    targets = []
    for world in ("waits 1 ms", "computes 1 ms"):
        ways = costs[world][at]
        ratio = ways["served"].seconds / ways["in process"].seconds
        text = f"{at} sessions, a step {world}: at most {MOST:g} times in-process"
        targets.append(Target(text, ratio, ratio <= MOST))
    console.print("\n" + "\n".join(map(str, targets)))
    if curve is not None:
        draw(costs, curve)
        console.print(f"drawn in {curve}")
    show.write(
        json,
        {
            "bench": "service",
            "machine": settings,
            "job": {"steps": steps, "repeats": repeats, "idle sessions": idle_sessions},
            "steps": {
                world: {n: {name: asdict(c) for name, c in ways.items()} for n, ways in by.items()}
                for world, by in costs.items()
            },
            "memory": weight,
            "targets": [asdict(target) for target in targets],
        },
    )


if __name__ == "__main__":
    tyro.cli(main)
