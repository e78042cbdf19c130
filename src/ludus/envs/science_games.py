"""ScienceWorld with players, and with every answer of its simulator kept: for bases and for training of tiny models.

    Your task is to find the animal with the longest life span. The animals are in the 'outside' location. ...
    This room is called the hallway. ...             teleport to outside
    You teleport to the outside.
    This outside location is called the outside. Here you see: ... a crocodile egg ...     focus on crocodile egg

What was done before in a variation is answered from memory, since the simulator does the same again (forks in
ludus.envs.scienceworld rely on that, too); what is new is played in a Java process that stands at this point or is
brought there. So a session holds no process, a state is a plain value, and what repeats an earlier attempt is free.
The newest `KEPT` answers are kept, about 100 MB.
"""

from __future__ import annotations

import asyncio
import re
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Literal, TypeVar

import numpy as np

from ludus.envs.processes import Pool
from ludus.envs.scienceworld import (
    AGENTGYM,
    INSTRUCTION,
    UNKNOWN,
    ScienceWorld,
    Simulator,
)
from ludus.envs.world import action_of, listed, one_of, refuse_if_over
from ludus.types import End, Message, Step, Task

T = TypeVar("T")
Answer = tuple[str, int, bool]
"""What the simulator shows, the score after it, whether the task is over."""

ROOMS = (
    "kitchen",
    "bathroom",
    "workshop",
    "art studio",
    "greenhouse",
    "outside",
    "foundry",
    "bedroom",
    "living room",
    "hallway",
)
WALKS = "teleport to LOC (any room; you then look around)"
KEPT = 50_000  # answers and plans, of all copies of a world (`dataclasses.replace`) together
SAMPLED = 64  # training tasks whose solutions give the words


@dataclass(frozen=True)
class Position:
    """A point of a game: what was done, and what was told from the opening on."""

    name: str
    variation: int
    told: tuple[str, ...]
    actions: tuple[str, ...] = ()
    score: int = 0
    over: bool = False


