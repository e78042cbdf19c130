"""What every environment promises, checked on any of them: `ludus env check NAME`, or

    for finding in asyncio.run(examine(env)):
        print(finding)

A world that brings players (`ludus.envs.world.World`) is played by them; any other is answered with words of its own
observations. What a game did not show (a picture, an end) is `not seen`, which is neither good nor bad.
"""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from PIL import Image as Pictures

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.world import World, mixed
from ludus.types import CannotFork, End, Env, Image, Message, Step, Task

Verdict = Literal["ok", "failed", "note", "not seen"]

HOSTILE = {
    "an empty action": "",
    "only space": " \n\t",
    "control characters": "\0\x07\x1b[2J",
    "a lone surrogate": "\ud800",
    "unicode": "rīght 🙂 \u202eleft e\u0301 ٣",
    "a very long action": "a" * 100_000,
    "very many words": "Action: " * 5_000,
    "very many brackets": "(" * 5_000 + "<answer>" * 500,
    "a very long number": "9" * 5_000,
    "a path": "../../etc/passwd",
}
GROWTH = 10_000  # characters by which an answer may be longer than the opening
OWN = {End.SOLVED, End.FAILED, End.GAVE_UP, End.OUT_OF_TURNS}  # what a world may say of itself
PICTURES = (b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff")


@dataclass(frozen=True)
class Finding:
    """`told` says what was seen, or what was wrong and what was wanted."""

    check: str
    verdict: Verdict
    told: str

    def __str__(self) -> str:
        return f"{self.verdict:8}  {self.check:32}  {self.told}"


class Wrong(Exception):
    """A promise that is not kept; the text says how."""


class Unseen(Exception):
    """Nothing to judge by."""


class Noted(Exception):
    """Allowed, and good to know."""


Outline = tuple[Any, float, End | None]
Player = Callable[[Step, np.random.Generator], str]


@dataclass
class Examination:
    """One environment, some of its tasks, and whoever plays; every check opens and closes episodes of its own."""

    env: Env
    guarded: Guarded
    tasks: Sequence[Task]
    turns: int
    sessions: int

    async def all(self) -> list[Finding]:
        checks: dict[str, Callable[[], Awaitable[str]]] = {
            "tasks are listed": self.listed,
            "same seed, same world": self.determinism,
            "sessions are apart": self.isolation,
            "fork, or a refusal": self.forking,
            "ends are honest": self.ends,
            "an episode that is over": self.over,
            "pictures": self.pictures,
            "close": self.closing,
            **{f"hostile: {what}": self._hostile(text) for what, text in HOSTILE.items()},
        }
        return [await self._finding(name, check) for name, check in checks.items()]

    async def _finding(self, name: str, check: Callable[[], Awaitable[str]]) -> Finding:
        try:
            return Finding(name, "ok", await check())
        except Unseen as unseen:
            return Finding(name, "not seen", str(unseen))
        except Noted as noted:
            return Finding(name, "note", str(noted))
        except Wrong as wrong:
            return Finding(name, "failed", str(wrong))
        except Exception as error:  # of the environment: it is what is examined
            return Finding(name, "failed", f"{type(error).__name__}: {error}"[:500])

    # ------------------------------------------------------------------------------ playing

    def player(self, share: float = 0.5) -> Player:
        if isinstance(self.env, World):
            play = mixed(self.env, share)
            return lambda step, rng: play(step.state, rng)

        def words(step: Step, rng: np.random.Generator) -> str:
            there = Message("user", step.observation).text.split() or ["look"]
            return str(there[int(rng.integers(len(there)))])

        return words

    async def game(
        self, task: Task, seed: int, player: Player, actions: list[str] | None = None
    ) -> AsyncGenerator[Step, None]:
        """The steps of one episode, closed at the end; actions are appended to the list, if there is one."""
        rng = np.random.default_rng(seed)
        step = await self.guarded.reset(task, seed)
        try:
            yield step
            for _ in range(self.turns):
                if step.end is not None:
                    break
                action = player(step, rng)
                if actions is not None:
                    actions.append(action)
                step = await self.guarded.step(step.state, action)
                yield step
        finally:
            await self.guarded.close(step.state)

    async def played(self, task: Task, seed: int, share: float = 0.5) -> list[Step]:
        return [step async for step in self.game(task, seed, self.player(share))]

    # ------------------------------------------------------------------------------ the checks

    async def listed(self) -> str:
        train, test = list(self.env.tasks("train")), list(self.env.tasks("test"))
        ids = [task.id for task in (*train, *test)]
        if not train:
            raise Wrong("tasks('train') is empty")
        if len(set(ids)) != len(ids):
            twice = next(id_ for id_ in ids if ids.count(id_) > 1)
            raise Wrong(f"task id {twice!r} occurs twice; ids are unique over both splits")
        if [task.id for task in (*self.env.tasks("train"), *self.env.tasks("test"))] != ids:
            raise Wrong("tasks(...) lists other tasks when it is asked again")
        if not test:
            raise Noted(
                f"{len(train)} of train and none of test: success cannot be measured on held-out tasks"
            )
        return f"{len(train)} of train, {len(test)} of test"

    async def determinism(self) -> str:
        count = 0
        for task in self.tasks:
            first, again = await self.played(task, 7), await self.played(task, 7)
            for turn, (one, other) in enumerate(zip(first, again, strict=False)):
                if outline(one) != outline(other):
                    raise Wrong(
                        f"task {task.id}, seed 7, step {turn}: {shown(one)} the first time, {shown(other)} the second"
                    )
            if len(first) != len(again):
                raise Wrong(
                    f"task {task.id}: {len(first)} steps the first time, {len(again)} the second"
                )
            count += len(first)
        return f"{len(self.tasks)} tasks twice, {count} steps"

    async def isolation(self) -> str:
        """Many games in turn, step by step, against the same games one after the other."""
        jobs = [(self.tasks[n % len(self.tasks)], n) for n in range(self.sessions)]
        alone = [await self.played(task, seed) for task, seed in jobs]
        games = [self.game(task, seed, self.player()) for task, seed in jobs]
        together: list[list[Step]] = [[] for _ in jobs]
        live = dict(enumerate(games))
        try:
            while live:
                for at in list(live):
                    try:
                        together[at].append(await anext(live[at]))
                    except StopAsyncIteration:
                        del live[at]
                    except EnvFault as fault:
                        raise Wrong(
                            f"a game goes otherwise when {len(jobs)} are played in turn: {fault}"
                        ) from fault
        finally:
            for game in live.values():
                await game.aclose()
        for (task, seed), one, other in zip(jobs, alone, together, strict=True):
            if list(map(outline, one)) != list(map(outline, other)):
                raise Wrong(
                    f"task {task.id}, seed {seed} goes otherwise when {len(jobs)} are played in turn"
                )
        return f"{len(jobs)} games in turn as they are one by one"

    async def forking(self) -> str:
        if not hasattr(self.env, "fork"):
            raise Noted("no fork: trees and branches cannot be grown on it")
        task, actions, whole = self.tasks[0], list[str](), list[Step]()
        for other in self.tasks:  # the longest game: most happens after the copy is made
            made: list[str] = []
            steps = [step async for step in self.game(other, 3, self.player(), made)]
            if len(steps) > len(whole):
                task, actions, whole = other, made, steps
        if len(whole) < 2:
            raise Unseen("every episode was over at its start")
        half = (len(whole) - 1) // 2
        step = await self.guarded.reset(task, 3)
        branches: list[Any] = []  # one to go astray, one to do what the original does
        try:
            for action in actions[:half]:
                step = await self.guarded.step(step.state, action)
            try:
                for _ in range(2):
                    branches.append(await self.guarded.fork(step.state))
            except CannotFork as refusal:
                raise Noted(f"refuses: {refusal}") from refusal
            branches[0] = (await self.guarded.step(branches[0], "no such thing")).state
            for at, action in enumerate(actions[half:], half + 1):
                step = await self.guarded.step(step.state, action)
                if outline(step) != outline(whole[at]):
                    raise Wrong(
                        f"after a step of its copy, step {at} is {shown(step)}; {shown(whole[at])} without"
                    )
            for at, action in enumerate(actions[half:], half + 1):
                other = await self.guarded.step(branches[1], action)
                branches[1] = other.state
                if outline(other) != outline(whole[at]):
                    raise Wrong(
                        f"step {at} of a copy is {shown(other)}; {shown(whole[at])} in the original"
                    )
        finally:
            for state in (step.state, *branches):
                await self.guarded.close(state)
        return f"copied at step {half} of {len(whole) - 1}; the copies left the original alone, and one went its way"

    async def ends(self) -> str:
        found: set[str] = set()
        for task in self.tasks:
            for seed, share in ((0, 1.0), (1, 0.0)):
                for step in await self.played(task, seed, share):
                    if step.end is not None and step.end not in OWN:
                        raise Wrong(
                            f"task {task.id} ended as {step.end!r}, which is not a world's to say; raise an error"
                        )
                    found |= {str(step.end)} - {"None"}
        if not found:
            raise Unseen(f"no episode ended within {self.turns} turns")
        return ", ".join(sorted(found))

    async def over(self) -> str:
        for task in self.tasks:
            async for last in self.game(task, 0, self.player(1.0)):
                if last.end is None:
                    continue
                try:
                    step = await self.guarded.step(last.state, "again")
                except EnvFault as fault:
                    if isinstance(fault.__cause__, ValueError):
                        return f"refused: {fault.__cause__}"[:200]
                    raise
                paid = f" and pays {step.reward:g}" if step.reward else ""
                raise Noted(f"takes a step after its end{paid}; a ValueError would tell the caller")
        raise Unseen(f"no episode ended within {self.turns} turns")

    async def pictures(self) -> str:
        count = 0
        for task in self.tasks:
            for step in await self.played(task, 0):
                for part in () if isinstance(step.observation, str) else step.observation:
                    if isinstance(part, Image):
                        decoded(part)
                        count += 1
        if not count:
            raise Unseen("text alone")
        return f"{count} decoded"

    async def closing(self) -> str:
        if not hasattr(self.env, "close"):
            raise Noted("no close: right for a world that holds nothing outside Python")
        step = await self.guarded.reset(self.tasks[0], 0)
        await self.guarded.close(step.state)
        return "in the middle of an episode"

    def _hostile(self, text: str) -> Callable[[], Awaitable[str]]:
        async def check() -> str:
            start = await self.guarded.reset(self.tasks[0], 0)
            step = start
            try:
                step = await self.guarded.step(start.state, text)
            finally:
                await self.guarded.close(step.state)
            if step.end is End.SOLVED:
                raise Wrong(f"it solved the task and paid {step.reward:g}")
            told = Message("user", step.observation).text
            if len(told) > GROWTH + len(Message("user", start.observation).text):
                raise Wrong(f"it was answered with {len(told)} characters; cut what is repeated")
            return f"{told[:60]!r}"

        return check


async def examine(
    env: Env, *, tasks: int = 3, turns: int = 20, sessions: int = 8, deadline: float = 60.0
) -> list[Finding]:
    """Every check on an environment, in a fixed order. It never raises for what the environment does.

    tasks     of train and of test that are played
    turns     of a game at most
    sessions  that are open side by side
    """
    try:
        chosen = [*env.tasks("train")[:tasks], *env.tasks("test")[:tasks]]
    except Exception as error:
        return [Finding("tasks are listed", "failed", f"{type(error).__name__}: {error}")]
    if not chosen:
        return [Finding("tasks are listed", "failed", "there is no task in train or test")]
    return await Examination(env, Guarded(env, deadline), chosen, turns, sessions).all()


def outline(step: Step) -> Outline:
    """What of a step must repeat; its state is the environment's own affair."""
    return step.observation, step.reward, step.end


def shown(step: Step) -> str:
    text = Message("user", step.observation).text
    return f"{text[:60]!r}, reward {step.reward:g}, end {step.end}"


def decoded(picture: Image) -> None:
    """Wrong unless it is a PNG or a JPEG that can be opened."""
    if not picture.data.startswith(PICTURES):
        raise Wrong(
            f"a picture begins with {picture.data[:8]!r}; wanted the bytes of a PNG or JPEG"
        )
    try:
        Pictures.open(io.BytesIO(picture.data)).load()
    except Exception as error:
        raise Wrong(f"a picture cannot be opened: {error}") from error
