"""The fork grammar: an answer in which a few words decide and all others follow from them.

An answer is some blocks. A block is one *fork*, a word with several choices, and `fill` words that are fixed by it. The
prompt is two words, a and b; a fork is right if it is what a fixed permutation makes of a (forks 0, 2, 4 ...) or of b
(forks 1, 3, 5 ...). Reward 1 if the grammar holds and all *needed* forks are right. So it is known which tokens matter
and what each is worth: the place to look at estimators and weights that tell the tokens of an answer apart.

    prompt  red blue
    answer  east moon star rain sun south star rain sun moon north sun moon star rain

A base that has seen random forks (`texts`) writes the grammar and guesses the forks: its success is `start_success`,
4^-needed. One answer is one turn of exactly `length` words, so with `max_tokens=length` forks are exactly
1 / (1 + fill) of the tokens.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ludus.envs.world import Split, listed, one_of, place_of, refuse_if_over
from ludus.types import End, Key, Step, Task

PROMPT = tuple("red blue green white black brown pink grey".split())
FORKS = tuple("north east south west up down left right".split())
FILLERS = tuple("sun moon star rain snow wind fog hail".split())


@dataclass(frozen=True)
class State:
    a: int
    b: int
    over: bool = False


@dataclass(frozen=True)
class Forks:
    """The world as the policy systems use it: three forks with four fillers each, of which the first two are needed.

    forks     blocks of an answer
    fill      words after each fork
    needed    which forks must be right, counted from 0
    values    different words that a and b take
    choices   different words that a fork takes
    right     how many of them are right
    held_out  a pair (a, b) is kept for the test split if (b - a) mod values is below this number. With 0, the default,
              both splits ask the same few prompts: what is measured then is how fast credit finds its tokens
    train, test  number of tasks; prompts are repeated to make so many
    seed      of the permutations
    """

    forks: int = 3
    fill: int = 4
    needed: tuple[int, ...] = (0, 1)
    values: int = 4
    choices: int = 4
    right: int = 1
    held_out: int = 0
    train: int = 512
    test: int = 512
    seed: int = 0
    name: str = "forks"

    def __post_init__(self) -> None:
        if not 1 <= self.values <= self.choices <= len(FORKS):
            raise ValueError(
                f"values={self.values}, choices={self.choices}; give 1 <= values <= choices <= {len(FORKS)}"
            )
        if self.forks < 1 or self.fill < 0 or not 1 <= self.right <= self.choices:
            raise ValueError(
                f"forks={self.forks}, fill={self.fill}, right={self.right}; give at least 1, 0, and 1 to choices"
            )
        if not 0 <= self.held_out < self.values:
            raise ValueError(
                f"held_out={self.held_out}; give 0 to {self.values - 1}, so that something is left to train on"
            )
        if len(set(self.needed)) < len(self.needed) or not set(self.needed) <= set(
            range(self.forks)
        ):
            raise ValueError(
                f"needed={self.needed}; give different numbers from 0 to {self.forks - 1}"
            )

    # ------------------------------------------------------------------------------------ the grammar

    @property
    def length(self) -> int:
        """Words of an answer; each is one token of a tokenizer that knows `words()`."""
        return self.forks * (1 + self.fill)

    def response(self, chosen: Sequence[int]) -> str:
        """The answer with these choices at its forks."""
        return " ".join(word for choice in chosen for word in self.block(choice))

    def block(self, choice: int) -> list[str]:
        return [FORKS[choice], *(FILLERS[(choice + i) % self.choices] for i in range(self.fill))]

    def read(self, text: str) -> tuple[int, ...] | None:
        """The choices of an answer; None where the grammar does not hold."""
        words = text.split()
        chosen = words[:: 1 + self.fill]
        if len(words) != self.length or not set(chosen) <= set(FORKS[: self.choices]):
            return None
        choices = tuple(FORKS.index(word) for word in chosen)
        return choices if words == self.response(choices).split() else None

    def rights(self, fork: int, state: State) -> tuple[int, ...]:
        """The right choices of a fork; the first is the one that `expert` takes."""
        permutation = (Key(self.seed, ("forks", fork))).generator().permutation(self.choices)
        value = state.a if fork % 2 == 0 else state.b
        return tuple(int(permutation[(value + i) % self.choices]) for i in range(self.right))

    def correct(self, state: State, text: str) -> bool:
        chosen = self.read(text)
        return chosen is not None and all(
            chosen[fork] in self.rights(fork, state) for fork in self.needed
        )

    # ------------------------------------------------------------------------------------ players and texts

    def words(self) -> tuple[str, ...]:
        return listed(
            *PROMPT[: self.values],
            *FORKS[: self.choices],
            *FILLERS[: self.choices if self.fill else 0],
        )

    def expert(self, state: State) -> str:
        """All forks right, those that are not needed too."""
        return self.response([self.rights(fork, state)[0] for fork in range(self.forks)])

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        return self.guess(state, rng, 0.0)

    def guess(self, state: State, rng: np.random.Generator, share: float) -> str:
        """An answer in which each fork is the expert's with probability `share`, and else drawn at random."""
        drawn = rng.integers(self.choices, size=self.forks)
        known = rng.random(self.forks) < share
        return self.response(
            [
                self.rights(fork, state)[0] if known[fork] else int(drawn[fork])
                for fork in range(self.forks)
            ]
        )

    def wrong(self, state: State, rng: np.random.Generator) -> str:
        """An answer in the grammar that earns nothing: random forks, of which a needed one is wrong."""
        if not self.needed or self.right == self.choices:
            raise ValueError(
                "every answer in the grammar is right here; give needed forks, right < choices"
            )
        drawn = [int(choice) for choice in rng.integers(self.choices, size=self.forks)]
        fork = one_of(rng, self.needed)
        rights = self.rights(fork, state)
        wrongs = [choice for choice in range(self.choices) if choice not in rights]
        drawn[fork] = one_of(rng, wrongs)
        return self.response(drawn)

    def texts(self, key: Key, share: float = 0.0) -> Iterator[tuple[str, str]]:
        """(prompt, answer) without end, to train a base on; `share` as in `guess`."""
        rng = key.generator()
        prompts = self.prompts("train")
        while True:
            state = State(*one_of(rng, prompts))
            yield self.prompt(state), self.guess(state, rng, share)

    def start_success(self, share: float = 0.0) -> float:
        """Probability that `guess` earns the reward: (share + (1 - share) right / choices) ^ needed."""
        return (share + (1 - share) * self.right / self.choices) ** len(self.needed)

    # ------------------------------------------------------------------------------------ the environment

    def prompt(self, state: State) -> str:
        return f"{PROMPT[state.a]} {PROMPT[state.b]}"

    def prompts(self, split: Split = "train") -> list[tuple[int, int]]:
        """The pairs (a, b) that a split asks about."""
        pairs = [(a, b) for a in range(self.values) for b in range(self.values)]
        if not self.held_out:
            return pairs
        return [
            (a, b) for a, b in pairs if ((b - a) % self.values < self.held_out) == (split == "test")
        ]

    def start(self, split: Split, index: int) -> State:
        prompts = self.prompts(split)
        return State(*prompts[index % len(prompts)])

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                answer=self.expert(self.start(split, index)),
                env=self.name,
                difficulty=len(self.needed),
                extras={"split": split, "index": index},
            )
            for index in range(self.train if split == "train" else self.test)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the prompt."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, self.prompt(state))

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after = replace(state, over=True)
        if self.correct(state, action):
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state
