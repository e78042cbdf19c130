"""Pinned numbers of IGPO, arXiv:2510.14967: the gain of a turn, and what is made of it."""

from __future__ import annotations

import asyncio
import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import Script, engine, solved_after, tiny_model, tokenizer
from torch import Tensor

from ludus.advantages.credit import GRPO
from ludus.advantages.pooled import IGPO, IGPOReleased, per_position, pooled_turns
from ludus.advantages.relative import grpo
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.engine import LocalEngine
from ludus.rewards.information_gain import (
    SIGNAL,
    InformationGain,
    answer_f1,
    balanced,
    turn_rewards,
)
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.forced import encode, forced_score, geometric_probability
from ludus.rollouts.gain import AnswerProbability, reference
from ludus.types import (
    Completion,
    ContextTooLong,
    End,
    Group,
    Key,
    Node,
    Request,
    Rollout,
    Sampling,
    Task,
)

REWARD = torch.tensor([[0.2, 0.3, 1.0], [0.1, 0.0, 0.0]], dtype=torch.float64)
WRITTEN = torch.tensor([[True, True, True], [True, True, False]])
GROUP = torch.zeros(2, dtype=torch.int64)
TASK = Task("q", answer="oak log")


def close(got: Tensor, want: Any, atol: float = 1e-5) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


# ------------------------------------------------------------------ the reward of a turn


def test_probability_of_an_answer_and_its_gain() -> None:
    before = geometric_probability(np.log([0.5, 0.2]))
    after = geometric_probability(np.log([0.8, 0.45]))
    assert before == pytest.approx(0.316228, abs=1e-6)
    assert after == pytest.approx(0.6)
    assert turn_rewards([before, after], 1.0) == pytest.approx([0.283772, 1.0], abs=1e-6)


def test_gains_telescope_and_a_constant_changes_nothing() -> None:
    p = [0.1, 0.5, 0.3, 0.8]
    rewards = turn_rewards(p, -2.0)
    assert rewards == pytest.approx([0.4, -0.2, 0.5, -2.0])
    assert sum(rewards[:-1]) == pytest.approx(p[-1] - p[0])
    assert turn_rewards([x + 0.1 for x in p], -2.0) == pytest.approx(rewards)
    assert turn_rewards([0.7], 0.5) == [0.5]  # answered at once
    assert turn_rewards([], 0.5) == []


def test_outcome() -> None:
    assert answer_f1(
        "<think>x</think><answer>The Oak, log!</answer>", ["oak log"]
    ) == pytest.approx(0.8)
    assert answer_f1("<answer>birch</answer>", ["oak log", "Birch."]) == 1.0  # the best of several
    assert answer_f1("<answer> </answer>", ["oak"]) == 0.0
    assert answer_f1("oak log", ["oak log"]) == -2.0
    assert answer_f1("<think><answer>oak log</answer>", ["oak log"]) == -2.0
    assert balanced("<think>a</think><think>b</think>") and balanced("")
    assert not balanced("</think><think>") and not balanced("<think><think></think></think>")
    assert answer_f1("<answer>" * 100_000, ["oak"]) == -2.0  # in time


# ------------------------------------------------------------------ the advantage


def test_one_pool_for_gains_and_outcomes() -> None:
    z = pooled_turns(REWARD, WRITTEN, GROUP, gamma=0.0, ddof=0)
    close(z, [[-0.3386, -0.056433, 1.918731], [-0.620766, -0.902932, 0.0]])
    population = pooled_turns(REWARD, WRITTEN, GROUP, ddof=0)
    close(population, [[1.523698, 1.862298, 1.918731], [-1.523698, -0.902932, 0.0]])
    close(
        pooled_turns(REWARD, WRITTEN, GROUP, gamma=0.9, ddof=0),
        [[1.164783, 1.670425, 1.918731], [-1.433405, -0.902932, 0.0]],
    )
    # the unbiased deviation scales all of it
    close(pooled_turns(REWARD, WRITTEN, GROUP), 0.894427 * population)


