"""An environment that hangs, dies or lies ends its own rollout, counted; never the run."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, cast

import pytest
from tests.helpers import Script, engine, solved_after, tiny_model

from ludus.advantages.credit import GRPO, ReMax
from ludus.curricula.horizon import fixed
from ludus.data.batch import make_batch
from ludus.losses.clipped import clipped_ratio
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.continued import Continued
from ludus.rollouts.critique_refine import ACTOR, CRITIC, CritiqueRefine
from ludus.rollouts.soft_thought import SoftThought
from ludus.rollouts.solve_and_verify import GENERATOR, VERIFIER, SolveAndVerify
from ludus.rollouts.tree_search import BestOf, TreeData
from ludus.train.collect import AllLost, Collector, judged
from ludus.train.recipe import Recipe
from ludus.train.summary import summary
from ludus.types import End, Group, Key, Message, Request, Sampling, Step, Task

LOOP = AgentLoop(Sampling(max_tokens=4))


def spin(turn: int, action: str) -> Step:
    while True:
        pass


async def sleep(turn: int, action: str) -> Step:
    await asyncio.sleep(60)
    raise AssertionError


def crash(turn: int, action: str) -> Step:
    raise KeyError("the world is gone")


FAULTS: Any = {
    "computes for ever": (spin, End.ENV_TIMED_OUT, "deadline of 0.3 s"),
    "waits for ever": (sleep, End.ENV_TIMED_OUT, "deadline of 0.3 s"),
    "sleeps in this thread": (lambda t, a: time.sleep(60), End.ENV_TIMED_OUT, "deadline"),
    "raises": (crash, End.ENV_CRASHED, "KeyError: 'the world is gone'"),
    "NaN reward": (lambda t, a: Step(1, "x", float("nan")), End.ENV_CRASHED, "finite number"),
    "None reward": (lambda t, a: Step(1, "x", cast(Any, None)), End.ENV_CRASHED, "finite number"),
    "no step": (lambda t, a: ("x", 1.0), End.ENV_CRASHED, "returned a tuple; wanted a ludus"),
    "no text": (
        lambda t, a: Step(1, cast(Any, {"x": 1})),
        End.ENV_CRASHED,
        "observation of type dict",
    ),
    "an end of its own": (
        lambda t, a: Step(1, "x", end=cast(Any, "won")),
        End.ENV_CRASHED,
        "end='won'",
    ),
}


@pytest.mark.parametrize("name", FAULTS)
def test_a_fault_ends_its_own_rollout_with_an_honest_end(name: str) -> None:
    """One task of three is faulty in its second turn; the others are played to their end and learnt from."""
    fault, end, message = FAULTS[name]

    class World(Script):
        async def reset(self, task: Task, seed: int) -> Step:
            return Step((task.id == "train-1", 0), "Go.")

        async def step(self, state: tuple[bool, int], action: str) -> Step:  # type: ignore[override]
            bad, turn = state
            if bad and turn == 1:
                made = fault(turn, action)
                return await made if hasattr(made, "__await__") else made
            fine = solved_after(3)(turn, action)
            return Step((bad, turn + 1), fine.observation, fine.reward, fine.end)

    groups = engine(deadline=0.3).collect(
        LOOP, [Request(task, 2, 5) for task in World(count=3).tasks()], World(), Key(0)
    )
    ends = [[r.end for r in group.rollouts] for group in groups]
    assert ends == [[End.SOLVED] * 2, [end] * 2, [End.SOLVED] * 2]
    lost = groups[1].rollouts[0]
    assert message in lost.error and not lost.end.scorable
    told = summary(groups)
    assert told["lost"] == 2 and told[f"end/{end}"] == 2 and told["success"] == 1.0
    batch = make_batch(groups)
    assert batch.scored.tolist() == [True, True, False, False, True, True]


def test_a_reset_that_fails_is_a_lost_rollout_too() -> None:
    class Broken(Script):
        async def reset(self, task: Task, seed: int) -> Step:
            raise OSError("no such world")

    groups = engine().collect(LOOP, [Request(Task("t"), 2, 3)], Broken(), Key(0))
    assert [r.end for r in groups[0].rollouts] == [End.ENV_CRASHED] * 2
    with pytest.raises(AllLost, match=r"6 x environment crashed.*OSError: no such world.*--resume"):
        collected(Broken())


def collected(world: Any) -> list[Group]:
    """What a step samples of one task with two answers."""
    recipe = Recipe(env=world, strategy=LOOP, credit=GRPO(), loss=clipped_ratio, horizon=fixed(3))
    requests = [Request(Task("t"), 2, 3)]
    return Collector(recipe, engine(), step=1, turns=3).collect(None, requests, Key(0))[1]


def test_a_step_that_was_lost_as_a_whole_is_collected_once_more_and_all_of_it_counted() -> None:
    class Gone(Script):
        asked = 0

        async def reset(self, task: Task, seed: int) -> Step:
            self.asked += 1
            if self.asked <= 2:
                raise ConnectionError("the server restarts")
            return await super().reset(task, seed)

    lost, played = collected(Gone(solved_after(1)))
    assert [r.end for r in lost.rollouts] == [End.ENV_CRASHED] * 2
    assert [r.end for r in played.rollouts] == [End.SOLVED] * 2
    assert summary([lost, played])["lost"] == 2


def test_a_close_that_fails_changes_nothing(caplog: pytest.LogCaptureFixture) -> None:
    class Stuck(Script):
        async def close(self, state: Any) -> None:
            raise ConnectionError("the server is gone")

    (group,) = collected(Stuck(solved_after(1)))
    assert [r.end for r in group.rollouts] == [End.SOLVED] * 2
    assert "the server is gone" in caplog.text


@dataclass(frozen=True)
class Handles(Script):
    """A world whose states stand for something outside, which is held until it is closed."""

    held: set[str] = field(default_factory=set)
    down: bool = False
    name: str = "handles"

    async def reset(self, task: Task, seed: int) -> Step:
        if self.down:
            raise ConnectionError("no server")
        self.held.add(task.id)
        return Step(task.id, "Go.")

    async def step(self, state: Any, action: str) -> Step:
        assert state in self.held
        told = {"problem": "p", "attempt": "a", "correct": False}
        return Step(state, "seen", 1.0, End.FAILED, told)

    async def close(self, state: Any) -> None:
        self.held.remove(state)


SAY = Sampling(max_tokens=3)
HOLDING: dict[str, tuple[Any, tuple[str, ...]]] = {
    "AgentLoop": (AgentLoop(SAY), ()),
    "Continued": (Continued(SAY), ()),
    "SoftThought": (SoftThought(SAY, SAY), ()),
    "SolveAndVerify": (
        SolveAndVerify(lambda *told: (Message("user", "Judge."),), SAY, SAY, verdicts=1),
        (GENERATOR, VERIFIER),
    ),
    "CritiqueRefine": (CritiqueRefine(SAY, SAY), (CRITIC, ACTOR)),
    "TreeData": (TreeData(SAY, rounds=2), ()),
    "BestOf": (BestOf(SAY, lambda contexts: [0.5] * len(contexts), samples=2), ()),
}


@pytest.mark.parametrize("name", HOLDING)
def test_every_strategy_closes_what_it_opened_and_survives_a_reset_that_fails(name: str) -> None:
    strategy, roles = HOLDING[name]
    cast = dict.fromkeys(roles, "policy") if roles else None
    for down, end in ((False, None), (True, End.ENV_CRASHED)):
        world = Handles(down=down)
        requests = [Request(task, 1, 1) for task in world.tasks()]
        groups = engine().collect(strategy, requests, world, Key(0), cast=cast)
        assert not world.held
        assert end is None or {r.end for group in groups for r in group.rollouts} == {end}


def test_a_fault_of_the_program_is_not_hidden() -> None:
    async def defect(*args: object) -> None:
        raise ZeroDivisionError("in the strategy")

    with pytest.raises(ZeroDivisionError, match="in the strategy"):
        engine().collect(defect, [Request(Task("t"), 2, 3)], Script(), Key(0))  # type: ignore[arg-type]


def test_a_full_context_is_the_policys_own_end_and_an_impossible_prompt_is_none() -> None:
    local = engine(tiny_model(length=96))
    talk = Script(lambda turn, action: Step(turn + 1, "again and again and again"))
    rollout = local.collect(LOOP, [Request(talk.tasks()[0], 1, 50)], talk, Key(0))[0].rollouts[0]
    assert rollout.end is End.OUT_OF_TOKENS and rollout.turns
    assert rollout.contexts[-1].length <= 96
    endless = Task("long", (Message("system", "word " * 200),))
    rollout = local.collect(LOOP, [Request(endless, 1, 5)], talk, Key(0))[0].rollouts[0]
    assert rollout.end is End.OUT_OF_TOKENS and not rollout.contexts
    assert "the model takes 96" in rollout.error and "shorten the prompt" in rollout.error


def test_a_reward_that_is_no_number_is_counted_and_not_learnt_from() -> None:
    groups = engine().collect(
        LOOP, [Request(task, 2, 3) for task in Script(count=2).tasks()], Script(), Key(0)
    )

    async def half_broken(groups: Sequence[Group]) -> Sequence[Group]:
        first, second = groups
        bad = tuple(replace(r, reward=float("nan")) for r in first.rollouts)
        return [replace(first, rollouts=bad), second]

    made = judged(half_broken, groups)
    assert [r.end for r in made[0].rollouts] == [End.JUDGE_ERROR] * 2
    assert "reward gave nan for task 'train-0'" in made[0].rollouts[0].error
    assert (
        summary(made)["lost"] == 2 and make_batch(made).scored.tolist() == [False] * 2 + [True] * 2
    )


def test_a_group_whose_greedy_twin_was_lost_is_lost_with_it_and_worlds_are_the_same() -> None:
    asked: list[int] = []

    class Fades(Script):
        loses = (3,)

        async def reset(self, task: Task, seed: int) -> Step:
            asked.append(seed)
            if len(asked) in self.loses:
                raise ConnectionError("the server is gone")
            return await super().reset(task, seed)

    def collector(world: Any) -> Collector:
        recipe = Recipe(env=world, strategy=LOOP, credit=ReMax(), loss=clipped_ratio)
        return Collector(recipe, engine(), step=1, turns=3)

    requests = [Request(Task("a"), 1, 3), Request(Task("b"), 1, 3)]
    _, sampled, (one, other) = collector(Fades(solved_after(1))).collect(None, requests, Key(0))
    assert [g.rollouts[0].end for g in sampled] == [End.SOLVED] * 2
    assert one.rollouts[0].end is End.ENV_CRASHED and "greedy attempt" in one.rollouts[0].error
    assert (other.rollouts[0].end, other.baseline) == (End.SOLVED, 1.0)
    assert make_batch([one, other]).scored.tolist() == [False, True]

    class Again(Fades):
        loses = (1, 2)

    asked.clear()
    collector(Again(solved_after(1))).collect(None, [Request(Task("a"), 1, 3)], Key(0))
    assert (
        len(asked) == 4 and len(set(asked)) == 1
    )  # a step collected anew compares in the same world
