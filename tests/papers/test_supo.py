"""SUPO, arXiv:2510.06727: masks, segments and conditioning of an agent that summarises, and whom it learns from."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import Script, engine, sampled, sampler, tiny_model, tokenizer

from ludus.advantages.credit import GRPO
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.engine import LocalEngine
from ludus.losses.reinforce import reinforce
from ludus.rewards.overlong import overlong_filter
from ludus.rollouts.agent_loop import AgentLoop
from ludus.rollouts.summarise import Summarise
from ludus.types import (
    Completion,
    End,
    Group,
    Key,
    Node,
    Request,
    Rollout,
    Sampling,
    Step,
    Task,
)
from ludus.weights.average import average
from ludus.weights.finished import finished

SAMPLING = Sampling(max_tokens=12)
SHORT = Sampling(max_tokens=4)
ASK, SAID = "Write only what you carry.", "Inventory:"  # short in the tokens of the small world


@dataclass
class Says:
    """A sampler that says what it is told to: the n-th completion is `text(n, what it reads)`."""

    text: Callable[[int, str], str]
    renderer: Renderer = field(default_factory=lambda: Renderer(tokenizer()))
    read: list[str] = field(default_factory=list)

    async def generate(self, context: Node, sampling: Sampling, key: Key) -> Completion:
        words = tokenizer().decode(context.context())
        said = self.text(len(self.read), words)
        self.read.append(words)
        ids = np.array([*tokenizer()(said)["input_ids"], tokenizer().eos_token_id], np.int64)
        return Completion(ids, np.full(len(ids), -1.0, np.float32), "stop", 0, sampling)

    async def score(self, context: Node, tokens: np.ndarray) -> np.ndarray:
        raise NotImplementedError


def acts(n: int, read: str) -> str:
    return f"summary {n}" if ASK in read else f"get {n} oak log"


def told(turn: int, action: str, *, turns: int = 6) -> Step:
    end = End.SOLVED if turn + 1 == turns else None
    return Step(turn + 1, f"Got {turn} oak log" + " oak" * 20, float(end is not None), end)


def play(strategy: Any, speaker: Says, env: Any = None, max_turns: int = 20) -> Rollout:
    env = Script(told) if env is None else env
    made = LocalEngine(speaker).collect(  # type: ignore[arg-type]
        strategy, [Request(env.tasks()[0], 1, max_turns)], env, Key(0)
    )
    return made[0].rollouts[0]


class Plain(Says):
    """With what the engine asks of a sampler beside the protocol."""

    max_rows = 64
    parked = 0


def summarise(longest: int = 90, **settings: Any) -> Summarise:
    return Summarise(SAMPLING, longest=longest, instruction=ASK, heading=SAID, **settings)


# ------------------------------------------------------------------ segments, masks and conditioning


def test_a_summary_opens_a_context_of_its_own() -> None:
    speaker = Plain(acts)
    rollout = play(summarise(overflow="shown"), speaker)
    assert rollout.end is End.SOLVED and rollout.reward == 1.0
    summaries = [turn for turn in rollout.turns if turn.info.get("summary")]
    assert len(rollout.turns) == 6 + len(summaries)
    assert len(summaries) >= 2 and len(rollout.contexts) == len(summaries) + 1
    for number, leaf in enumerate(rollout.contexts):
        chain = leaf.chain()
        read = tokenizer().decode(chain[0].tokens)
        assert "Task train-0. Go." in read  # the prompt is always there
        if number == 0:
            assert chain[0].origin is None and SAID not in read
            continue
        before = summaries[number - 1]
        assert chain[0].origin is before.node  # where it came from
        assert before.action in read
        # nothing of the earlier turns is left but the summary
        earlier = [turn for turn in rollout.turns if turn.node in rollout.contexts[0].chain()]
        whole = tokenizer().decode(leaf.context())
        assert not any(turn.observation and turn.observation in whole for turn in earlier)
    # a context is never longer than the bound, one turn, the instruction and a summary
    words = {
        text: len(tokenizer()(text)["input_ids"]) for text in (ASK, "Got 0 oak log" + " oak" * 20)
    }
    assert 90 < max(leaf.length for leaf in rollout.contexts) < 90 + sum(words.values()) + 40


def test_masks_are_true_on_actions_and_summaries_alone() -> None:
    rollout = play(summarise(overflow="shown"), Plain(acts))
    batch = make_batch([Group("t", (rollout,))])
    assert len(batch) == len(rollout.contexts)
    # every sampled token is trained exactly once, in order, and nothing else is
    assert batch.tokens[batch.mask].tolist() == sampled(rollout).tolist()
    assert (batch.rollout == 0).all() and len(batch.reward) == 1
    # read back, a summary is prompt
    second = batch.tokens[1].tolist()
    summary = next(turn for turn in rollout.turns if turn.info.get("summary"))
    words = tokenizer()(summary.action)["input_ids"]
    places = [i for i in range(len(second)) if second[i : i + len(words)] == words]
    assert places and not batch.mask[1, places[0]]


def test_the_turn_that_was_too_much_is_dropped_from_the_summary() -> None:
    speaker = Plain(acts)
    rollout = play(summarise(overflow="dropped"), speaker)
    assert rollout.end is End.SOLVED
    batch = make_batch([Group("t", (rollout,))])
    assert sorted(batch.tokens[batch.mask].tolist()) == sorted(sampled(rollout).tolist())
    asked = [read for read in speaker.read if ASK in read]
    shown = Plain(acts)
    play(summarise(overflow="shown"), shown)
    longer = [read for read in shown.read if ASK in read]
    assert len(asked[0]) < len(longer[0])
    first = next(i for i, turn in enumerate(rollout.turns) if turn.info.get("summary"))
    last = rollout.turns[first - 1]
    assert last.observation not in asked[0] and last.action not in asked[0]
    assert rollout.turns[first - 2].action in asked[0]
    # it is still learnt from, in a context that it ends
    assert last.node in rollout.contexts


def test_a_context_of_one_turn_is_shown_to_its_summary() -> None:
    rollout = play(summarise(longest=1, summaries=20), Plain(acts))
    assert [bool(turn.info.get("summary")) for turn in rollout.turns] == [False, True] * 5 + [False]
    assert all(a.parent is not None for a in rollout.contexts)


def test_what_was_said_before_the_summary_has_no_say_after_it() -> None:
    def loud(turn: int, action: str) -> Step:
        step = told(turn, action)
        return replace(step, observation="Got 9 oak log" + " log" * 20) if turn == 0 else step

    def fixed(n: int, read: str) -> str:
        return "the same summary" if ASK in read else "inventory"

    one = play(summarise(overflow="shown"), Plain(fixed))
    other = play(summarise(overflow="shown"), Plain(fixed), Script(loud))
    assert one.turns[0].observation != other.turns[0].observation
    assert len(one.contexts) == len(other.contexts) > 1
    for a, b in zip(one.contexts[1:], other.contexts[1:], strict=True):
        assert a.context().tolist() == b.context().tolist()
    assert one.contexts[0].context().tolist() != other.contexts[0].context().tolist()


@pytest.mark.parametrize("overflow", ["dropped", "shown"])
def test_unfinished_where_summaries_or_turns_are_used_up(overflow: Any) -> None:
    rollout = play(summarise(summaries=1, overflow=overflow), Plain(acts))
    assert rollout.end is End.OUT_OF_TOKENS and "used up" in rollout.error
    assert len([turn for turn in rollout.turns if turn.info.get("summary")]) == 1
    rollout = play(summarise(overflow=overflow), Plain(acts), max_turns=3)
    assert rollout.end is End.OUT_OF_TURNS
    # summaries are none of the turns allowed
    assert len([turn for turn in rollout.turns if not turn.info.get("summary")]) == 3


def test_without_a_bound_it_is_the_agent_loop() -> None:
    env = Script(told)
    requests = [Request(env.tasks()[0], 2, 3)]
    plain = engine().collect(AgentLoop(SHORT), requests, env, Key(3))
    unbounded = replace(summarise(longest=10**9), sampling=SHORT)
    ours = engine().collect(unbounded, requests, env, Key(3))
    for a, b in zip(plain, ours, strict=True):
        for x, y in zip(a.rollouts, b.rollouts, strict=True):
            assert len(y.contexts) == 1 and x.end is y.end and x.reward == y.reward
            assert x.contexts[0].context().tolist() == y.contexts[0].context().tolist()
    one, two = make_batch(plain), make_batch(ours)
    assert torch.equal(one.mask, two.mask) and torch.equal(one.logp, two.logp)


def test_a_real_model_is_scored_under_its_own_contexts() -> None:
    """Sampled log-probabilities are those of each context alone, summaries included."""
    env, model = Script(told), tiny_model()
    local = engine(tiny_model())  # the same weights
    strategy = replace(summarise(overflow="shown", summary_tokens=4), sampling=SHORT)
    (group,) = local.collect(strategy, [Request(env.tasks()[0], 2, 4)], env, Key(5))
    assert any(len(rollout.contexts) > 1 for rollout in group.rollouts)
    batch = make_batch([group])
    for row in range(len(batch)):
        ids = batch.tokens[row][batch.tokens[row] >= 0]
        with torch.no_grad():
            logits = model(ids[None]).logits[0].float()
        logp = logits[:-1].log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        mask = batch.mask[row, : len(ids)]
        assert not mask[0]
        torch.testing.assert_close(
            logp[mask[1:]], batch.logp[row, : len(ids)][mask], atol=1e-4, rtol=1e-4
        )


# ------------------------------------------------------------------ credit and whom it leaves out


def finished_group(ends: Sequence[End] = (End.SOLVED,) * 4) -> Group:
    """Rewards 1, 0, 1, 0 in 2, 1, 3 and 1 contexts of a prompt token and two sampled ones."""
    rollouts = []
    for index, (reward, contexts) in enumerate(zip([1, 0, 1, 0], [2, 1, 3, 1], strict=True)):
        leaves = []
        for number in range(contexts):
            root = Node(None, np.array([7]), role="prompt")
            tokens = np.array([10 + index, 20 + number])
            leaves.append(Node(root, tokens, True, np.full(2, -1.0, np.float32), 0, SAMPLING))
        rollouts.append(Rollout(Task("t"), tuple(leaves), (), float(reward), ends[index]))
    return Group("t", tuple(rollouts))


def test_statistics_are_over_rollouts_and_not_over_contexts() -> None:
    batch = make_batch([finished_group()])
    assert len(batch) == 7
    got = GRPO()(batch).advantage
    want = torch.tensor([0.866024] * 2 + [-0.866024] + [0.866024] * 3 + [-0.866024])
    torch.testing.assert_close(got[:, 1:], want[:, None].expand(-1, 2), atol=1e-6, rtol=0)
    # over the seven sequences it would be
    rows = batch.reward[batch.rollout]
    wrong = (rows - rows.mean()) / (rows.std() + 1e-6)
    assert wrong.unique().tolist() == pytest.approx([-1.463847, 0.585539], abs=1e-5)
    assert not torch.isclose(got[0, 1], wrong[0], atol=0.1)


def test_an_unfinished_rollout_counts_in_the_baseline_and_not_in_the_loss() -> None:
    group = finished_group((End.SOLVED, End.FAILED, End.SOLVED, End.OUT_OF_TURNS))
    batch = make_batch([group])
    weight = finished([group])
    assert weight.tolist() == [True, True, True, False]
    advantage = GRPO()(batch).advantage
    torch.testing.assert_close(advantage, GRPO()(make_batch([finished_group()])).advantage)
    mask = overlong_filter(batch.mask, batch.rollout, ~weight)
    logp = batch.logp.clone().requires_grad_()
    loss = average(reinforce(logp, batch.logp, advantage, mask), mask, batch.rollout, over="tokens")
    loss.backward()
    assert logp.grad is not None
    assert (logp.grad[-1] == 0).all()
    # the divisor: 12 tokens of the finished three, not 14; and every context of a rollout has its share
    torch.testing.assert_close(logp.grad[0, 1].item(), -0.866024 / 12, atol=1e-6, rtol=0)
    assert (logp.grad[:6, 1:] != 0).all() and (
        logp.grad[:6, 1:].sign() == -advantage[:6, 1:].sign()
    ).all()


def test_ends_that_are_unfinished() -> None:
    ends = list(End)
    rollouts = tuple(Rollout(Task("t"), (), (), 0.0, end) for end in ends)
    got = dict(zip(ends, finished([Group("t", rollouts)]).tolist(), strict=True))
    assert [end for end, whole in got.items() if not whole] == [End.OUT_OF_TURNS, End.OUT_OF_TOKENS]
    assert finished([]).shape == (0,)
    # a group of nothing else: no tokens, no loss
    group = finished_group((End.OUT_OF_TURNS,) * 4)
    batch = make_batch([group])
    mask = overlong_filter(batch.mask, batch.rollout, ~finished([group]))
    assert average(batch.logp, mask, batch.rollout, over="tokens") == 0


def test_the_gradient_reaches_the_summary() -> None:
    rollout = play(summarise(overflow="shown"), Plain(acts))
    other = replace(rollout, reward=0.0, end=End.FAILED)
    batch = make_batch([Group("t", (rollout, other))], share="every")
    summary = next(turn for turn in rollout.turns if turn.info.get("summary"))
    advantage = GRPO()(batch).advantage
    start = rollout.contexts[0].length - len(summary.node.tokens)
    assert (advantage[0, start : rollout.contexts[0].length] > 0).all()


def test_settings_that_cannot_be() -> None:
    with pytest.raises(ValueError, match="positive lengths"):
        Summarise(longest=0)
    with pytest.raises(ValueError, match="give the recipe an env"):
        asyncio.run(Summarise()(Request(Task("t"), 1, 1), sampler(), None, Key(0)))