def test_the_release_compares_positions() -> None:
    """One token a turn, one observation between: returns 1.5 1.3 1.3 1 1 and .1 0 0 0 0, means .8 .65 .65 .5 .5."""
    mask = torch.zeros(2, 6, dtype=torch.bool)
    mask[0, [1, 3, 5]] = mask[1, [1, 3]] = True
    reward = torch.zeros(2, 6, dtype=torch.float64)
    reward[0, [1, 3, 5]], reward[1, [1, 3]] = REWARD[0], REWARD[1, :2]
    rows = torch.arange(2)
    got = per_position(reward, mask, rows, GROUP)
    close(got, [[0, 0.7, 0, 0.65, 0, 0.5], [0, -0.7, 0, -0.65, 0, 0]])
    # a longer prompt moves nothing
    later, behind = (torch.cat([t.new_zeros(2, 2), t], 1) for t in (reward, mask))
    close(per_position(later, behind, rows, GROUP)[:, 2:], got, atol=0)
    # a longer first turn of one of them does: its second turn is compared with the end of the other's
    longer = mask.clone()
    longer[1, 2] = True
    close(per_position(reward, longer, rows, GROUP)[1, 1:4], [-0.7, -0.65, -0.65])
    with pytest.raises(ValueError, match="several contexts"):
        per_position(reward, mask, torch.tensor([0, 0]), GROUP)
    lost = torch.tensor([True, False])
    assert (per_position(reward, mask, rows, GROUP, scored=lost) == 0).all()
    assert (per_position(reward, mask, rows, GROUP, scored=~lost & lost) == 0).all()


def test_with_one_turn_each_it_is_grpo() -> None:
    outcome = torch.tensor([1.0, 0.0, 0.5, 0.2, 0.2], dtype=torch.float64)
    group = torch.tensor([0, 0, 0, 4, 4])
    got = pooled_turns(outcome[:, None], torch.ones(5, 1).bool(), group)
    close(got[:, 0], grpo(outcome, group), atol=1e-9)


def test_ties_gaps_and_lost_members() -> None:
    assert (pooled_turns(torch.full_like(REWARD, 0.1), WRITTEN, GROUP) == 0).all()
    one = pooled_turns(REWARD[:1], WRITTEN[:1], GROUP[:1], ddof=0)
    assert one.isfinite().all() and one.any()  # a lone rollout is compared with its own turns
    none = torch.zeros_like(WRITTEN)
    assert (pooled_turns(REWARD, none, GROUP) == 0).all()
    bad = REWARD.clone()
    bad[1] = torch.nan
    got = pooled_turns(bad, WRITTEN, GROUP, scored=torch.tensor([True, False]))
    close(got, torch.cat([pooled_turns(REWARD[:1], WRITTEN[:1], GROUP[:1]), torch.zeros(1, 3)]))
    with pytest.raises(ValueError, match="one bool per turn"):
        pooled_turns(REWARD, WRITTEN[:, :2], GROUP)


# ------------------------------------------------------------------ the measurement


class Sure:
    """A sampler that always says `inventory`, and gives the answer p[n] when asked for the n-th time."""

    max_rows, parked = 8, 0

    def __init__(self, p: list[float]) -> None:
        self.p, self.asked = p, list[tuple[str, str]]()
        self.renderer = Renderer(tokenizer())

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        ids = np.array([*tokenizer()("inventory")["input_ids"], tokenizer().eos_token_id])
        return Completion(ids, np.full(len(ids), -1.0, np.float32), "stop", 0, sampling)

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        self.asked.append((tokenizer().decode(context.context()), tokenizer().decode(tokens)))
        p = self.p[len(self.asked) - 1]
        if p < 0:
            raise ContextTooLong("no room")
        return np.full(len(tokens), math.log(p), np.float32)


def measured(p: list[float], turns: int) -> tuple[Rollout, Sure]:
    sampler = Sure(p)
    strategy = AnswerProbability(AgentLoop(Sampling(max_tokens=4)), lead_in="Goal:")
    env = Script(solved_after(turns))
    (group,) = LocalEngine(sampler).collect(  # type: ignore[arg-type]
        strategy, [Request(replace(env.tasks()[0], answer=["oak log", "oak"]), 1, 9)], env, Key(0)
    )
    return group.rollouts[0], sampler


