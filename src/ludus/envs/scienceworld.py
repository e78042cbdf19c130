"""ScienceWorld: thirty kinds of primary-school experiments in a text world (arXiv:2203.07540).

The scientific family of AgentGym-RL (arXiv:2509.08755), on the real package, whose simulator is a Java process of about
400 MB. A session has a process of its own from a pool; one that died or hangs is replaced, and `pool.restarts` counts
them. The world lives in that process, so a fork is made by playing the history again in another one.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from ludus.envs.processes import Pool
from ludus.envs.world import action_of, refuse_if_over
from ludus.types import CannotFork, End, Message, Step, Task

T = TypeVar("T")
Split = Literal["train", "dev", "test"]

KINDS = {
    "1-1": ("boil", 30),
    "1-2": ("melt", 30),
    "1-3": ("freeze", 30),
    "1-4": ("change-the-state-of-matter-of", 30),
    "2-1": ("use-thermometer", 540),
    "2-2": ("measure-melting-point-known-substance", 436),
    "2-3": ("measure-melting-point-unknown-substance", 300),
    "3-1": ("power-component", 20),
    "3-2": ("power-component-renewable-vs-nonrenewable-energy", 20),
    "3-3": ("test-conductivity", 900),
    "3-4": ("test-conductivity-of-unknown-substances", 600),
    "4-1": ("find-living-thing", 300),
    "4-2": ("find-non-living-thing", 300),
    "4-3": ("find-plant", 300),
    "4-4": ("find-animal", 300),
    "5-1": ("grow-plant", 126),
    "5-2": ("grow-fruit", 126),
    "6-1": ("chemistry-mix", 32),
    "6-2": ("chemistry-mix-paint-secondary-color", 36),
    "6-3": ("chemistry-mix-paint-tertiary-color", 36),
    "7-1": ("lifespan-longest-lived", 125),
    "7-2": ("lifespan-shortest-lived", 125),
    "7-3": ("lifespan-longest-lived-then-shortest-lived", 125),
    "8-1": ("identify-life-stages-1", 14),
    "8-2": ("identify-life-stages-2", 10),
    "9-1": ("inclined-plane-determine-angle", 168),
    "9-2": ("inclined-plane-friction-named-surfaces", 1386),
    "9-3": ("inclined-plane-friction-unnamed-surfaces", 162),
    "10-1": ("mendelian-genetics-known-plant", 120),
    "10-2": ("mendelian-genetics-unknown-plant", 480),
}
"""The package's number of a kind of task -> its name and how many variations there are; 7,207 in all."""

ALL = tuple(KINDS)
LEFT_OUT = (
    "5-1",
    "5-2",
    "9-1",
    "9-2",
    "9-3",
    "10-1",
    "10-2",
)  # by AgentGym: too long for its rounds
AGENTGYM = tuple(number for number in ALL if number not in LEFT_OUT)  # 23 kinds, 4,639 variations

INSTRUCTION = Message(
    "system",
    "You are in a house with a laboratory. Do the task you are given. Write one action per turn, after Action:\n"
    "look around | look at OBJ | look in OBJ | inventory | task | read OBJ | examine OBJ\n"
    "go to LOC | open OBJ | close OBJ | pick up OBJ | put down OBJ | move OBJ to OBJ\n"
    "focus on OBJ (names what the task is about; a wrong one ends the task)\n"
    "activate OBJ | deactivate OBJ | use OBJ | use OBJ on OBJ | connect OBJ to OBJ | disconnect OBJ\n"
    "pour OBJ into OBJ | dunk OBJ into OBJ | mix OBJ | eat OBJ | flush OBJ\n"
    "wait (ten moments) | wait1 (one moment)\n"
    "When asked which of several you mean, answer with its number.",
)
UNKNOWN = "No known action matches that input."  # the simulator's words


def variations(kind: str, split: Split) -> range:
    """Those of a split, as the simulator divides them: two quarters (rounded down), a quarter, and the rest."""
    _, count = KINDS[kind]
    quarter = count // 4
    match split:
        case "train":
            return range(2 * quarter)
        case "dev":
            return range(2 * quarter, 3 * quarter)
        case "test":
            return range(3 * quarter, count)
    raise ValueError(f"split {split!r}; give 'train', 'dev' or 'test'")


