"""ScienceWorld on its real Java process: gold paths, sessions apart, forks, and processes that die or hang."""

from __future__ import annotations

import asyncio
import shutil
import signal
import time
from collections.abc import Iterator
from dataclasses import replace

import pytest

pytest.importorskip("scienceworld")

from ludus.envs.guard import EnvFault, Guarded
from ludus.envs.processes import Pool
from ludus.envs.scienceworld import AGENTGYM, ALL, KINDS, ScienceWorld, Simulator, State, variations
from ludus.envs.service.wire import dumps, encode
from ludus.types import CannotFork, End, Step, Task

FIND_A_LIVING_THING = (  # the gold path of 4-1, variation 0
    "open door to greenhouse",
    "go to greenhouse",
    "open door to outside",
    "go to outside",
    "look around",
    "focus on butterfly",
    "pick up butterfly",
    "open door to kitchen",
    "go to kitchen",
    "move egg butterfly egg in inventory to red box",
)

pytestmark = pytest.mark.skipif(shutil.which("java") is None, reason="no Java runtime is installed")


@pytest.fixture(scope="module")
def env() -> Iterator[ScienceWorld]:
    """Two processes at most for all tests: starting one takes seconds."""
    made = ScienceWorld(pool=Pool(most=2))
    yield made
    made.pool.close()


def task_of(env: ScienceWorld, kind: str, variation: int = 0) -> Task:
    return env.item(sum(KINDS[each][1] for each in env.kinds[: env.kinds.index(kind)]) + variation)


async def act(env: ScienceWorld, state: State, actions: tuple[str, ...]) -> list[Step]:
    return [await env.step(state, action) for action in actions]


# ---------------------------------------------------------------------------------------------- tasks


def test_kinds_and_splits_are_those_of_the_card():
    assert (len(ALL), len(AGENTGYM)) == (30, 23)
    assert sum(count for _, count in KINDS.values()) == 7207
    assert sum(KINDS[kind][1] for kind in AGENTGYM) == 4639
    env = ScienceWorld()
    tasks = [task for split in ("train", "dev", "test") for task in env.tasks(split)]
    assert len({task.id for task in tasks}) == len(tasks) == 4639
    assert env.item(0).extras == {"kind": "1-1", "variation": 0}
    assert env.item(4638).extras == {"kind": "8-2", "variation": 9}
    with pytest.raises(ValueError, match="there are 4639"):
        env.item(4639)
    with pytest.raises(ValueError, match="see KINDS"):
        ScienceWorld(kinds=("boil",))


def test_the_package_has_these_tasks_and_divides_them_so(env: ScienceWorld):
    simulator = asyncio.run(env.pool.take(Simulator))
    package = simulator.env
    assert dict(package.tasks) == {kind: name for kind, (name, _) in KINDS.items()}
    for _, (name, count) in KINDS.items():
        assert package.get_max_variations(name) == count
    for kind in ("8-1", "9-3"):  # 14 and 162: neither divides by four
        package.load(KINDS[kind][0], 0)
        assert sorted(package.get_variations_train()) == list(variations(kind, "train"))
        assert sorted(package.get_variations_dev()) == list(variations(kind, "dev"))
        assert sorted(package.get_variations_test()) == list(variations(kind, "test"))
    env.pool.give(simulator)


# ---------------------------------------------------------------------------------------------- play


@pytest.mark.parametrize("kind", ["6-1", "8-1"])
def test_the_gold_path_reaches_the_full_score(env: ScienceWorld, kind: str):
    async def go() -> None:
        task = task_of(env, kind)
        gold = await env.gold(task)
        start = await env.reset(task, 0)
        steps: list[Step] = []
        for action in gold:
            steps.append(await env.step(start.state, action))
            if steps[-1].end is not None:  # some paths go on after the task is done
                break
        assert steps[-1].end is End.SOLVED and steps[-1].info["score"] == 100
        assert sum(step.reward for step in steps) == pytest.approx(1)
        with pytest.raises(ValueError, match="call reset"):
            await env.step(start.state, "look around")
        await env.close(start.state)

    asyncio.run(go())


def test_two_sessions_interleaved_and_a_fork_show_the_same(env: ScienceWorld):
    async def go() -> None:
        task, before = task_of(env, "4-1"), env.pool.restarts
        gold = FIND_A_LIVING_THING
        one, other = await env.reset(task, 0), await env.reset(task, 1)
        assert one.observation == other.observation
        assert one.state.simulator is not other.state.simulator
        seen = []
        for action in gold[:4]:
            step = await env.step(one.state, action)
            await env.step(other.state, "inventory")
            seen.append((step.observation, step.reward))
        looked = await env.step(other.state, "look around")
        assert "hallway" in str(looked.observation)  # the other one never moved
        await env.close(other.state)

        fork = await env.fork(one.state)
        assert fork.simulator is not one.state.simulator
        assert [(told, score) for _, told, score in fork.history] == [
            (told, score) for _, told, score in one.state.history
        ]
        rest = await act(env, one.state, gold[4:])
        await env.step(fork, "wait1")  # what the fork does is its own affair
        again = await act(env, fork, gold[4:])
        assert rest[-1].end is again[-1].end is End.SOLVED
        await env.close(fork)

        again = await env.reset(task, 0)
        replayed = await act(env, again.state, gold[:4])
        assert [(step.observation, step.reward) for step in replayed] == seen
        # a history that cannot be had again is refused, and its process goes back
        again.state.history[0] = (gold[0], "something else", 8)
        await env.close(one.state)
        with pytest.raises(CannotFork, match="begin such branches at reset"):
            await env.fork(again.state)
        await env.close(again.state)
        assert env.pool.restarts == before

    asyncio.run(go())