def test_the_answer_is_scored_before_every_turn() -> None:
    rollout, sampler = measured([0.1, 0.4, 0.3], turns=3)
    assert rollout.signals[SIGNAL] == pytest.approx((0.1, 0.4, 0.3), abs=1e-6)
    reads, answers = zip(*sampler.asked, strict=True)
    assert set(answers) == {"oak log"}  # the first of several
    assert all(read.endswith("Goal:") for read in reads)
    for turn, read in enumerate(reads):  # the question, then what each earlier turn brought
        assert read.count("turn ") == turn and read.count("inventory") == turn
    (group,) = asyncio.run(InformationGain(lambda r: 0.5)([Group("q", (rollout,))]))
    (scored,) = group.rollouts
    assert [turn.reward for turn in scored.turns] == pytest.approx([0.3, -0.1, 0.5], abs=1e-6)
    assert scored.reward == 0.5 and scored.terms["gain"] == pytest.approx(0.2, abs=1e-6)


def test_no_room_for_the_answer_is_no_gain() -> None:
    rollout, _ = measured([0.1, -1.0, 0.3], turns=3)
    assert rollout.signals[SIGNAL] == pytest.approx((0.1, 0.1, 0.3), abs=1e-6)
    rollout, _ = measured([-1.0], turns=1)
    assert rollout.signals[SIGNAL] == (0.0,)


def test_a_task_without_an_answer_is_refused() -> None:
    assert reference(replace(TASK, answer=7)) == reference(replace(TASK, answer=(7, 8))) == "7"
    for answer in (None, [], (None,)):
        with pytest.raises(ValueError, match="give tasks with a reference answer"):
            reference(replace(TASK, answer=answer))


def test_the_reward_wants_the_measurement() -> None:
    bare = Rollout(TASK, (), (), 0.0, End.FAILED)
    with pytest.raises(ValueError, match="strategy=AnswerProbability"):
        asyncio.run(InformationGain(lambda r: 0.0)([Group("q", (bare,))]))
    lost = replace(bare, end=End.ENV_CRASHED)
    (group,) = asyncio.run(InformationGain(lambda r: 0.0)([Group("q", (lost,))]))
    assert group.rollouts == (lost,)


def test_forced_scores_are_the_models_own() -> None:
    policy, plain = engine(tiny_model()), tiny_model()
    renderer = policy.sampler.renderer
    context = renderer.open([*Script().tasks()[0].prompt])

    async def ask(*args: Any) -> np.ndarray:
        future = asyncio.ensure_future(forced_score(policy.sampler, context, *args))
        await asyncio.sleep(0)
        while not future.done():
            policy.sampler.tick()
            await asyncio.sleep(0)
        return future.result()

    got = asyncio.run(ask("Goal:", "oak log"))
    answer = encode(renderer, "oak log")
    ids = torch.from_numpy(np.concatenate([context.context(), encode(renderer, "Goal:"), answer]))
    with torch.no_grad():
        logp = plain(ids[None]).logits[0].float().log_softmax(-1)
    want = logp[-1 - len(answer) : -1].gather(1, torch.from_numpy(answer)[:, None])[:, 0]
    torch.testing.assert_close(torch.from_numpy(got), want, atol=1e-4, rtol=1e-4)
    assert isinstance(got, np.ndarray)  # numbers, through which no gradient flows
    other = asyncio.run(ask("inventory", "oak log"))
    assert not np.allclose(got, other)
    with pytest.raises(ValueError, match="says nothing"):
        encode(renderer, "")


def test_the_answer_is_in_no_training_sequence() -> None:
    env = Script(solved_after(3))
    task = replace(env.tasks()[0], answer="lapis lazuli")
    strategy = AnswerProbability(AgentLoop(Sampling(max_tokens=3)), lead_in="Goal:")
    policy = engine()
    groups = policy.collect(strategy, [Request(task, 2, 9)], env, Key(1))
    groups = asyncio.run(InformationGain(lambda r: float(r.solved))(groups))
    for rollout in groups[0].rollouts:
        assert all(0 < p < 1 for p in rollout.signals[SIGNAL])
    batch = make_batch(groups)
    answer = encode(policy.sampler.renderer, "lapis lazuli").tolist()
    for row in batch.tokens.tolist():
        assert not any(row[i : i + len(answer)] == answer for i in range(len(row)))
    # and the credit takes it from there
    for credit in (IGPO(gamma=0.9), IGPOReleased(), GRPO()):
        advantage = credit(batch).advantage
        assert advantage.isfinite().all() and (advantage[~batch.mask] == 0).all()
    assert IGPO()(batch).advantage.any()
