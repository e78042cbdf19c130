"""VM-MCTS against choosing among whole answers, at equal samples: the second stage of ReST-RL, arXiv:2508.19576.

Trees over training problems, with tests as the verdict, give (beginning, value) pairs; a value model learns them; then
held-out problems are answered, by search and otherwise, by one policy and one value model.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ludus.engines.local.build import open_model
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.sampler import LocalSampler
from ludus.evals.metrics import mean
from ludus.rollouts.continued import Continued
from ludus.rollouts.tree_search import VALUES, BestOf, TreeData, TreeSearch
from ludus.search import mcts
from ludus.search.value_model import ValueModel
from ludus.train.recipe import Made
from ludus.train.study import Track
from ludus.types import Env, Key, Request, Rollout, Sampling, Strategy, Task


@dataclass(frozen=True)
class TreeDecoding:
    """Measures: success of "plain" (one sample) and "greedy", and for each number n of `samples` of "vm-mcts n" and
    "best of n".

    "tokens/..." are those sampled for an answer, "scored/..." the texts that the value model read for it; "rank" is its
    rank correlation with the values of trees over held-out problems, of beginnings alone: targets never trained on.
    A problem that the environment lost, or that has no room in the model's context, gives no pairs; one that it lost
    has no success either.

    problems  of the training split, searched for `rounds` rounds each for the value model's data
    held_out  of the test split, that are answered
    ranked    of these, that are searched with tests for "rank"
    samples   numbers of samples for an answer, multiples of an expansion's five
    lr, epochs  of the value model
    """

    env: Env
    model: str | Made
    sampling: Sampling = field(default_factory=lambda: Sampling(temperature=0.7, max_tokens=1024))
    problems: int = 64
    rounds: int = 100
    held_out: int = 128
    ranked: int = 16
    samples: tuple[int, ...] = (10, 50)
    lr: float = 1e-7
    epochs: int = 2

    def __post_init__(self) -> None:
        if wrong := [n for n in self.samples if n < 1 or n % mcts.Settings().samples]:
            raise ValueError(
                f"samples={wrong[0]} cannot be spent {mcts.Settings().samples} at a time, as a search expands; "
                f"give multiples of {mcts.Settings().samples}"
            )

    def measure(self, seed: int, folder: Path, track: Track) -> dict[str, float]:
        policy, renderer = open_model(self.model, seed=seed)
        engine, key = LocalEngine(LocalSampler(policy, renderer)), Key(seed, ("tree decoding",))

        def attempts(strategy: Strategy, tasks: Sequence[Task], name: str) -> list[Rollout]:
            groups = engine.collect(
                strategy, [Request(t, 1, 1) for t in tasks], self.env, key / name
            )
            return [rollout for group in groups for rollout in group.rollouts]

        train, test = self.env.tasks("train")[: self.problems], self.env.tasks("test")
        search = TreeData(self.sampling, self.rounds)
        data = [pair for r in attempts(search, train, "data") for pair in r.signals.get(VALUES, ())]
        value = ValueModel(policy.module, seed=seed)
        contexts, targets = [ids for ids, _ in data], [target for _, target in data]
        errors = value.fit(contexts, targets, lr=self.lr, epochs=self.epochs)
        ranked = [pair for r in attempts(search, test[: self.ranked], "rank") for pair in states(r)]
        told = {
            "pairs": float(len(data)),
            "error/first": mean(errors[:10]),
            "error/last": mean(errors[-10:]),
            "rank": rank_correlation(value([ids for ids, _ in ranked]), [v for _, v in ranked]),
        }

        ways: dict[str, Strategy] = {
            "plain": Continued(self.sampling),
            "greedy": Continued(Sampling(temperature=0.0, max_tokens=self.sampling.max_tokens)),
        }
        for n in self.samples:
            ways[f"best of {n}"] = BestOf(self.sampling, value, n)
            ways[f"vm-mcts {n}"] = TreeSearch(self.sampling, value, n)
        lines = []
        for name in track(list(ways), "decoding"):
            made = attempts(ways[name], test[: self.held_out], name)
            told[name] = mean(float(r.solved) for r in made if r.end.scorable)
            for cost in ("tokens", "scored"):
                if spent := [r.terms[cost] for r in made if cost in r.terms]:
                    told[f"{cost}/{name}"] = mean(spent)
            lines += [{"way": name, "task": r.task.id, "solved": r.solved} for r in made]
        (folder / "answers.jsonl").write_text("".join(json.dumps(x) + "\n" for x in lines))
        engine.close()
        return told


def states(rollout: Rollout) -> list[tuple[np.ndarray, float]]:
    """Of the data of a tree those of its expanded states, which come first; the rest are verdicts on whole texts."""
    pairs = rollout.signals.get(VALUES, ())
    return pairs[: int(rollout.terms.get("expanded", 0))]


def rank_correlation(said: Sequence[float], true: Sequence[float]) -> float:
    """Spearman's: the correlation of ranks, equal numbers sharing their mean rank; 0 where either is constant."""
    one, other = (_ranks(np.asarray(x, np.float64)) for x in (said, true))
    if one.std() == 0 or other.std() == 0:
        return 0.0
    return float(np.corrcoef(one, other)[0, 1])


def _ranks(values: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = counts.cumsum()
    return (last - (counts - 1) / 2)[inverse]