def test_a_wrong_focus_fails_and_each_way_of_paying_says_so(env: ScienceWorld):
    async def go() -> None:
        task = task_of(env, "4-1")
        right = ("open door to greenhouse", "go to greenhouse")
        rewards = {}
        for pays in ("progress", "final", "success"):
            other = replace(env, pays=pays)
            start = await other.reset(task, 0)
            steps = await act(other, start.state, (*right, "Thought: air.\nAction: focus on air."))
            assert steps[-1].end is End.FAILED and steps[-1].info["score"] == -100
            rewards[pays] = [step.reward for step in steps]
            await other.close(start.state)
        assert sum(rewards["progress"]) == pytest.approx(-1)
        assert rewards["final"] == pytest.approx([0.08, 0.17, -1])
        assert rewards["success"] == [0, 0, 0]

    asyncio.run(go())


def test_hostile_text_is_no_action(env: ScienceWorld):
    async def go() -> None:
        start = await env.reset(task_of(env, "4-1"), 0)
        for text in (
            "",
            "\x00",
            "\ud800",
            "a" * 100_000,
            "go to " * 5_000,
            "наука 🙂",
            "Action:" * 9,
        ):
            step = await env.step(start.state, text)
            assert step.reward == 0 and step.end is None and not step.info["valid"], text
        await env.close(start.state)
        with pytest.raises(ValueError, match="take tasks from"):
            await env.reset(replace(task_of(env, "4-1"), env="another"), 0)

    asyncio.run(go())


# ---------------------------------------------------------------------------------------------- faults


def test_a_process_that_dies_or_hangs_ends_its_own_session_and_is_replaced(env: ScienceWorld):
    async def go() -> None:
        task, before = task_of(env, "4-1"), env.pool.restarts
        guarded = Guarded(env, 60)
        dying, living = await guarded.reset(task, 0), await guarded.reset(task, 0)
        dying.state.simulator.process.kill()
        with pytest.raises(EnvFault, match="step raised") as fault:
            await guarded.step(dying.state, "look around")
        assert fault.value.end is End.ENV_CRASHED
        assert "hallway" in str((await guarded.step(living.state, "look around")).observation)
        await guarded.close(dying.state)
        assert env.pool.restarts == before + 1

        # one that hangs: the call is given up at its deadline, and closing the session kills the process
        began = time.monotonic()
        hanging = Guarded(env, 2)
        living.state.simulator.process.send_signal(signal.SIGSTOP)
        with pytest.raises(EnvFault) as fault:
            await hanging.step(living.state, "look around")
        assert fault.value.end is End.ENV_TIMED_OUT and time.monotonic() - began < 10
        await guarded.close(living.state)
        assert env.pool.restarts == before + 2

        # one that died while nobody used it is noticed before it is handed out
        first = await guarded.reset(task, 0)
        process = first.state.simulator.process
        await guarded.close(first.state)
        process.kill()
        process.wait()
        after = await guarded.reset(task, 0)
        assert env.pool.restarts == before + 3
        assert "living thing" in str(after.observation)
        await guarded.close(after.state)

    asyncio.run(go())


def test_a_third_session_waits_for_one_of_two_processes(env: ScienceWorld):
    async def go() -> None:
        task = task_of(env, "8-1")
        one, two = await env.reset(task, 0), await env.reset(task, 0)
        third = asyncio.create_task(env.reset(task, 0))
        await asyncio.sleep(0.2)
        assert not third.done()
        await env.close(one.state)
        assert (await third).observation == two.observation
        await env.close(two.state)
        await env.close((await third).state)

    asyncio.run(go())


def test_a_second_close_hands_back_nothing_and_a_closed_session_takes_no_step(env: ScienceWorld):
    async def go() -> None:
        task = task_of(env, "4-1")
        first = await env.reset(task, 0)
        await env.close(first.state)
        await env.close(first.state)
        one, two = await env.reset(task, 0), await env.reset(task, 0)
        await env.close(first.state)
        assert one.state.simulator is not two.state.simulator
        with pytest.raises(ValueError, match="session is closed; call reset"):
            await env.step(first.state, "look around")
        await env.close(one.state)
        await env.close(two.state)

    asyncio.run(go())


def test_what_agentgyms_server_shows_beside_the_observations(env: ScienceWorld):
    async def play() -> None:
        step = await env.reset(task_of(env, "7-1"), 0)
        shown = {name: view(step.state) for name, view in env.views.items()}
        assert "focus on OBJ" in shown["action_hint"]["possible_actions"]  # type: ignore[index]
        assert "longest life span" in shown["task_description"]  # type: ignore[operator]
        assert all(value for value in shown.values())
        dumps(encode(shown))
        await env.close(step.state)
        with pytest.raises(ValueError, match="closed"):
            env.views["goals"](step.state)

    asyncio.run(play())
