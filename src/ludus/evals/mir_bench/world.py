"""The benchmark as an environment, one turn each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

from ludus.envs.world import Split, place_of, refuse_if_over
from ludus.evals.mir_bench.problems import Problem
from ludus.evals.mir_bench.prompts import FREE, prompt
from ludus.evals.mir_bench.scores import answer_of, lenient, strict
from ludus.types import End, Step, Task


@dataclass(frozen=True)
class State:
    text: str = field(repr=False)
    gold: str
    over: bool = False


@dataclass(frozen=True)
class ManyShots:
    """Every problem with every number of shots and every test, one turn each; difficulty is the number of shots.

    problems  split -> problems, from `pool`
    shots     numbers of shots; a longer prompt begins with the shots of the shorter one
    """

    problems: dict[Split, tuple[Problem, ...]] = field(repr=False)
    shots: tuple[int, ...] = (4, 8, 16, 32)
    ask: str = FREE
    lenient: bool = False
    name: str = "mir-bench"

    def __post_init__(self) -> None:
        for split, problems in self.problems.items():
            if len({len(problem.tests) for problem in problems}) > 1:
                raise ValueError(f"{split} problems have different numbers of tests; give as many")
            if few := [p for p in problems if len(p.shots) < max(self.shots, default=0)]:
                raise ValueError(
                    f"{few[0].function.name} has {len(few[0].shots)} shots; give fewer in shots={self.shots}"
                )

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        made = []
        for problem in self.problems[split]:
            for shots in self.shots:
                for _, gold in problem.tests:
                    index = len(made)
                    made.append(
                        Task(
                            id=f"{self.name}-{split}-{index}",
                            answer=gold,
                            env=self.name,
                            difficulty=shots,
                            domain=problem.function.takes,
                            extras={
                                "split": split,
                                "index": index,
                                "function": problem.function.name,
                            },
                        )
                    )
        return made

    def start(self, split: Split, index: int) -> State:
        tests = len(self.problems[split][0].tests)
        before, test = divmod(index, tests)
        which, level = divmod(before, len(self.shots))
        problem = self.problems[split][which]
        x, gold = problem.tests[test]
        return State(prompt(problem.shots[: self.shots[level]], x, self.ask), gold)

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes shots and test."""
        sizes: dict[Split, int] = {
            split: len(problems) * len(self.shots) * (len(problems[0].tests) if problems else 0)
            for split, problems in self.problems.items()
        }
        state = self.start(*place_of(self, task, sizes))
        return Step(state, state.text)

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        right = (lenient if self.lenient else strict)(action, state.gold)
        info = {"parsed": answer_of(action) is not None}
        after, end = replace(state, over=True), End.SOLVED if right else End.FAILED
        return Step(after, "right" if right else "wrong", float(right), end, info)

    async def fork(self, state: State) -> State:
        return state