# ---------------------------------------------------------------------------------------------- processes


class Simulator:
    """One Java process. Its calls block; what goes wrong in one is raised, and it is then not used again.

    story  where it stands: the arguments of the last `load`, then the actions since
    """

    def __init__(self) -> None:
        self.env: Any = _started()
        self.busy = self.broken = False
        self.story: tuple[object, ...] = ()

    @property
    def process(self) -> Any:
        return self.env._gateway.java_process  # the package has no other name for it

    @property
    def usable(self) -> bool:
        return not (self.busy or self.broken) and self.process.poll() is None

    def load(self, name: str, variation: int, simplifications: str) -> tuple[str, str]:
        """Task description and first look."""

        def load() -> tuple[str, str]:
            self.env.load(name, variation, simplifications)
            return self.env.get_task_description(), self.env.server.step("look around")

        self.story = ()
        told = self._call(load)
        self.story = (name, variation, simplifications)
        return told

    def gold(self, name: str, variation: int, simplifications: str) -> tuple[str, ...]:
        """The actions of the package's own solution; it has to be made anew for each variation."""

        def gold() -> tuple[str, ...]:
            self.env.load(name, variation, simplifications, generateGoldPath=True)
            return tuple(self.env.get_gold_action_sequence())

        self.story = ()
        return self._call(gold)

    def step(self, action: str) -> tuple[str, int, bool]:
        """Observation, score (-100 to 100) and whether the task is over.

        The package's own `step` also lists every valid action, which takes twenty times as long, and ends after 100
        moves; the turns are counted by whoever plays.
        """

        def step() -> tuple[str, int, bool]:
            server = self.env.server
            told = server.step(action)
            score = round(100 * server.getScore())
            return told, score, bool(server.getCompleted()) or score < 0

        self.story = (*self.story, action)
        return self._call(step)

    def ask(self, question: Callable[[Any], T]) -> T:
        """What the package's environment answers where it stands."""
        return self._call(lambda: question(self.env))

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def _call(self, what: Callable[[], T]) -> T:
        self.busy = True
        try:
            return what()
        except Exception:
            self.broken = True
            raise
        finally:
            self.busy = False


def _started() -> Any:
    try:
        from scienceworld import ScienceWorldEnv
    except ImportError as error:
        raise ImportError("ScienceWorld needs its package; pip install scienceworld") from error
    if shutil.which("java") is None:
        raise RuntimeError(
            "ScienceWorld needs a Java runtime; install default-jre-headless (Debian)"
        )
    logging.getLogger("py4j").setLevel(logging.CRITICAL)  # what it would log is raised as well

    class Quiet(ScienceWorldEnv):
        def close(self) -> None:
            with contextlib.suppress(Exception):  # when it is collected, its process may be gone
                super().close()

    return Quiet()


# ---------------------------------------------------------------------------------------------- the environment


@dataclass(eq=False)
class State:
    """A handle: the process, what was loaded into it, and each action with what it showed and the score after it.

    simulator  None once the session is closed
    """

    simulator: Simulator | None
    name: str
    variation: int
    opening: str
    history: list[tuple[str, str, int]] = field(default_factory=list)
    over: bool = False

    @property
    def running(self) -> Simulator:
        if self.simulator is None:
            raise ValueError("this session is closed; call reset for a new one")
        return self.simulator

    @property
    def score(self) -> int:
        return self.history[-1][2] if self.history else 0


