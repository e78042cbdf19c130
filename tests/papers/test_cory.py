"""Pinned numbers of CORY, arXiv:2410.06101: two roles, one reward, and who reads what."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import engine, tiny_model, tokenizer

from ludus import recipes
from ludus.advantages.adaptive_kl import AdaptiveKL, NoProbe, controlled
from ludus.curricula.roles import Swapping
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.build import build
from ludus.losses.exact_kl import exact_kl
from ludus.losses.kl import k1
from ludus.models import tiny
from ludus.models.full_kl import FullKL
from ludus.rewards.running import Running
from ludus.rewards.team import Team, shared
from ludus.rollouts.two_roles import OBSERVER, PIONEER, PioneerObserver
from ludus.train.loop import start, train
from ludus.train.recipe import Recipe
from ludus.types import (
    Batch,
    Completion,
    ContextTooLong,
    End,
    Group,
    Key,
    Message,
    Node,
    Request,
    Rollout,
    Sampling,
    Task,
    Turn,
)

TASK = Task("q", (Message("user", "Goal: craft oak planks."),))


# ------------------------------------------------------------------ the reward of the team


def pairs(*rewards: tuple[float, float], ends: Any = None) -> Group:
    made = []
    for i, pair in enumerate(rewards):
        for role, reward in zip((PIONEER, OBSERVER), pair, strict=True):
            end = (ends or {}).get((i, role), End.FAILED)
            made.append(Rollout(TASK, (), (), reward, end, agent=role))
    return Group("q", tuple(made))


def test_both_earn_the_sum() -> None:
    got = shared(pairs((1.0, 0.0), (0.5, 2.0)))
    assert [r.reward for r in got.rollouts] == [1.0, 1.0, 2.5, 2.5]
    assert [r.terms["own"] for r in got.rollouts] == [1.0, 0.0, 0.5, 2.0]
    # the n-th of one role belongs to the n-th of the other, in whatever order they stand
    mixed = pairs((1.0, 0.0), (0.5, 2.0)).rollouts
    order = (mixed[1], mixed[0], mixed[2], mixed[3])
    assert [r.reward for r in shared(Group("q", order)).rollouts] == [1.0, 1.0, 2.5, 2.5]
    # without the observer's share the pioneer learns as it would alone
    alone = shared(pairs((1.0, 0.7), (0.0, 0.9)), weight=0.0)
    assert [r.reward for r in alone.rollouts if r.agent == PIONEER] == [1.0, 0.0]


def test_expected_gradient_of_the_pioneer() -> None:
    """Of its logit, a1 ~ Bernoulli(.4): d log pi / d logit = a1 - .4; each outcome weighed by its chance."""

    def moments(helped: tuple[float, float], weight: float) -> tuple[float, float]:
        mean = square = 0.0
        for a1, a2 in itertools.product((0.0, 1.0), (0.0, 1.0)):
            right = helped[int(a1)]
            chance = (0.4 if a1 else 0.6) * (right if a2 else 1 - right)
            reward = shared(pairs((a1, a2)), weight=weight).rollouts[0].reward
            sample = reward * (a1 - 0.4)
            mean, square = mean + chance * sample, square + chance * sample**2
        return mean, square - mean**2

    # an observer that takes no notice: the same gradient, and noise
    assert moments((0.7, 0.7), weight=0.0) == pytest.approx((0.24, 0.0864), abs=1e-4)
    assert moments((0.7, 0.7), weight=1.0) == pytest.approx((0.24, 0.456), abs=1e-3)
    # one that is helped: a bonus of .24 * .4 for teaching it
    assert moments((0.5, 0.9), weight=1.0)[0] == pytest.approx(0.336)


def test_who_lost_the_partner_has_no_reward() -> None:
    got = shared(pairs((1.0, 5.0), (1.0, 2.0), ends={(0, OBSERVER): End.JUDGE_ERROR}))
    pioneer, observer = got.rollouts[:2]
    assert pioneer.end is End.JUDGE_ERROR and "observer was lost" in pioneer.error
    assert observer.end is End.JUDGE_ERROR and pioneer.reward == 0.0
    assert [r.reward for r in got.rollouts[2:]] == [3.0, 3.0]
    for wrong in (
        pairs((1.0, 1.0)).rollouts[:1],
        (replace(pairs((1, 1)).rollouts[0], agent="policy"),),
    ):
        with pytest.raises(ValueError, match="one observer for each pioneer"):
            shared(Group("q", wrong))
    assert shared(Group("q", ())).rollouts == ()


def test_the_team_is_paid_after_each_was_judged() -> None:
    async def judge(groups: Any) -> Any:
        return [
            replace(g, rollouts=tuple(replace(r, reward=2.0) for r in g.rollouts)) for g in groups
        ]

    (group,) = asyncio.run(Team(judge, weight=0.5)([pairs((0.0, 0.0))]))
    assert [r.reward for r in group.rollouts] == [3.0, 3.0]


def test_running_statistics() -> None:
    running = Running()
    state = running.update(running.init(), [1.2, 0.2, 2.0, 0.6])
    got = running.scaled(state, [1.2, 0.2, 2.0, 0.6])
    assert got == pytest.approx([0.2949, -1.1795, 1.4744, -0.5898], abs=5e-5)
    # batch by batch as all at once
    rewards = np.random.default_rng(0).normal(1000, 0.5, 60).tolist()
    state = running.init()
    for first in range(0, 60, 7):
        state = running.update(json.loads(json.dumps(state)), rewards[first : first + 7])
    assert running.update(state, []) == state
    assert state["mean"] == pytest.approx(np.mean(rewards))
    assert state["square"] / 60 == pytest.approx(np.var(rewards), rel=1e-9)
    same = running.update(running.init(), [0.1] * 3)
    assert running.scaled(same, [0.1]) == pytest.approx([0.0], abs=1e-6)
    assert running.scaled(running.init(), []) == []


# ------------------------------------------------------------------ the KL over the vocabulary


def test_full_kl_and_its_sampled_terms() -> None:
    p, q = torch.tensor([0.5, 0.3, 0.2]), torch.tensor([0.6, 0.3, 0.1])
    mask = torch.ones(1, 1, dtype=torch.bool)
    got = exact_kl((p.log() + 3)[None, None], q.log()[None, None], mask)
    assert got.item() == pytest.approx(0.04747, abs=5e-6)
    terms = k1(p.log()[None], q.log()[None], torch.ones(1, 3).bool())[0]
    assert terms.tolist() == pytest.approx([-0.1823, 0.0, 0.6931], abs=5e-5)
    assert (p * terms).sum().item() == pytest.approx(got.item(), abs=1e-6)


def test_full_kl_of_a_batch() -> None:
    torch.manual_seed(0)
    mask = torch.tensor([[False, True, True], [False, False, True]])
    logits = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    reference = torch.randn(2, 3, 5, dtype=torch.float64, requires_grad=True)
    bad = torch.where(mask[..., None], logits, torch.nan)
    got = exact_kl(bad, reference, mask)
    assert got.shape == (2, 3) and (got[~mask] == 0).all() and (got[mask] > 0).all()
    gradient, other = torch.autograd.grad(got.sum(), (logits, reference), allow_unused=True)
    assert other is None and gradient.isfinite().all() and (gradient[~mask] == 0).all()
    assert torch.autograd.gradcheck(lambda x: exact_kl(x, reference.detach(), mask), (logits,))
    # equal at the start, whatever the scale; what the policy rules out does not count
    assert exact_kl(logits, logits + 2, mask).abs().max() < 1e-12
    never = torch.tensor([[[0.0, -torch.inf]]])
    one = torch.ones(1, 1, dtype=torch.bool)
    assert exact_kl(never, never, one).item() == 0.0
    assert exact_kl(never, torch.zeros(1, 1, 2), one).item() == pytest.approx(0.693147, abs=1e-6)
    assert exact_kl(torch.zeros(1, 1, 2), never, one).item() == float("inf")
    assert exact_kl(logits, reference, mask & False).sum() == 0
    with pytest.raises(ValueError, match=r"give \[B,T,V\] twice"):
        exact_kl(logits, reference[:, :2], mask)


# ------------------------------------------------------------------ the roles


class Says:
    """A sampler that says one thing and remembers what it read."""

    def __init__(self, said: str) -> None:
        self.said, self.renderer, self.read = said, Renderer(tokenizer()), list[str]()

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        self.read.append(tokenizer().decode(context.context()))
        if self.said == "full":
            raise ContextTooLong("no room")
        ids = np.array([*tokenizer()(self.said)["input_ids"], tokenizer().eos_token_id])
        return Completion(ids, np.full(len(ids), -1.0, np.float32), "stop", 0, sampling)

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def attempt(said: str) -> tuple[Rollout, Rollout, Mapping[str, Says]]:
    cast = {PIONEER: Says(said), OBSERVER: Says("get oak")}
    request = Request(TASK, 1, 1, guidance=(Message("user", "Be quick."),))
    first, second = asyncio.run(PioneerObserver()(request, cast, None, Key(0)))  # type: ignore[arg-type]
    return first, second, cast


def test_the_observer_reads_the_pioneer() -> None:
    first, second, cast = attempt("craft {said} planks")
    assert (first.agent, second.agent) == (PIONEER, OBSERVER)
    (alone,), (after,) = cast[PIONEER].read, cast[OBSERVER].read
    assert "craft {said} planks" not in alone and "craft {said} planks" in after  # braces and all
    assert TASK.prompt[0].text in after and "Be quick." in after
    assert first.turns[0].action == "craft {said} planks" and second.turns[0].action == "get oak"
    # what the pioneer said is prompt to the observer: each trains its own words
    batch = make_batch([Group("q", (first, second))])
    for row, rollout in enumerate((first, second)):
        assert batch.tokens[row][batch.mask[row]].tolist() == rollout.turns[0].node.tokens.tolist()


@pytest.mark.parametrize("said", ["", "  ", "full"])
def test_an_empty_or_lost_answer_leaves_the_question_alone(said: str) -> None:
    first, second, cast = attempt(said)
    assert cast[OBSERVER].read == cast[PIONEER].read
    assert len(second.turns) == 1 and first.agent == PIONEER
    assert (first.end is End.OUT_OF_TOKENS) == (said == "full")


def test_a_cast_wants_both() -> None:
    request = Request(TASK, 1, 1)
    with pytest.raises(ValueError, match="give one for 'observer' too"):
        asyncio.run(PioneerObserver()(request, {PIONEER: Says("a")}, None, Key(0)))  # type: ignore[dict-item]
    with pytest.raises(ValueError, match="no place for the answer"):
        PioneerObserver(look="look")


def test_the_reference_reads_what_the_policy_read() -> None:
    """At step 0 the KL is 0 on the observer's own context, and not on the question alone."""
    policy = engine(tiny_model())
    strategy = PioneerObserver(Sampling(max_tokens=4))
    (group,) = policy.collect(strategy, [Request(TASK, 1, 1)], None, Key(2))
    batch, reference = make_batch([group]), tiny_model()
    assert [r.agent for r in group.rollouts] == [PIONEER, OBSERVER]

    def logp(ids: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            logits = reference(ids[None]).logits[0, :-1].float()
        return logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]

    for row in range(2):
        ids, mask = batch.tokens[row][batch.tokens[row] >= 0], batch.mask[row]
        own = logp(ids)[mask[1 : len(ids)]]
        torch.testing.assert_close(own, batch.logp[row][mask], atol=1e-4, rtol=1e-4)
    said = batch.tokens[1][batch.mask[1]]
    question = batch.tokens[0][(batch.tokens[0] >= 0) & ~batch.mask[0]]
    elsewhere = logp(torch.cat([question, said]))[-len(said) :]
    assert (elsewhere - batch.logp[1][batch.mask[1]]).abs().max() > 1e-2


