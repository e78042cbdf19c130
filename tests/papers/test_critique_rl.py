"""Critique-RL, arXiv:2510.24320: the critic's rewards in both stages, its estimator, who reads and who learns what."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ludus import recipes
from ludus.advantages.relative import rloo
from ludus.advantages.rloo_kl import RLOOThenKL
from ludus.data.render import Renderer
from ludus.engines.local.build import build
from ludus.envs.guard import Guarded
from ludus.envs.small.critiques import Critiques, advised, mistaken, problem, shown, spelled
from ludus.models import tiny
from ludus.models.actor_base import ActorBase, context
from ludus.models.world_base import WorldBase
from ludus.rewards.critique import (
    Helping,
    Judging,
    Verdict,
    corrected,
    delta,
    judged_rightly,
    refine,
    stage_one,
    stage_two,
    verdict,
)
from ludus.rollouts.critique_refine import ACTOR, CRITIC, CritiqueRefine
from ludus.train.loop import lessons, start, train
from ludus.train.recipe import Frozen, check
from ludus.types import Batch, Completion, ContextTooLong, End, Group, Key, Node, Request, Sampling

FOUR: list[Verdict | None] = ["wrong", "correct", "wrong", None]
REFINED = [True, True, False, False]
GROUP = torch.zeros(4, dtype=torch.int64)


def advantages(rewards: list[float]) -> list[float]:
    return rloo(torch.tensor(rewards, dtype=torch.float64), GROUP, alone="refuse").tolist()


def test_stage_one_of_a_wrong_answer() -> None:
    rewards = [stage_one(said, False, mode="released") for said in FOUR]
    assert rewards == [1, -1, 1, -1]
    assert advantages(rewards) == pytest.approx([4 / 3, -4 / 3, 4 / 3, -4 / 3])
    assert [stage_one(said, False) for said in FOUR] == [1, 0, 1, 0]


def test_stage_two_as_a_gate_and_as_a_sum() -> None:
    def rewards(mode: str) -> list[float]:
        pairs = zip(FOUR, REFINED, strict=True)
        return [stage_two(f, False, refine(False, y), mode=mode) for f, y in pairs]  # type: ignore[arg-type]

    assert rewards("released") == pytest.approx([1.2, -1, 0.2, -1])
    assert advantages(rewards("released")) == pytest.approx(
        [1.8, -1.1333, 0.4667, -1.1333], abs=5e-5
    )
    assert rewards("paper") == pytest.approx([1.2, 1.0, 0.2, 0.0])
    # the second critique, a wrong verdict whose advice helped, changes sign
    assert advantages(rewards("paper")) == pytest.approx([0.8, 0.5333, -0.5333, -0.8], abs=5e-5)


def test_without_the_verdict_it_is_the_second_attempt() -> None:
    for said in (*FOUR, "correct"):
        for correct in (True, False):
            for refined in (True, False):
                got = stage_two(said, correct, refine(correct, refined), weight=0.0)
                assert got == float(refined)


def test_indirect_rewards() -> None:
    # (first right, second right): wrong -> right, right -> right, right -> wrong, wrong -> wrong
    cases = [(False, True), (True, True), (True, False), (False, False)]
    assert [refine(*case) for case in cases] == [1, 1, 0, 0]
    assert [delta(*case) for case in cases] == [1, 0, -1, 0]
    assert [corrected(*case) for case in cases] == [1.0, 0.2, 0.0, 0.0]


def test_judging() -> None:
    assert judged_rightly("correct", True) and judged_rightly("wrong", False)
    assert not judged_rightly("correct", False) and not judged_rightly("wrong", True)
    assert not judged_rightly(None, True) and not judged_rightly(
        None, False
    )  # absent is never right


def test_a_verdict_is_looked_for_in_time() -> None:
    line = "Correctness of the final answer: Wrong"
    assert verdict("\n" * 100_000 + line + "\n" * 100_000) == "wrong"
    assert verdict("Summary\n \t ## **" + line + "**\n\nDone.") == "wrong"


@pytest.mark.parametrize(
    ("critique", "found"),
    [
        ("Step 1 is fine.\nCorrectness of the final answer: Wrong", "wrong"),
        ("**Correctness of the final answer:** Correct.\n", "correct"),
        ("Correctness of the final answer: Correct or Wrong", None),  # the instruction, repeated
        ("Say 'Correctness of the final answer: Wrong' if so.", None),
        ("Correctness of the final answer: Incorrect", None),
        ("Correctness of the final answer:", None),
        ("Correctness of the final answer: Correct\nCorrectness of the final answer: Wrong", None),
        (
            "Correctness of the final answer: Wrong\n\ncorrectness of the final answer: wrong",
            "wrong",
        ),
        ("", None),
        ("Step 1: corr", None),  # cut off
    ],
)
def test_verdict(critique: str, found: str | None) -> None:
    assert verdict(critique) == found


# ------------------------------------------------------------------ the estimator


def batch(rewards: list[float], gap: float, lengths: tuple[int, ...] = (2, 2, 2, 2)) -> Batch:
    """One prompt token, then what was written; log pi - log ref is `gap` on each written token."""
    size = len(lengths)
    mask = torch.arange(1 + max(lengths)) < 1 + torch.tensor(lengths)[:, None]
    mask[:, 0] = False
    zeros = torch.zeros(mask.shape, dtype=torch.float64)
    return Batch(
        tokens=zeros.long(),
        mask=mask,
        logp=zeros,
        turn=mask.long() - 1,
        rollout=torch.arange(size),
        group=torch.zeros(size, dtype=torch.int64),
        reward=torch.tensor(rewards, dtype=torch.float64),
        scored=torch.ones(size, dtype=torch.bool),
        turn_reward=torch.zeros(size, 1),
        ref_logp=zeros - gap,
    )


def test_the_kl_is_not_compared_with_that_of_the_others() -> None:
    rewards = [1.2, -1.0, 0.2, -1.0]
    raw = RLOOThenKL(kl=0.01, whitened=False)
    got = raw(batch(rewards, gap=0.5)).advantage
    want = torch.tensor([1.8, -3.4 / 3, 1.4 / 3, -3.4 / 3], dtype=torch.float64)
    torch.testing.assert_close(got[:, 1], want - 2 * 0.01 * 0.5)  # two tokens still to come
    torch.testing.assert_close(got[:, 2], want - 1 * 0.01 * 0.5)
    # inside the reward and before the baseline, an equal KL would vanish; here it stays
    assert raw(batch([1.0] * 4, gap=0.5)).advantage[:, 1].tolist() == pytest.approx([-0.01] * 4)
    assert (raw(batch([1.0] * 4, gap=0.0)).advantage == 0).all()
    # whitened over all the tokens of the buffer
    white = RLOOThenKL(kl=0.01)(batch(rewards, gap=0.5)).advantage[:, 1:]
    torch.testing.assert_close(
        white, (got[:, 1:] - got[:, 1:].mean()) / (got[:, 1:].var() + 1e-8).sqrt()
    )


def test_without_kl_it_is_leave_one_out() -> None:
    rewards = [1.2, 1.0, 0.2, 0.0]
    got = RLOOThenKL(kl=0.0, whitened=False)(
        batch(rewards, gap=3.0, lengths=(1, 3, 2, 2))
    ).advantage
    want = rloo(torch.tensor(rewards, dtype=torch.float64), GROUP)
    torch.testing.assert_close(got, want[:, None] * batch(rewards, 0.0, (1, 3, 2, 2)).mask)


def test_one_critique_is_refused() -> None:
    with pytest.raises(ValueError, match="nothing to compare it with"):
        RLOOThenKL()(batch([1.0], gap=0.0, lengths=(2,)))
    # one that is left of four is no mistake of the recipe
    thinned = replace(
        batch([1.0, math.nan, math.nan, math.nan], 0.5), scored=torch.tensor([True] + [False] * 3)
    )
    got = RLOOThenKL(whitened=False)(thinned).advantage
    assert got[0, 1:].tolist() == pytest.approx([-0.01, -0.005]) and (got[1:] == 0).all()


# ------------------------------------------------------------------ the world

WORLD = Critiques(train=400, test=40)
STARTS = [WORLD.start("train", index) for index in range(WORLD.train)]


def test_first_answers() -> None:
    assert sum(state.correct for state in STARTS) / len(STARTS) == pytest.approx(0.5, abs=0.07)
    assert all(22 <= state.total <= 88 and 12 <= state.attempt < 99 for state in STARTS)
    with pytest.raises(ValueError, match="nothing is carried"):
        Critiques(largest=5)
    problems = [STARTS[i : i + 4] for i in range(0, len(STARTS), 4)]
    assert all(len({(s.first, s.second) for s in four}) == 1 for four in problems)
    assert any({s.correct for s in four} == {True, False} for four in problems)
    rng = np.random.default_rng(0)
    assert {mistaken(47, rng) for _ in range(200)} == {37, 57, 46, 48}
    assert {mistaken(10, rng) for _ in range(200)} == {20, 11, 19}


def test_the_players_and_whoever_does_as_they_say() -> None:
    rng, right = np.random.default_rng(0), []
    for state in STARTS:
        said = WORLD.expert(state)
        assert verdict(said) == ("correct" if state.correct else "wrong")
        assert advised(state, said) == state.total and advised(state, "") == state.attempt
        right.append(advised(state, WORLD.beginner(state, rng)) == state.total)
    assert np.mean(right) < 0.5  # no better than the first answers
    # a critique of something else is worth nothing: it leaves right answers or spoils them
    others = [WORLD.expert(state) for state in (*STARTS[4:], *STARTS[:4])]
    assert np.mean([advised(s, c) == s.total for s, c in zip(STARTS, others, strict=True)]) < 0.3
    wrong = next(state for state in STARTS if not state.correct)
    denied = WORLD.expert(wrong).replace("Wrong", "Correct")
    assert advised(wrong, denied) == wrong.attempt


def test_what_the_actor_reads() -> None:
    assert shown("Well. Step 1: units 2\nStep 2") == "Step 1: units 2\nStep 2"
    assert shown("Correctness of the final answer: Wrong") == ""
    read, said = context(STARTS[0], "Oh! " + WORLD.expert(STARTS[0]))
    assert f"<|assistant|>{spelled(STARTS[0].attempt)}<|end|><|user|>Step 1:" in read
    assert said == f"{spelled(STARTS[0].total)}<|end|>"
    with pytest.raises(ValueError, match="take a WorldBase"):
        ActorBase(recipes.load("rover").world)


# ------------------------------------------------------------------ the strategy


class Says:
    """A sampler that says one thing and remembers what it read."""

    def __init__(self, said: str) -> None:
        self.tokenizer = tiny.tokenizer(WORLD.words())
        self.said, self.renderer, self.read = said, Renderer(self.tokenizer), list[str]()

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        self.read.append(str(self.tokenizer.decode(context.context())))
        if self.said == "full":
            raise ContextTooLong("no room")
        ids = np.array([*self.tokenizer(self.said)["input_ids"], self.tokenizer.eos_token_id])
        return Completion(ids, np.full(len(ids), -1.0, np.float32), "stop", 0, sampling)


def attempt(index: int, critic: str, actor: str) -> tuple[list[Any], Says, Says]:
    one, two = Says(critic), Says(actor)
    request = Request(WORLD.tasks("train")[index], 1, 1)
    made = CritiqueRefine()(request, {CRITIC: one, ACTOR: two}, Guarded(WORLD), Key(0))  # type: ignore[dict-item]
    return list(asyncio.run(made)), one, two


def test_the_actor_reads_the_critique_and_the_critic_not_the_truth() -> None:
    index = next(i for i, state in enumerate(STARTS) if not state.correct)
    state = STARTS[index]
    (critique, answer), critic, actor = attempt(index, WORLD.expert(state), spelled(state.total))
    assert critic.read[0].endswith(
        f"{problem(state)} = {spelled(state.attempt)}<|end|><|assistant|>"
    )
    assert f"<|user|>{WORLD.expert(state)}<|end|>" in actor.read[0]
    assert actor.read[0].startswith(f"<|user|>{problem(state)}<|end|>")
    assert (critique.agent, answer.agent) == (CRITIC, ACTOR)
    assert critique.solved and answer.solved and critique.signals == {"verdict": "wrong"}
    want = {"dis": 1, "correct": 0, "refined": 1, "delta": 1, "wrong to right": 1}
    assert critique.terms == want and not answer.terms


def test_terms_of_a_right_answer_that_was_spoiled() -> None:
    index = next(i for i, state in enumerate(STARTS) if state.correct)
    (critique, answer), *_ = attempt(index, "nothing", "99")
    want = {"dis": 0, "correct": 1, "refined": 0, "delta": -1, "right to wrong": 1}
    assert critique.terms == want and critique.signals == {"verdict": None}
    assert critique.end is End.FAILED and answer.end is End.FAILED
    # an actor without room answers nothing, and the critic is still judged
    (critique, answer), *_ = attempt(index, WORLD.expert(STARTS[index]), "full")
    assert critique.solved and critique.terms["refined"] == 0
    assert answer.end is End.OUT_OF_TOKENS and not answer.contexts
    # nor is a critic without room spared: it has no verdict
    (critique, answer), *_ = attempt(index, "full", spelled(STARTS[index].total))
    assert critique.end is End.OUT_OF_TOKENS and critique.signals == {"verdict": None}
    assert critique.terms["dis"] == 0 and answer.solved
    with pytest.raises(ValueError, match="nobody plays actor"):
        asyncio.run(
            CritiqueRefine()(Request(WORLD.tasks()[0], 1, 1), {CRITIC: Says("")}, WORLD, Key(0))  # type: ignore
        )


def test_rewards_of_both_stages() -> None:
    index = next(i for i, state in enumerate(STARTS) if not state.correct)
    total = spelled(STARTS[index].total)
    line = "Correctness of the final answer:"
    four = [(f"{line} Wrong", total), (f"{line} Correct", total), (f"{line} Wrong", "1"), ("", "1")]
    rollouts = [r for said, answer in four for r in attempt(index, said, answer)[0]]

    def rewards(reward: Any) -> list[float]:
        (group,) = asyncio.run(reward([Group("q", tuple(rollouts))]))
        assert [r.reward for r in group.rollouts[1::2]] == [1, 1, 0, 0]  # the actor's own
        return [r.reward for r in group.rollouts[::2]]

    assert rewards(Judging()) == [1, 0, 1, 0]
    assert rewards(Judging("released")) == [1, -1, 1, -1]
    assert rewards(Helping()) == pytest.approx([1.2, 1.0, 0.2, 0.0])
    assert rewards(Helping(mode="released")) == pytest.approx([1.2, -1, 0.2, -1])
    assert rewards(Helping(weight=0.0)) == [1, 1, 0, 0]
    assert rewards(Helping(indirect=corrected, weight=0.0)) == [1, 1, 0, 0]


# ------------------------------------------------------------------ two steps

TINY = tiny.Size(32, 1, 2, 1, 16, 64)


def tried(recipe: Any) -> Any:
    """A recipe of this file at a size that takes a moment: the stage before it, if any, included."""
    few = {"steps": 2, "games": 2, "warmup": 1, "size": TINY}
    if isinstance(recipe.model, WorldBase):
        model: Any = replace(recipe.model, **few)
    else:
        model = replace(recipe.model, recipe=tried(recipe.model.recipe))
    actor = Frozen(replace(recipe.others["actor"].model, **few))
    exam = replace(recipe.evaluation, tasks=2)
    small = {"tasks": 2, "steps": 2, "evaluation": exam}
    return replace(recipe, model=model, others={"actor": actor}, **small)


def test_a_stage_begins_and_is_anchored_where_the_one_before_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LUDUS_CACHE", str(tmp_path))
    recipe = tried(recipes.load("critique-rl").recipe)
    check(recipe)
    machine = build(recipe, device="cpu")
    assert list(machine.learners) == ["policy"]  # the actor has none
    first = build(recipe.model.recipe, device="cpu").model.module.state_dict()
    began = {n: p.clone() for n, p in machine.model.module.state_dict().items()}
    assert any(not torch.equal(began[name], first[name]) for name in began)
    assert machine.learner.reference is not None
    anchor = machine.learner.reference.module
    actor = machine.engine.samplers["actor"].model.module
    still = [p.clone() for p in (*anchor.parameters(), *actor.parameters())]
    assert all(torch.equal(p, began[n]) for n, p in anchor.state_dict().items())

    tasks = recipe.env.tasks("train")
    run = train(recipe, machine.engine, machine.learners, tasks, start(recipe, tasks), seed=0)
    reports = [report for _, report in run]
    now = (*anchor.parameters(), *actor.parameters())
    assert all(torch.equal(a, b) for a, b in zip(still, now, strict=True))
    told = reports[-1].metrics
    assert {"critic/success", "actor/success", "terms/dis", "terms/delta"} <= set(told)
    assert math.isfinite(told["loss"]) and told["kl_ref"] >= 0
    group = reports[0].groups[0]
    assert [r.agent for r in group.rollouts] == [CRITIC, ACTOR] * 4
    (lesson,) = lessons(recipe, [group], 1)["policy"]
    assert len(lesson.rollouts) == 4 and {r.agent for r in lesson.rollouts} == {CRITIC}
    # untrained critics write no verdict, so all four earn the same and only the KL is left
    assert any(not torch.equal(p, began[n]) for n, p in machine.model.module.state_dict().items())