@dataclass(frozen=True)
class ScienceWorld:
    """Tasks are (kind, variation); the splits are the package's.

    kinds            of KINDS: AGENTGYM's 23, ALL 30, or some
    pays             progress: what the score grew by, a hundredth a point, so that the rewards add up to the score;
                     final: the score so far, of which AgentLoop(total="last") takes the last, as AgentGym does;
                     success: 1 at a score of 100
    simplifications  the package's names with commas between, "easy" for all
    """

    kinds: Sequence[str] = AGENTGYM
    pays: Literal["progress", "final", "success"] = "progress"
    simplifications: str = ""
    pool: Pool[Simulator] = field(default_factory=Pool)
    name: str = field(default="scienceworld", kw_only=True)

    def __post_init__(self) -> None:
        if wrong := [kind for kind in self.kinds if kind not in KINDS]:
            raise ValueError(f"no kinds {wrong}; give numbers such as '1-1', see KINDS")

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return tuple(
            self._task(kind, variation)
            for kind in self.kinds
            for variation in variations(kind, split)
        )

    def item(self, index: int) -> Task:
        """The variation of this number, counted over all kinds and splits in order: AgentGym's item of this number."""
        left = index
        for kind in self.kinds:
            if 0 <= left < KINDS[kind][1]:
                return self._task(kind, left)
            left -= KINDS[kind][1]
        raise ValueError(f"item {index}; there are {index - left} from 0 on")

    def _task(self, kind: str, variation: int) -> Task:
        return Task(
            id=f"{self.name}-{kind}-{variation}",
            prompt=(INSTRUCTION,),
            env=self.name,
            domain=KINDS[kind][0],
            extras={"kind": kind, "variation": variation},
        )

    def _place(self, task: Task) -> tuple[str, int]:
        match task.extras:
            case {"kind": str(kind), "variation": int(variation)} if (
                kind in self.kinds and 0 <= variation < KINDS[kind][1] and task.env == self.name
            ):
                return KINDS[kind][0], variation
        raise ValueError(
            f"task {task.id!r} with extras {dict(task.extras)} is none of {self.name}; "
            "take tasks from env.tasks('train') or env.tasks('test')"
        )

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the variation fixes the world."""
        name, variation = self._place(task)
        simulator, opening = await self._loaded(name, variation)
        return Step(State(simulator, name, variation, opening), opening)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        simulator = state.running
        said = action_of(action).encode(errors="replace").decode()  # Java takes no half characters
        before = state.score
        told, score, over = await asyncio.to_thread(simulator.step, said)
        state.history.append((said, told, score))
        state.over = over
        solved = score == 100
        paid = {
            "progress": (score - before) / 100,
            "final": score / 100,
            "success": float(solved and over),
        }
        end = None if not over else End.SOLVED if solved else End.FAILED
        info = {"score": score, "valid": told != UNKNOWN}
        return Step(state, told, paid[self.pays], end, info)

    async def fork(self, state: State) -> State:
        """The history played again in another process; CannotFork where that does not show the same."""
        simulator, opening = await self._loaded(state.name, state.variation)
        copy = State(simulator, state.name, state.variation, opening)
        try:
            for turn, (action, told, score) in enumerate(state.history):
                again = await asyncio.to_thread(simulator.step, action)
                if again != (told, score, state.over and turn == len(state.history) - 1):
                    raise CannotFork(
                        f"{state.name} {state.variation} shows something else when {action!r} is done again in turn "
                        f"{turn}; begin such branches at reset"
                    )
                copy.history.append((action, told, score))
        except BaseException:
            self.pool.give(simulator)
            raise
        copy.over = state.over
        return copy

    async def close(self, state: State) -> None:
        """Hands the process back; the second time there is nothing to hand back."""
        simulator, state.simulator = state.simulator, None
        if simulator is not None:
            await asyncio.to_thread(self.pool.give, simulator)

    @property
    def views(self) -> Mapping[str, Callable[[State], object]]:
        """What the package tells beside the observations; each asks the session's process."""

        def asked(question: Callable[[Any], object]) -> Callable[[State], object]:
            return lambda state: state.running.ask(question)

        return {
            "action_hint": asked(
                lambda env: {
                    "possible_actions": env.get_possible_actions(),
                    "possible_objects": env.get_possible_objects(),
                }
            ),
            "goals": asked(lambda env: env.get_goal_progress()),
            "task_description": asked(lambda env: env.get_task_description()),
            "object_tree": asked(lambda env: env.getObjectTree()),
        }

    async def gold(self, task: Task) -> tuple[str, ...]:
        """The package's own solution of a task."""
        name, variation = self._place(task)
        simulator = await self.pool.take(Simulator)
        try:
            return await asyncio.to_thread(simulator.gold, name, variation, self.simplifications)
        finally:
            self.pool.give(simulator)

    async def _loaded(self, name: str, variation: int) -> tuple[Simulator, str]:
        """A process in which a variation begins, and what it shows."""
        simulator = await self.pool.take(Simulator)
        try:
            told = await asyncio.to_thread(simulator.load, name, variation, self.simplifications)
        except BaseException:
            self.pool.give(simulator)
            raise
        return simulator, "\n".join(told)
