"""Any Gymnasium environment with discrete actions or text actions, in words.

    frozen = Gymnasium(
        lambda: gymnasium.make("FrozenLake-v1", is_slippery=False),
        actions=("left", "down", "right", "up"),
        look=lambda cell, info: f"You stand on cell {cell} of 16.",
    )

An action is named, or given by its number. What the package calls truncation is `End.OUT_OF_TURNS`; termination is
`End.SOLVED` where `solved` says so. The task alone fixes the package's seed, so all answers of a group meet the same
world. Train and test have different seeds; whether that makes different worlds is up to the environment. A fork is a
copy; of an `EzPickle` environment (Box2D, MuJoCo, Atari), whose copy is a new and unplayed one, it is a replay.
"""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ludus.envs.adapters.live import Held, Live, forked, not_copied, seed_of
from ludus.envs.world import Split, action_of, place_of
from ludus.types import End, Message, Part, Step, Task

Look = Callable[[Any, Mapping[str, Any]], "str | tuple[Part, ...]"]


def told(observation: Any, info: Mapping[str, Any]) -> str:
    """Text as it is, numbers as numbers, a mapping line by line; an error for what has no words."""
    if isinstance(observation, str):
        return observation
    if isinstance(observation, bool | int | float | np.number):
        return str(observation)
    if isinstance(observation, np.ndarray) and observation.size <= 1000:
        return np.array2string(observation, separator=" ", threshold=1001)
    if isinstance(observation, Mapping):
        return "\n".join(f"{name}: {told(value, info)}" for name, value in observation.items())
    if isinstance(observation, tuple | list):
        return " ".join(told(value, info) for value in observation)
    raise TypeError(
        f"an observation of type {type(observation).__name__} has no words of its own; give look="
    )


def paid(reward: float, info: Mapping[str, Any]) -> bool:
    """Solved where the last step paid something, as in FrozenLake or MiniGrid."""
    return reward > 0


def copied(env: Any) -> Any:
    """A copy that stands where `env` does; CannotFork where copying would call the constructor again."""
    from gymnasium.utils import EzPickle

    if isinstance(getattr(env, "unwrapped", env), EzPickle):
        not_copied(env)
    return copy.deepcopy(env)


@dataclass(frozen=True)
class Gymnasium:
    """make  a new environment (`lambda: gymnasium.make(...)`), one an episode

    actions   names of the discrete actions, in their order; empty: their numbers, or any text where the space is text
    look      (observation, info) -> what the policy sees: text, or text and images
    solved    (reward of the last step, info) -> whether termination was success
    """

    make: Callable[[], Any]
    actions: Sequence[str] = ()
    look: Look = told
    solved: Callable[[float, Mapping[str, Any]], bool] = paid
    instruction: str = ""
    train: int = 100
    test: int = 50
    name: str = "gymnasium"

    @property
    def counts(self) -> Mapping[Split, int]:
        return {"train": self.train, "test": self.test}

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        named = f"Write one action a turn: {', '.join(self.actions)}." if self.actions else ""
        words = self.instruction or named
        prompt = (Message("system", words),) if words else ()
        return [
            Task(
                f"{self.name}-{split}-{i}",
                prompt,
                env=self.name,
                extras={"split": split, "index": i},
            )
            for i in range(self.counts[split])
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes everything."""
        split, index = place_of(self, task, self.counts)
        env = self.make()
        self._refuse_space(env.action_space)
        observation, info = env.reset(seed=seed_of(self.name, split, index))
        seen = self.look(observation, info)
        return Step(Live(task, seed, (), seen, held=Held(env)), seen, info=dict(info))

    async def step(self, state: Live, action: str) -> Step:
        env = state.enter()
        chosen = self._choice(env.action_space, action)
        if chosen is None:
            seen = self._unknown(env.action_space)
            return Step(state.after(action, seen, False), seen, info={"valid": False})
        observation, reward, terminated, truncated, info = env.step(chosen)
        end = None
        if terminated:
            end = End.SOLVED if self.solved(float(reward), info) else End.FAILED
        elif truncated:
            end = End.OUT_OF_TURNS
        seen = self.look(observation, info)
        after = state.after(action, seen, end is not None)
        return Step(after, seen, float(reward), end, {**info, "valid": True})

    async def fork(self, state: Live) -> Live:
        return await forked(self, state, copied)

    async def close(self, state: Live) -> None:
        state.held.thing.close()

    def _refuse_space(self, space: Any) -> None:
        from gymnasium.spaces import Discrete, Text

        if isinstance(space, Discrete):
            if self.actions and len(self.actions) != int(space.n):
                raise ValueError(
                    f"{len(self.actions)} actions are named and {self.name} has {space.n}; name them all, in order"
                )
        elif not isinstance(space, Text):
            raise ValueError(
                f"{self.name} acts in {space}; wanted Discrete or Text. Wrap it with gymnasium.ActionWrapper first"
            )

    def _choice(self, space: Any, message: str) -> Any:
        """What the package's step wants; None where the message is no action."""
        if not hasattr(space, "n"):
            text = message.rpartition("Action:")[2].strip()
            return text if space.contains(text) else None
        said = action_of(message)
        names = [name.lower() for name in self.actions]
        if said.lower() in names:
            return int(space.start) + names.index(said.lower())
        if not re.fullmatch(r"-?[0-9]{1,9}", said):
            return None
        number = int(said)
        return number if 0 <= number - int(space.start) < int(space.n) else None

    def _unknown(self, space: Any) -> str:
        known = ", ".join(self.actions) if self.actions else str(space)
        return f"No such action. Actions: {known}."
