"""Chains of additions, one step a tag, and the judging of such solutions. Only the last digit of each sum is kept.

    7 + 4 + 2 + 3
      <step> 1</step><step> 3</step><step> 6</step>\\boxed{6}

A solution is right where its last number is. Whoever verifies one works out every step from the number before it in
the solution, so a mistake is blamed on the step where it was made, and not on those that go on from it:

    7 + 4 + 2 + 3
    <step> 1</step><step> 4</step><step> 7</step>\\boxed{7}
    3 steps
      <step_verification><step> 1 \\boxed{CORRECT}</step><step> 3 \\boxed{INCORRECT}</step><step> 7 ...
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from ludus.envs.small.boxed_sums import boxed
from ludus.envs.world import Split, draw_for, listed, place_of, refuse_if_over
from ludus.rewards.step_verdicts import parse
from ludus.types import End, Key, Message, Step, Task

SOLVE = Message("system", "Solve step by step.")
VERIFY = Message("system", "Judge every step, then all.")
_NUMBERS = re.compile(r"<step>\s*(\d)\s*</step>")


@dataclass(frozen=True)
class State:
    terms: tuple[int, ...]
    over: bool = False

    @property
    def problem(self) -> str:
        return " + ".join(map(str, self.terms))

    @property
    def sums(self) -> list[int]:
        """The last digit of every running sum."""
        return [sum(self.terms[:count]) % 10 for count in range(2, len(self.terms) + 1)]


@dataclass(frozen=True)
class Chains:
    """One turn a task.

    terms    least and most numbers to add, one more than the additions; tasks take the lengths in turn
    largest  of a term; the smallest is 1
    slips    how often the beginner is off by one in a step, and goes on from there
    """

    terms: tuple[int, int] = (4, 6)
    largest: int = 9
    slips: float = 0.5
    train: int = 1024
    test: int = 128
    seed: int = 0
    name: str = "chains"

    def start(self, split: Split, index: int) -> State:
        """The test split gets the tasks whose terms hash to it."""
        low, high = self.terms
        count = low + index % (high - low + 1)
        terms = draw_for(
            split,
            Key(self.seed, ("chains", split, index)),
            lambda rng: tuple(rng.integers(1, self.largest + 1, size=count).tolist()),
            lambda terms: terms,
        )
        return State(terms)

    # ------------------------------------------------------------------------------------ players

    def words(self) -> tuple[str, ...]:
        return (*listed(SOLVE.text, "step boxed"), *"+<>/\\{}")

    def expert(self, state: State) -> str:
        return written(state.sums)

    def beginner(self, state: State, rng: np.random.Generator) -> str:
        said = [state.terms[0]]
        for term in state.terms[1:]:
            said.append((said[-1] + term + slip(self.slips, rng)) % 10)
        return written(said[1:])

    # ------------------------------------------------------------------------------------ the environment

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        count = self.train if split == "train" else self.test
        states = [self.start(split, index) for index in range(count)]
        return [
            Task(
                id=f"{self.name}-{split}-{index}",
                prompt=(SOLVE,),
                answer=str(state.sums[-1]),
                env=self.name,
                difficulty=len(state.terms) - 1,
                extras={"split": split, "index": index},
            )
            for index, state in enumerate(states)
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the terms."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        return Step(state, state.problem)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        after = replace(state, over=True)
        if boxed(action) == str(state.sums[-1]):
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: State) -> State:
        return state

    def right_steps(self, task: Task, solution: str) -> list[bool]:
        """Of each step of a solution, whether it follows from the step before it."""
        state = self.start(*place_of(self, task, {"train": self.train, "test": self.test}))
        said = map(int, _NUMBERS.findall(solution))
        return [n == want for n, want in zip(said, worked_out(state.terms, solution), strict=False)]


@dataclass(frozen=True)
class Proof:
    """A solution to be judged."""

    chain: State
    solution: str
    over: bool = False

    @property
    def right(self) -> bool:
        return boxed(self.solution) == str(self.chain.sums[-1])


@dataclass(frozen=True)
class Proofs:
    """One turn a task: a solution by the beginner of `chains` is to be judged; solved if the final verdict is right.

    errs  how often the beginner is wrong about a step
    """

    chains: Chains = field(default_factory=lambda: Chains(slips=0.25))
    errs: float = 0.5
    name: str = "proofs"

    def start(self, split: Split, index: int) -> Proof:
        chain = self.chains.start(split, index)
        rng = Key(self.chains.seed, ("proofs", split, index)).generator()
        return Proof(chain, self.chains.beginner(chain, rng))

    def words(self) -> tuple[str, ...]:
        texts = "steps step verification final CORRECT INCORRECT boxed"
        return (*listed(SOLVE.text, VERIFY.text, texts), *"+<>/\\{}_")

    def expert(self, state: Proof) -> str:
        return judged(worked_out(state.chain.terms, state.solution), state.solution)

    def beginner(self, state: Proof, rng: np.random.Generator) -> str:
        """Is often off by one where it works a step out; what it makes of that hangs together."""
        found = worked_out(state.chain.terms, state.solution)
        return judged([(n + slip(self.errs, rng)) % 10 for n in found], state.solution)

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            replace(
                task,
                id=f"{self.name}-{split}-{index}",
                prompt=(VERIFY,),
                answer=self.start(split, index).right,
                env=self.name,
            )
            for index, task in enumerate(self.chains.tasks(split))
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        counts: dict[Split, int] = {"train": self.chains.train, "test": self.chains.test}
        state = self.start(*place_of(self, task, counts))
        chain = state.chain
        return Step(state, to_judge(chain.problem, state.solution, len(chain.sums))[-1].text)

    async def step(self, state: Proof, action: str) -> Step:
        refuse_if_over(state.over)
        after = replace(state, over=True)
        if parse(action).final == state.right:
            return Step(after, "right", 1.0, End.SOLVED)
        return Step(after, "wrong", 0.0, End.FAILED)

    async def fork(self, state: Proof) -> Proof:
        return state


def slip(share: float, rng: np.random.Generator) -> int:
    """One too much, never one too little: two slips of a chain cannot cancel, so a false step is a false end."""
    return int(rng.random() < share)


def written(sums: Sequence[int]) -> str:
    return "".join(f"<step> {n}</step>" for n in sums) + f"\\boxed{{{sums[-1]}}}"


def to_judge(problem: str, solution: str, steps: int) -> tuple[Message, ...]:
    """What a verifier reads."""
    return (VERIFY, Message("user", f"{problem}\n{solution}\n{steps} steps"))


def worked_out(terms: Sequence[int], solution: str) -> list[int]:
    """What each step of a solution should have come to, given the step before it."""
    said = [terms[0], *map(int, _NUMBERS.findall(solution))]
    return [(before + term) % 10 for before, term in zip(said[:-1], terms[1:], strict=False)]


def judged(found: Sequence[int], solution: str) -> str:
    """The verification of somebody who worked the steps out as `found`: one false step, and all is false."""
    said = list(map(int, _NUMBERS.findall(solution)))
    verdicts = ["IN" * (want != n) + "CORRECT" for want, n in zip(found, said, strict=True)]
    steps = "".join(
        f"<step> {n} \\boxed{{{verdict}}}</step>"
        for n, verdict in zip(found, verdicts, strict=True)
    )
    final = "INCORRECT" if "INCORRECT" in verdicts else "CORRECT"
    return (
        f"<step_verification>{steps}</step_verification>"
        f"<final_verification> \\boxed{{{final}}}</final_verification>"
    )