@dataclass(frozen=True)
class ScienceGames(ScienceWorld):
    """As ScienceWorld, made easy: doors are open, and one can teleport and then sees where one is.

    kept      (name, variation, simplifications, actions) -> answer, and
              (name, variation, simplifications, "plan") -> the expert's actions
    planning  the process that the expert and `words` ask; they are called inside a loop, which meanwhile hands back
              none of the processes of `pool`
    """

    kinds: Sequence[str] = AGENTGYM
    pays: Literal["progress", "final", "success"] = "success"
    simplifications: str = "easy"
    kept: OrderedDict[tuple[Any, ...], Any] = field(
        default_factory=OrderedDict, repr=False, compare=False
    )
    planning: Pool[Simulator] = field(
        default_factory=lambda: Pool(most=1), repr=False, compare=False
    )
    name: str = field(default="science_games", kw_only=True)

    def _task(self, kind: str, variation: int) -> Task:
        return replace(super()._task(kind, variation), prompt=(_PROMPT,))

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the variation fixes the world."""
        name, variation = self._place(task)
        told, *_ = await self._answer(name, variation, ())
        return Step(Position(name, variation, (told,)), told)

    async def step(self, state: Position, action: str) -> Step:
        refuse_if_over(state.over)
        said = action_of(action).encode(errors="replace").decode()  # Java takes no half characters
        actions = (*state.actions, said)
        told, score, over = await self._answer(state.name, state.variation, actions)
        after = replace(state, told=(*state.told, told), actions=actions, score=score, over=over)
        solved = score == 100
        paid = {
            "progress": (score - state.score) / 100,
            "final": score / 100,
            "success": float(solved and over),
        }
        end = None if not over else End.SOLVED if solved else End.FAILED
        return Step(after, told, paid[self.pays], end, {"score": score, "valid": told != UNKNOWN})

    async def fork(self, state: Position) -> Position:
        return state

    async def close(self, state: Position) -> None:
        """Nothing to free."""

    @property
    def views(self) -> Mapping[str, Callable[[Any], object]]:
        """None: what is answered from memory has no process to ask."""
        return {}

    async def _answer(self, name: str, variation: int, actions: tuple[str, ...]) -> Answer:
        key = (name, variation, self.simplifications, actions)
        if (answer := self.kept.get(key)) is None:
            story = (name, variation, self.simplifications, *actions)
            simulator = await self.pool.take(
                Simulator, lambda one: story[: len(one.story)] == one.story != ()
            )
            try:
                answer = await asyncio.to_thread(_played, simulator, story)
            finally:
                self.pool.give(simulator)
            self._keep(key, answer)
        return answer

    def _keep(self, key: tuple[Any, ...], value: Any) -> None:
        """The oldest gives way."""
        self.kept[key] = value
        while len(self.kept) > KEPT:
            self.kept.popitem(last=False)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        """Of what is shown along the solutions of some training tasks, and of all rooms. It asks the simulator."""
        tasks = self.tasks("train")
        asking = replace(self, pool=self.planning)
        shown = _apart(asking._shown(tasks[:: -(-len(tasks) // SAMPLED)]))
        return listed(_PROMPT.text, UNKNOWN, *ROOMS, *shown)

    def expert(self, state: Position) -> str:
        """The next action of the package's own solution after those that were done since the last walk elsewhere.

        Things are called what the last look calls them: a crocodile that is an egg yet, crocodile egg.
        """
        plan = self._plan(state.name, state.variation, state.told[0])
        at = 0
        for said in state.actions:
            if at < len(plan) and said == plan[at]:
                at += 1
            elif said.startswith(_TO):
                at = max(
                    (i for i in range(min(at + 1, len(plan))) if plan[i].startswith(_TO)), default=0
                )
        if at == len(plan):
            return "wait1"
        verb, said, name = plan[at].partition("focus on ")
        return plan[at] if verb or not said else f"focus on {_seen(name, _looked(state.told))}"

    def beginner(self, state: Position, rng: np.random.Generator) -> str:
        """Goes where a door leads, looks around, or names anything that it sees."""
        told = _looked(state.told)
        do = one_of(rng, ("walk", "look", "focus"))
        if do == "walk":
            return f"{_TO}{one_of(rng, re.findall(r'door to the ([a-z ]+) ', told) or ROOMS)}"
        things = _things(told)
        return f"focus on {one_of(rng, things)}" if do == "focus" and things else "look around"

    def _plan(self, name: str, variation: int, opening: str) -> tuple[str, ...]:
        key = (name, variation, self.simplifications, "plan")
        if (plan := self.kept.get(key)) is None:
            plan = _apart(self._solution(name, variation, opening))
            self._keep(key, plan)
        return plan

    async def _solution(self, name: str, variation: int, opening: str) -> tuple[str, ...]:
        simulator = await self.planning.take(Simulator)
        try:
            gold = await asyncio.to_thread(simulator.gold, name, variation, self.simplifications)
        finally:
            self.planning.give(simulator)
        here = re.search(r"is called the ([a-z ]+)\.", opening)
        return planned(gold, here[1] if here else ROOMS[0])

    async def _shown(self, tasks: Sequence[Task]) -> list[str]:
        texts = []
        for task in tasks:
            step = await self.reset(task, 0)
            for room in ROOMS if task is tasks[0] else ():
                texts.append(str((await self.step(step.state, f"{_TO}{room}")).observation))
            while step.end is None and len(step.state.actions) < 50:
                action = self.expert(step.state)
                texts += [str(step.observation), action]
                step = await self.step(step.state, action)
        return texts


_TO = "teleport to "
_PROMPT = Message("system", f"{INSTRUCTION.text}\n{WALKS}")


def planned(gold: Sequence[str], here: str) -> tuple[str, ...]:
    """The package's solution with each way through doors as one walk, which shows the room as well.

    The ways differ from time to time; where they lead to does not.
    """
    plan = [f"{_TO}{here}"]
    for action in gold:
        walking = plan[-1].startswith(_TO)
        if action.startswith("go to "):
            plan[len(plan) - walking :] = [f"{_TO}{action.removeprefix('go to ')}"]
        elif not (action.startswith("open door to ") or (walking and action == "look around")):
            plan.append(action.replace("baby baby", "baby"))
    return tuple(plan)


def _played(simulator: Simulator, story: tuple[Any, ...]) -> Answer:
    """The answer to the last action of a story, or to its beginning."""
    done = len(simulator.story)
    told: Answer = ("", 0, False)
    if not done or simulator.story != story[:done] or done == len(story):
        told = "\n".join(simulator.load(*story[:3])), 0, False
        done = 3
    for action in story[done:]:
        told = simulator.step(action)
        if action.startswith(_TO) and not told[2]:
            seen, score, over = simulator.step("look around")
            simulator.story = simulator.story[:-1]  # the look is part of the walk
            told = f"{told[0]}\n{seen}", score, over
    return told


def _looked(told: Sequence[str]) -> str:
    """The last thing told that says what is around."""
    return next(each for each in reversed(told) if "you see:" in each)


def _seen(name: str, told: str) -> str:
    """What a look calls the thing of this name, whose words may stand in another order there."""
    words = set(name.split())
    return next((thing for thing in _things(told) if words <= set(thing.split())), name)


def _things(told: str) -> list[str]:
    """What a look at a room names, without what is in or on it, doors, and air."""
    seen, _, _ = told.partition("You also see:")
    lines = re.findall(r"\n\t(?:an? |the )?(?:substance called )?([a-z ]+)", seen)
    return [line.strip() for line in lines if line.strip() not in ("agent", "air", "ground")]


def _apart(work: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine, in a loop of its own: players are plain functions that may be called inside a loop."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(asyncio.run, work).result()