def test_swapping() -> None:
    roles = Swapping(every=5)
    home, away = (
        dict(zip((PIONEER, OBSERVER), names, strict=True))
        for names in (("policy", "other"), ("other", "policy"))
    )
    assert [roles.plays(step) for step in (1, 5)] == [home, home]
    assert [roles.plays(step) for step in (6, 10)] == [away, away]
    assert roles.plays(11) == home  # two swaps restore the map
    assert [step for step in range(1, 17) if roles.restarts(step)] == [6, 11, 16]
    assert len(Swapping.RESTARTED) == 3
    fixed = Swapping(every=0)
    assert all(fixed.plays(step) == home and not fixed.restarts(step) for step in (1, 100))
    three = Swapping(("a", "b", "c"), ("policy", "x", "y"), every=1)
    assert [three.plays(step)["a"] for step in range(1, 5)] == ["policy", "x", "y", "policy"]
    with pytest.raises(ValueError, match="3 roles for 2 policies"):
        Swapping(("a", "b", "c"))
    with pytest.raises(ValueError, match="counted from 1"):
        roles.plays(0)


# ------------------------------------------------------------------ the KL's controller


def test_the_coefficient_follows_the_kl() -> None:
    settings = {"target": 6.0, "horizon": 10_000, "count": 256}
    assert controlled(0.4, 12.0, **settings) == pytest.approx(0.4 * (1 + 0.2 * 0.0256))
    assert controlled(0.4, 0.0, **settings) == pytest.approx(0.4 * (1 - 0.2 * 0.0256))
    assert controlled(0.4, 6.6, **settings) == pytest.approx(0.4 * (1 + 0.1 * 0.0256))
    assert controlled(0.4, 6.0, **settings) == 0.4
    with pytest.raises(ValueError, match="above 0"):
        controlled(0.4, 1.0, target=0.0, horizon=1.0, count=1)


