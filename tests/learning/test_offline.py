"""Learning from stored rollouts: imitation, preferences, and the rounds of AgentEvol."""

from __future__ import annotations

import torch
from tests.helpers import Script, engine, tiny_model

from ludus.data.batch import make_batch
from ludus.data.pairs import best_worst
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.packed import policy
from ludus.losses.preference import dpo, sequence_logp
from ludus.rollouts.agent_loop import AgentLoop
from ludus.train.offline import (
    PREFERENCE,
    SUPERVISED,
    agent_evol,
    dpo_credit,
    preference,
    supervised,
)
from ludus.types import Batch, End, Group, Key, Optim, Request, Rollout, Sampling, Step

LOOP = AgentLoop(Sampling(max_tokens=5))


def played(model: torch.nn.Module, answers: int = 4) -> list[Group]:
    """Two turns each; the reward is the length of the last action, so answers differ."""

    def answer(turn: int, action: str) -> Step:
        last = turn == 1
        return Step(turn + 1, "and?", float(len(action)) * last, End.SOLVED if last else None)

    requests = [Request(task, answers, 3) for task in Script(count=3).tasks()]
    return engine(model).collect(LOOP, requests, Script(answer), Key(0))  # type: ignore[arg-type]


def logp(model: CausalModel, rollouts: list[Rollout]) -> float:
    batch = make_batch([Group(str(i), (r,)) for i, r in enumerate(rollouts)])
    with torch.no_grad():
        return float(policy(model, batch)[0].sum() / batch.mask.sum())


def test_imitation_makes_the_imitated_likely() -> None:
    model = CausalModel(tiny_model())
    rollouts = [group.rollouts[0] for group in played(tiny_model())]
    before = logp(model, rollouts)
    learner = LocalLearner(model, SUPERVISED, Optim(lr=1e-3))
    told = list(supervised(learner, rollouts, epochs=4, size=2, key=Key(0)))
    assert len(told) == 8 and told[-1]["loss"] < told[0]["loss"]
    assert logp(model, rollouts) > before + 0.5
    # the first report is the mean negative log-probability of its own two rollouts' tokens
    assert abs(told[0]["loss"]) < 20


def pairs_batch(model: CausalModel) -> tuple[Batch, LocalLearner]:
    pairs = [pair for group in played(tiny_model()) for pair in best_worst(group)]
    groups = [Group(str(i), (pair.chosen, pair.rejected)) for i, pair in enumerate(pairs)]
    learner = LocalLearner(model, PREFERENCE, Optim(), reference=True)
    with torch.no_grad():  # away from the reference, so that the pairs' coefficients differ
        for parameter in model.module.parameters():
            parameter.mul_(1.05)
    return learner.annotate(make_batch(groups), ("old_logp",)), learner


def test_the_credit_of_dpo_has_the_gradient_of_its_loss() -> None:
    model = CausalModel(tiny_model())
    batch, learner = pairs_batch(model)
    advantage, told = dpo_credit(batch, beta=0.5)
    from dataclasses import replace

    learner.gradients(replace(batch, advantage=advantage))
    ours = torch.cat([p.grad.flatten() for p in model.module.parameters()])  # type: ignore[union-attr]
    model.module.zero_grad()
    sums = sequence_logp(policy(model, batch)[0], batch.mask)[0]
    assert batch.ref_logp is not None
    ref = sequence_logp(batch.ref_logp, batch.mask)[0]
    loss = dpo(sums[0::2], sums[1::2], ref[0::2], ref[1::2], beta=0.5).mean()
    loss.backward()
    theirs = torch.cat([p.grad.flatten() for p in model.module.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-3)
    assert abs(told["dpo/loss"] - float(loss.detach())) < 1e-4


def test_preference_starts_at_log_two_and_tells_the_pairs_apart() -> None:
    model = CausalModel(tiny_model())
    pairs = [pair for group in played(tiny_model()) for pair in best_worst(group)]
    learner = LocalLearner(model, PREFERENCE, Optim(lr=3e-4), reference=True)
    told = list(preference(learner, pairs, beta=0.5, epochs=6, size=len(pairs), key=Key(0)))
    assert abs(told[0]["dpo/loss"] - 0.693147) < 1e-4
    assert told[-1]["dpo/loss"] < 0.4 and told[-1]["dpo/accuracy"] == 1.0


def test_agent_evol_teaches_the_first_model_anew() -> None:
    """Each round trains a fresh copy of the base on the demonstrations and this round's successes, one a task."""
    first = tiny_model()
    newest = [tiny_model()]
    taught: list[int] = []

    def teach(rollouts: object) -> None:
        model = tiny_model()  # the base, not the newest
        learner = LocalLearner(CausalModel(model), SUPERVISED, Optim(lr=1e-3))
        for _ in supervised(learner, list(rollouts), epochs=1, size=2, key=Key(1)):  # type: ignore[call-overload]
            pass
        taught.append(len(list(rollouts)))  # type: ignore[call-overload]
        newest[0] = model

    original = [played(first)[0].rollouts[0]]
    rounds = list(agent_evol(lambda n: played(newest[0]), teach, original, rounds=2))
    assert [r.number for r in rounds] == [1, 2]
    assert all(r.solved == 3 and r.attempted == 3 for r in rounds)
    assert taught == [4, 4] == [r.taught for r in rounds]
