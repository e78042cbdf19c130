"""ludus.envs.processes: real processes that are shared, replaced, preferred, kept warm and ended."""

from __future__ import annotations

import asyncio
import subprocess
import time
from collections.abc import Iterator
from typing import ClassVar

import pytest

from ludus.envs.processes import Pool


class Sleeper:
    """A process that does nothing."""

    made: ClassVar[list[Sleeper]] = []

    def __init__(self, slowly: float = 0.0) -> None:
        time.sleep(slowly)
        self.process = subprocess.Popen(["sleep", "60"])
        self.busy = False
        self.made.append(self)

    @property
    def usable(self) -> bool:
        return not self.busy and self.process.poll() is None

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    Sleeper.made.clear()
    yield
    for each in Sleeper.made:
        each.kill()


def test_what_is_given_back_is_taken_again_and_the_most_is_kept():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=2)
        one, two = await pool.take(Sleeper), await pool.take(Sleeper)
        third = asyncio.create_task(pool.take(Sleeper))
        await asyncio.sleep(0.1)
        assert one is not two and not third.done()
        pool.give(two)
        assert await third is two
        assert len(Sleeper.made) == 2 and pool.restarts == 0

    asyncio.run(play())


def test_one_that_died_or_still_runs_a_call_is_replaced_and_counted():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=1)
        first = await pool.take(Sleeper)
        first.busy = True  # its call was given up
        pool.give(first)
        assert first.process.poll() is not None
        second = await pool.take(Sleeper)
        pool.give(second)
        second.kill()  # while nobody used it
        assert await pool.take(Sleeper) is not second
        assert pool.restarts == 2

    asyncio.run(play())


def test_the_preferred_one_is_taken_first():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=3)
        all_ = [await pool.take(Sleeper) for _ in range(3)]
        for each in all_:
            pool.give(each)
        assert await pool.take(Sleeper, lambda each: each is all_[0]) is all_[0]

    asyncio.run(play())


def test_a_start_that_nobody_waits_for_any_longer_is_not_lost():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await pool.take(lambda: Sleeper(0.3))
        assert await pool.take(Sleeper) is Sleeper.made[0]
        assert len(Sleeper.made) == 1

    asyncio.run(play())


def test_a_start_that_fails_leaves_its_place():
    def never() -> Sleeper:
        raise OSError("no such program")

    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=1)
        with pytest.raises(OSError, match="no such program"):
            await pool.take(never)
        assert (await pool.take(Sleeper)).usable

    asyncio.run(play())


def test_others_are_kept_ready():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=4, warm=2)
        await pool.take(Sleeper)
        while len(Sleeper.made) < 3:
            await asyncio.sleep(0.01)

    asyncio.run(play())


def test_a_closed_pool_ends_all_and_takes_no_more():
    async def play() -> None:
        pool: Pool[Sleeper] = Pool(most=2)
        one, two = await pool.take(Sleeper), await pool.take(Sleeper)
        pool.give(one)
        pool.close()
        assert one.process.poll() is not None and two.usable
        pool.give(two)
        assert two.process.poll() is not None and pool.restarts == 0
        with pytest.raises(RuntimeError, match="make another"):
            await pool.take(Sleeper)

    asyncio.run(play())


@pytest.mark.parametrize("wrong", [{"most": 0}, {"warm": -1}])
def test_a_pool_of_none_is_refused(wrong: dict[str, int]):
    with pytest.raises(ValueError, match="at least one process"):
        Pool(**wrong)