def learnt(reward: list[float], kl: float) -> Batch:
    """Answers of two tokens, the last of them lost, with a KL of `kl` on each token and a critic that says 0."""
    rollouts = [
        Rollout(TASK, (leaf,), (Turn(leaf, "a"),), r, End.CANCELLED if i == 3 else End.FAILED)
        for i, r in enumerate(reward)
        for leaf in [
            Node(Node(None, np.array([5])), np.array([6, 7]), True, np.zeros(2, np.float32))
        ]
    ]
    batch = make_batch([Group("q", tuple(rollouts))])
    return replace(
        batch, value=torch.zeros(batch.mask.shape), probes={"kl": kl * batch.mask.float()}
    )


def test_a_swap_starts_coefficient_and_statistics_afresh() -> None:
    credit = AdaptiveKL(eta=0.4, target=1.0, horizon=100, lam=1.0, restart=2)
    batch = learnt([1.2, 0.2, 2.0, 9.0], kl=2.0)
    state, (_, returns, told) = credit.assign(credit.init(), batch)
    # three scored answers: their mean is 3.4 / 3, their deviation .736357
    scaled = [(r - 3.4 / 3) / 0.736357 for r in (1.2, 0.2, 2.0)]
    assert returns is not None and told == {"kl": pytest.approx(4.0), "eta": 0.4}
    for row, want in enumerate(scaled):
        assert returns[row][1:].tolist() == pytest.approx([want - 1.6, want - 0.8], abs=1e-4)
    assert returns[3].abs().sum() == 0  # lost: neither a reward nor a KL
    assert state["eta"] == pytest.approx(0.4 * (1 + 0.2 * 3 / 100))
    state, _ = credit.assign(json.loads(json.dumps(state)), batch)
    assert state["reward"]["count"] == 6 and state["eta"] > 0.4024
    state, (_, _, told) = credit.assign(state, batch)  # the third step: after a swap
    assert told["eta"] == 0.4 and state["reward"]["count"] == 3 and state["steps"] == 3
    with pytest.raises(NoProbe, match="FullKL"):
        credit.assign(credit.init(), replace(batch, probes={}))


