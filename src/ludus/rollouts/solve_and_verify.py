"""A generator solves in steps, a verifier judges every step and the whole. RL Tango, arXiv:2505.15034."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from typing import Any

import numpy as np

from ludus.envs.guard import EnvFault, Guarded
from ludus.rewards.step_verdicts import parse, step_rewards, steps_of, verifier_reward
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import (
    End,
    Group,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampler,
    Sampling,
    Task,
    Turn,
)

GENERATOR, VERIFIER = "generator", "verifier"
FOUND = "right found", "wrong found"  # terms: of a right solution, of a wrong one
SOLUTION = "solution"  # in Rollout.signals of the generator: its text
_STEP = re.compile(r"<step>.*?</step>", re.S)


@dataclass(frozen=True)
class SolveAndVerify:
    """One rollout of the generator and `verdicts` of the verifier, which are compared with each other (`cohort`).

    ask       (problem, solution, steps) -> what the verifier reads
    verdicts  of the verifier on each solution; the first one makes the step rewards

    The generator's rollout earns what the environment says of its answer. Each of its steps is a turn, and the rest is
    the last one: a turn's reward is what the verifier made of the step, 0 where there is no verdict for each step. A
    verification is solved if its final verdict is the truth.

    Terms. Generator: "formed" (it wrote steps), "judged" (its steps have verdicts). Verifier: FOUND, one for
    right solutions and one for wrong ones: their mean is the balanced accuracy.
    """

    ask: Callable[[str, str, int], Sequence[Message]]
    generator: Sampling = field(default_factory=Sampling)
    verifier: Sampling = field(default_factory=Sampling)
    verdicts: int = 5

    gives = ("reward", "turn_reward", "guidance", "one context")
    roles = (GENERATOR, VERIFIER)

    def __post_init__(self) -> None:
        if self.verdicts < 1:
            raise ValueError(
                f"verdicts={self.verdicts}; give 1 or more, or solve with an AgentLoop where nobody verifies"
            )

    async def __call__(
        self, request: Request, sampler: Mapping[str, Sampler], env: Guarded | None, key: Key
    ) -> Sequence[Rollout]:
        if env is None:
            raise ValueError("a solution is compared with the truth: give the recipe an env")
        if missing := {GENERATOR, VERIFIER} - set(sampler):
            raise ValueError(
                f"nobody plays {', '.join(sorted(missing))}; give the recipe a cast such as "
                'Alternating((("generator", 3), ("verifier", 1)), own="generator")'
            )
        try:
            start = await env.reset(request.task, request.seed)
            try:
                problem = Message("user", start.observation)
                opening = (*request.task.prompt, problem)
                solved = await _says(request, opening, self.generator, sampler, GENERATOR, key)
                if not solved.turns:
                    return [solved]
                answered = await env.step(start.state, solved.turns[0].action)
            finally:
                await env.leave(start.state)
        except EnvFault as fault:
            return [
                Rollout(request.task, (), (), 0.0, fault.end, agent=GENERATOR, error=str(fault))
            ]
        truth = answered.end is End.SOLVED
        solution = solved.turns[0].action
        steps = steps_of(solution)
        opening = tuple(self.ask(problem.text, solution, steps))
        found = await asyncio.gather(
            *(
                _says(request, opening, self.verifier, sampler, VERIFIER, key / "verdict" / n)
                for n in range(self.verdicts)
            )
        )
        verdicts = [self._verified(each, truth, steps, key) for each in found]
        rewards = step_rewards(parse(found[0].turns[0].action), steps) if found[0].turns else None
        turns = step_turns(solved.turns[0].node, sampler[GENERATOR].renderer, rewards or ())
        generated = replace(
            solved,
            contexts=(turns[-1].node,),
            turns=turns,
            reward=answered.reward,
            end=End.SOLVED if truth else solved.end,
            terms={"formed": float(steps > 0), "judged": float(rewards is not None)},
            signals={SOLUTION: solution},
        )
        return [generated, *verdicts]

    def _verified(self, said: Rollout, truth: bool, steps: int, key: Key) -> Rollout:
        """The verification with its reward, and the term of its class."""
        said = replace(said, cohort=str(key.path[-1]))
        if not said.turns:
            return said
        verdict = parse(said.turns[0].action)
        right = verdict.final == truth
        formed = float(steps > 0)  # verdicts on a solution without steps are not counted
        return replace(
            said,
            reward=verifier_reward(verdict, truth, steps, solution_format=formed),
            end=End.SOLVED if right else said.end,
            terms={FOUND[0] if truth else FOUND[1]: float(right)},
        )


def step_verdicts(
    groups: Sequence[Group], truth: Callable[[Task, str], Sequence[bool]]
) -> list[tuple[bool, bool]]:
    """(found right, is right) of every step of every verification that has a verdict for each step.

    truth  (task, solution) -> of each step, whether it is right; to measure the verifier, never to reward anybody
    """
    pairs: list[tuple[bool, bool]] = []
    for group in groups:
        steps: Sequence[bool] = ()
        for rollout in group.rollouts:  # each solution is followed by its verifications
            if rollout.agent == GENERATOR:
                steps = truth(rollout.task, rollout.signals.get(SOLUTION, ""))
            elif rollout.turns:
                said = parse(rollout.turns[0].action).steps
                pairs += zip(said, steps, strict=True) if len(said) == len(steps) else ()
    return pairs


def step_turns(node: Node, renderer: Any, rewards: Iterable[float]) -> tuple[Turn, ...]:
    """What was sampled at once, as one node and turn for each step and one for the rest, each with its reward.

    A step ends with the token that completes its closing tag; ids and log-probabilities stay as they were sampled.
    """
    assert node.logprobs is not None  # it was sampled
    ends = [
        _tokens_for(step.end(), node.tokens, renderer)
        for step in _STEP.finditer(renderer.text(node.tokens))
    ]
    worth = dict(zip(ends, rewards, strict=False))
    cuts = sorted({0, *ends, len(node.tokens)})
    made: list[Turn] = []
    parent = node.parent
    for start, stop in pairwise(cuts):
        part = replace(
            node, parent=parent, tokens=node.tokens[start:stop], logprobs=node.logprobs[start:stop]
        )
        made.append(Turn(part, renderer.text(part.tokens), reward=worth.get(stop, 0.0)))
        parent = part
    return tuple(made)


def _tokens_for(length: int, tokens: np.ndarray, renderer: Any) -> int:
    """The least number of tokens whose text has `length` characters."""
    low, high = 0, len(tokens)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (
            (low, middle) if len(renderer.text(tokens[:middle])) >= length else (middle, high)
        )
    return high


async def _says(
    request: Request,
    opening: tuple[Message, ...],
    sampling: Sampling,
    sampler: Mapping[str, Sampler],
    role: str,
    key: Key,
) -> Rollout:
    asked = Request(replace(request.task, prompt=opening), answers=1, max_turns=1)
    said = await SingleTurn(sampling)(asked, sampler[role], None, key / role)
    return replace(said, task=request.task, agent=role)
