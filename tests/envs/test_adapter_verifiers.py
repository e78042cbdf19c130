"""ludus.envs.adapters.verifiers on tasksets written with the package."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

import pytest

pytest.importorskip("verifiers")

import verifiers.v1 as vf

from ludus.envs.adapters.verifiers import Verifiers
from ludus.envs.guard import EnvFault, Guarded, checked
from ludus.types import End, Step


class Sum(vf.TaskData):
    answer: str


class SumTask(vf.Task[Sum]):
    @vf.reward(weight=1.0)
    async def exact(self, task: Sum, trace: vf.Trace) -> float:
        if "raise" in trace.last_reply:
            raise OSError("the scorer is gone")
        return float(trace.last_reply == task.answer)

    @vf.reward(weight=0.5)
    async def short(self, trace: vf.Trace) -> float:
        return float(len(trace.last_reply) < 10)


class Sums(vf.Taskset[SumTask]):
    def load(self) -> Iterable[SumTask]:
        for a in range(6):
            for b in range(6):
                asked = {"prompt": f"{a} + {b} = ?", "system_prompt": "Write the number."}
                yield SumTask(Sum.model_validate({**asked, "answer": str(a + b)}))


WORLD = Verifiers(Sums(vf.TasksetConfig()), solved_at=1.5, name="vf-sums")


def attempt(answer: str) -> Step:
    async def play() -> Step:
        task = WORLD.tasks("test")[0]
        opening = await WORLD.reset(task, 0)
        a, b = str(opening.observation).removesuffix(" = ?").split(" + ")
        return await WORLD.step(opening.state, answer.replace("RIGHT", str(int(a) + int(b))))

    return checked(asyncio.run(play()), WORLD.name)


def test_the_packages_rewards_with_their_weights() -> None:
    right, wrong, long = attempt("RIGHT"), attempt("-1"), attempt("-1" * 10)
    assert right.end is End.SOLVED and right.reward == 1.5
    assert wrong.end is End.FAILED and wrong.reward == 0.5 and long.reward == 0
    assert right.info["terms"] == {"exact": 1.0, "short": 1.0}


def test_every_question_once_and_the_system_prompt_before_it() -> None:
    train, test = WORLD.tasks("train"), WORLD.tasks("test")
    assert len(train) + len(test) == 36 and train and test
    assert train[0].prompt[0].role == "system" and train[0].prompt[0].text == "Write the number."
    with pytest.raises(ValueError, match="call reset"):
        asyncio.run(WORLD.step(attempt("1").state, "1"))


@pytest.mark.parametrize("said", ["", "\x00", "\ud800", "1" * 100_000])
def test_hostile_answers_fail(said: str) -> None:
    step = attempt(said)
    assert step.end is End.FAILED and step.reward <= 0.5


def test_a_scorer_that_raises_is_a_fault_of_the_world() -> None:
    async def play() -> None:
        env = Guarded(WORLD)
        await env.step((await env.reset(WORLD.tasks()[0], 0)).state, "raise")

    with pytest.raises(EnvFault, match="the scorer is gone") as fault:
        asyncio.run(play())
    assert fault.value.end is End.ENV_CRASHED


class Prepared(SumTask):
    async def setup(self, trace, runtime) -> None: ...

    @vf.reward
    async def inside(self, runtime: vf.Runtime) -> float:
        return 1.0


class Boxes(vf.Taskset[Prepared]):
    def load(self) -> Iterable[Prepared]:
        yield Prepared(Sum.model_validate({"prompt": "?", "answer": "1", "image": "python:3.11"}))


def test_what_wants_more_than_an_answer_is_refused_with_the_reasons() -> None:
    with pytest.raises(
        ValueError, match=r"a container, preparation in a runtime, a runtime for its score"
    ):
        Verifiers(Boxes(vf.TasksetConfig())).tasks()