# ------------------------------------------------------------------ two policies in one loop


@pytest.fixture
def arms(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Recipe]:
    """The recipe's arms for two steps, from a base that is made in a moment."""
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    module = recipes.load("cory")
    base = replace(
        module.base, steps=2, games=2, warmup=1, size=tiny.Size(32, 1, 2, 1, 16, 64), seed=3
    )

    def small(arm: Recipe) -> Recipe:
        optim = replace(arm.optim, epochs=1)
        changes = {"model": base, "probes": {"kl": FullKL(base)}, "optim": optim}
        others = {name: replace(other, **changes) for name, other in arm.others.items()}
        return replace(arm, tasks=2, answers=4, steps=2, others=others, **changes)

    return {name: small(arm) for name, arm in module.arms.items()}


def taken(recipe: Recipe) -> tuple[Any, list[Mapping[str, float]]]:
    machine, tasks = build(recipe, device="cpu"), recipe.env.tasks("train")
    steps = train(recipe, machine.engine, machine.learners, tasks, start(recipe, tasks), seed=0)
    return machine, [report.metrics for _, report in steps]


def updates(machine: Any) -> set[int]:
    """What the optimisers of all policies remember: how often they moved."""
    return {
        int(s["step"])
        for learner in machine.learners.values()
        for adam in (learner._adam, learner._critic_adam)
        for s in adam.state.values()
    }


def test_two_policies_grow_apart_and_a_swap_forgets_their_optimisers(
    arms: dict[str, Recipe],
) -> None:
    machine, told = taken(arms["no swap"])
    one, two = (machine.models[name][0].module.state_dict() for name in ("policy", "other"))
    assert any(not torch.equal(one[name], two[name]) for name in one)
    assert updates(machine) == {2}
    # the reference reads what the policy read, the observer's the pioneer's answer too
    assert told[0]["policy/kl"] == pytest.approx(0.0, abs=1e-6)
    assert told[0]["other/kl"] == pytest.approx(0.0, abs=1e-6)
    assert told[1]["policy/kl"] > 1e-5 and told[1]["other/kl"] > 1e-5
    swapped = replace(arms["cory"], cast=Swapping(every=1))
    assert updates(taken(swapped)[0]) == {1}


def test_without_the_observer_it_is_ppo(arms: dict[str, Recipe]) -> None:
    team = arms["no swap"].reward
    assert isinstance(team, Team)
    _, pair = taken(replace(arms["no swap"], reward=replace(team, weight=0.0)))
    alone = arms["ppo"].strategy

    async def same_draws(request: Request, sampler: Any, env: object, key: Key) -> Any:
        return await alone(request, sampler, env, key / PIONEER)

    _, single = taken(replace(arms["ppo"], strategy=same_draws))
    for step in range(2):
        for name in ("loss", "value_loss", "kl", "entropy", "grad_norm"):
            assert pair[step][f"policy/{name}"] == single[step][name], name
