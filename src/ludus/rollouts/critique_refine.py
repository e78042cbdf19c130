"""A critic reads an answer, an actor reads the critique and answers again. Critique-RL, arXiv:2510.24320.

The environment knows the problem, the first answer and whether it is right. Its first step takes the critique and
tells what the actor is to read (and info: "problem", "attempt", "correct"); its second takes the second answer.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from ludus.envs.guard import EnvFault, Guarded
from ludus.rewards.critique import VERDICT, delta, judged_rightly, refine, verdict
from ludus.rollouts.single_turn import SingleTurn
from ludus.types import End, Key, Message, Request, Rollout, Sampler, Sampling, Step, Task

CRITIC, ACTOR = "critic", "actor"


@dataclass(frozen=True)
class CritiqueRefine:
    """Two rollouts of an attempt: the critic's, solved if its verdict is right; the actor's, if its answer is.

    critic, actor  how each writes; the paper's actor is greedy while the critic is trained

    Terms, on the critic's rollout, each 0 or 1 (so their means are shares of the attempts that have them):

        dis             the verdict is right            correct         the first answer was
        refined         the second answer is right      delta           refined less correct: -1, 0 or 1
        wrong to right  of the wrong first answers      right to wrong  of the right ones

    and in `signals` the verdict. Both earn what the environment says of the second answer; rewards.critique pays the
    critic for its verdict too.
    """

    critic: Sampling = field(default_factory=Sampling)
    actor: Sampling = field(default_factory=lambda: Sampling(temperature=0.0))

    gives = ("reward", VERDICT, "guidance", "one context", "one prompt")
    roles = (CRITIC, ACTOR)

    async def __call__(
        self, request: Request, sampler: Mapping[str, Sampler], env: Guarded | None, key: Key
    ) -> Sequence[Rollout]:
        if env is None:
            raise ValueError(
                "a critique is of something: give the recipe an env with answers in it"
            )
        if missing := {CRITIC, ACTOR} - set(sampler):
            raise ValueError(
                f"nobody plays {', '.join(sorted(missing))}; give the recipe "
                'cast=Fixed({"critic": "policy", "actor": "actor"}) and others={"actor": Frozen(...)}'
            )
        try:
            start = await env.reset(request.task, request.seed)
            try:
                return await self._played(request, sampler, env, key, start)
            finally:
                await env.leave(start.state)
        except EnvFault as fault:
            return [Rollout(request.task, (), (), 0.0, fault.end, agent=CRITIC, error=str(fault))]

    async def _played(
        self,
        request: Request,
        sampler: Mapping[str, Sampler],
        env: Guarded,
        key: Key,
        start: Step,
    ) -> list[Rollout]:
        task = request.task
        opening = (*task.prompt, *request.guidance, Message("user", start.observation))
        critic = await _says(task, opening, self.critic, sampler[CRITIC], key / CRITIC)
        critic = replace(critic, agent=CRITIC)
        said = critic.turns[-1].action if critic.turns else ""  # no room for one is no verdict
        read = await env.step(start.state, said)
        opening = (
            Message("user", read.info["problem"]),
            Message("assistant", read.info["attempt"]),
            Message("user", read.observation),
        )
        actor = await _says(task, opening, self.actor, sampler[ACTOR], key / ACTOR)
        actor = replace(actor, agent=ACTOR)
        answered = await env.step(read.state, actor.turns[-1].action if actor.turns else "")

        correct, refined, found = read.info["correct"], answered.end is End.SOLVED, verdict(said)
        right = judged_rightly(found, correct)
        terms = {
            "dis": float(right),
            "correct": float(correct),
            "refined": refine(correct, refined),
            "delta": delta(correct, refined),
            ("right to wrong" if correct else "wrong to right"): float(correct != refined),
        }
        end = End.SOLVED if right else critic.end
        return [
            replace(critic, end=end, reward=answered.reward, terms=terms, signals={VERDICT: found}),
            replace(actor, end=End.SOLVED if refined else actor.end, reward=answered.reward),
        ]


async def _says(
    task: Task, opening: tuple[Message, ...], sampling: Sampling, sampler: Sampler, key: Key
) -> Rollout:
    request = Request(replace(task, prompt=opening), answers=1, max_turns=1)
    return replace(await SingleTurn(sampling)(request, sampler, None, key), task=task)
