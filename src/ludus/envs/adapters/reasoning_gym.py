"""All tasks of reasoning-gym (arXiv:2505.24760) as worlds of one turn, scored by the package's own scorers.

    world = ReasoningGym("basic_arithmetic", {"min_terms": 2, "max_terms": 3})

The reward is the scorer's number, often partial; `End.SOLVED` where it is 1. A question belongs to the split that its
hash gives it, so no question is in both. `names()` lists what there is.

Scorers run in this process. Those that evaluate the answer as Python get to see it only where it is plain data or plain
mathematics (ludus.envs.adapters.plain_answers); anything else is scored as what cannot be read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from ludus.envs.adapters.plain_answers import EVALUATED, plain
from ludus.envs.world import Split, place_of, refuse_if_over, side
from ludus.types import End, Explained, Message, Step, Task

INSTRUCTION = Message(
    "system", "Answer the question. Write the answer inside <answer> and </answer>."
)
LONGEST = 10_000  # characters of an answer that a scorer gets to read
UNREAD = "?"  # an answer to no dataset
DRAWS = 20  # times the wanted number of tasks; small datasets repeat themselves


def package() -> Any:
    try:
        import reasoning_gym
    except ImportError as error:
        raise Explained(
            "reasoning-gym is not installed; type: pip install reasoning-gym"
        ) from error
    return reasoning_gym


def names() -> tuple[str, ...]:
    """Of all datasets, sorted; `composite` is the package's own mixture and no task by itself."""
    return tuple(sorted(set(package().factory.DATASETS) - {"composite"}))


def answer_of(message: str) -> str:
    """What stands in the last <answer> tags; without any, the whole message."""
    *_, last = ("", *message.split("<answer>")) if "<answer>" in message else (message,)
    return last.partition("</answer>")[0].strip()[:LONGEST]


@dataclass(frozen=True)
class State:
    """entry  as the package made it: question, answer and metadata"""

    split: Split
    index: int
    entry: Mapping[str, Any] = field(repr=False)
    over: bool = False


@dataclass(frozen=True)
class ReasoningGym:
    """dataset  one of `names()`, made with `config` and `seed`"""

    dataset: str
    config: Mapping[str, Any] = field(default_factory=dict)
    train: int = 200
    test: int = 100
    seed: int = 0
    name: str = ""

    def __post_init__(self) -> None:
        if not self.name:
            object.__setattr__(self, "name", self.dataset)
        if self.dataset not in names():
            raise ValueError(
                f"reasoning-gym has no dataset {self.dataset!r}; one of: {', '.join(names())}"
            )

    @cached_property
    def _source(self) -> Any:
        size = DRAWS * (self.train + self.test)
        return package().create_dataset(
            self.dataset, **{"size": size, "seed": self.seed, **self.config}
        )

    @cached_property
    def _entries(self) -> Mapping[Split, Sequence[Mapping[str, Any]]]:
        """Different questions, dealt out to the splits in the package's order until both are full."""
        wanted: dict[Split, int] = {"train": self.train, "test": self.test}
        found: dict[Split, dict[str, Mapping[str, Any]]] = {"train": {}, "test": {}}
        for index in range(len(self._source)):
            entry = self._source[index]
            split = side(entry["question"])
            if len(found[split]) < wanted[split]:
                found[split].setdefault(entry["question"], entry)
            if all(len(found[each]) == wanted[each] for each in wanted):
                break
        short = [each for each in wanted if not found[each] and wanted[each]]
        if short:
            raise ValueError(
                f"{self.dataset} gave no question for {short[0]}; ask for more, or widen its config"
            )
        return {each: tuple(found[each].values()) for each in wanted}

    def tasks(self, split: Split = "train") -> Sequence[Task]:
        return [
            Task(
                f"{self.name}-{split}-{index}",
                (INSTRUCTION,),
                answer=entry["answer"],
                env=self.name,
                domain=self.dataset,
                extras={"split": split, "index": index},
            )
            for index, entry in enumerate(self._entries[split])
        ]

    async def reset(self, task: Task, seed: int) -> Step:
        """`seed` is not used: the task fixes the question."""
        split, index = place_of(self, task, {each: len(of) for each, of in self._entries.items()})
        entry = self._entries[split][index]
        return Step(State(split, index, entry), entry["question"])

    async def step(self, state: State, action: str) -> Step:
        refuse_if_over(state.over)
        score, info = self._score(answer_of(action), state.entry)
        end = End.SOLVED if score >= 1 else End.FAILED
        return Step(State(state.split, state.index, state.entry, True), "", score, end, info)

    def _score(self, answer: str, entry: Mapping[str, Any]) -> tuple[float, Mapping[str, Any]]:
        """Some scorers raise on what is no answer (a word for a number). One that can read the package's own answer is
        in order, and what it could not read is worth nothing; one that cannot is the world's fault, and raises."""
        kind, info = EVALUATED.get(self.dataset), {}
        if kind and answer != entry["answer"] and not plain(answer, kind):
            answer, info = UNREAD, {"unread": f"no plain {kind}"}
        try:
            return float(self._source.score_answer(answer, dict(entry))), info
        except TimeoutError:  # the engine's alarm
            raise
        except Exception as error:
            self._source.score_answer(entry["answer"], dict(entry))
            return 0.0, {"unread": f"{type(error).__name__}: {error}"[:200]}

    async def fork(self, state: State) -> State:
        return state
