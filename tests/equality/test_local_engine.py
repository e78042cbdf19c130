"""The local engine against plain computation: cached, packed and shared must change no number."""

from __future__ import annotations

import asyncio
import copy
import json
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.helpers import Script, engine, sampled, sampler, solved_after, tiny_model, tokenizer
from transformers import (
    Gemma3ForCausalLM,
    Gemma3TextConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from ludus.advantages.credit import GRPO
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.attention import Tree
from ludus.engines.local.build import open_model
from ludus.engines.local.check import Disagreement, check_agreement
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.learner import LocalLearner
from ludus.engines.local.model import CausalModel
from ludus.engines.local.sampler import LocalSampler, choose
from ludus.engines.local.tree import pack
from ludus.losses.clipped import clipped_ratio
from ludus.losses.kl import k3
from ludus.losses.objective import KL, Objective
from ludus.rollouts.agent_loop import AgentLoop
from ludus.types import Batch, End, Key, Node, Optim, Request, Rollout, Sampling, Step

LOOP = AgentLoop(Sampling(max_tokens=6))


def small(kind: type, config: type, **more: object) -> torch.nn.Module:
    torch.manual_seed(0)
    made = kind(
        config(
            vocab_size=len(tokenizer()),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
            **more,
        )
    )
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return made.eval()


MODELS = {
    "qwen3": lambda: tiny_model(),
    "qwen2 (biases)": lambda: small(Qwen2ForCausalLM, Qwen2Config),
    "llama": lambda: small(LlamaForCausalLM, LlamaConfig),
    "mistral (sliding window)": lambda: small(MistralForCausalLM, MistralConfig, sliding_window=9),
    "gemma3 (mixed windows, scaled embeddings)": lambda: small(
        Gemma3ForCausalLM,
        Gemma3TextConfig,
        sliding_window=9,
        layer_types=["sliding_attention", "full_attention", "sliding_attention"],
    ),
}


@pytest.mark.parametrize("name", MODELS)
def test_sampled_logprobs_are_the_models_own(name: str) -> None:
    """Many turns, rows shared, copied and continued: what was recorded is what a plain forward pass says."""
    model = MODELS[name]()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    groups = engine(model).collect(LOOP, requests(answers=3, turns=4), Script(), Key(0))
    for rollout in [r for group in groups for r in group.rollouts]:
        leaf = rollout.contexts[-1]
        row = torch.from_numpy(leaf.context())
        with torch.no_grad():
            logp = plain(input_ids=row[None]).logits[0].float().log_softmax(-1)
        end = 0
        for node in leaf.chain():
            start, end = end, end + len(node.tokens)
            if node.trainable:
                own = logp[range(start - 1, end - 1), node.tokens]
                torch.testing.assert_close(
                    torch.from_numpy(node.logprobs), own, atol=1e-4, rtol=1e-4
                )


def requests(tasks: int = 3, answers: int = 2, turns: int = 4) -> list[Request]:
    return [Request(task, answers, turns) for task in Script(count=tasks).tasks()]


def test_a_turn_costs_its_new_tokens_and_a_group_prefills_its_prompt_once() -> None:
    local = engine()
    groups = local.collect(LOOP, requests(tasks=1, answers=8, turns=5), Script(), Key(0))
    rollouts = groups[0].rollouts
    prompt = len(rollouts[0].contexts[0].chain()[0].tokens)
    written = sum(len(n.tokens) for r in rollouts for n in r.contexts[-1].chain()[1:])
    sampled_tokens = sum(len(sampled(r)) for r in rollouts)
    # every turn computes the environment's tokens and the last sampled one; each answer the prompt's last one
    observed = written - sampled_tokens
    turns = sum(len(r.turns) - 1 for r in rollouts)
    assert local.sampler.counts["prefilled"] == prompt + 7 + observed + turns


def test_the_schedule_changes_nothing() -> None:
    """Slow and fast environments, any concurrency: the same tokens and log-probabilities to the last bit."""

    async def late(turn: int, action: str) -> Step:
        await asyncio.sleep(0.002 * (len(action) % 3))
        return solved_after(4)(turn, action)

    def play(env: Script, **how: object) -> list[np.ndarray]:
        local = LocalEngine(sampler(rows=16), **how)  # type: ignore[arg-type]
        groups = local.collect(LOOP, requests(), env, Key(7))
        return [x for g in groups for r in g.rollouts for x in (sampled(r), _logps(r))]

    direct = play(Script(solved_after(4)))
    for how in ({"overlap": 0}, {"overlap": 3}, {"overlap": None}):
        for one, other in zip(direct, play(Script(late), **how), strict=True):
            np.testing.assert_allclose(one, other, atol=2e-6)
    for one, other in zip(play(Script(late)), play(Script(late)), strict=True):
        np.testing.assert_array_equal(one, other)


def _logps(rollout: object) -> np.ndarray:
    return np.concatenate([turn.node.logprobs for turn in rollout.turns])  # type: ignore[attr-defined]


def test_few_rows_only_cost_time() -> None:
    """More rollouts than rows: they wait, rows are given up and filled again, and nothing changes."""
    many = engine().collect(LOOP, requests(), Script(), Key(3))
    few = LocalEngine(sampler(rows=2)).collect(LOOP, requests(), Script(), Key(3))
    for one, other in zip(many, few, strict=True):
        for a, b in zip(one.rollouts, other.rollouts, strict=True):
            np.testing.assert_array_equal(sampled(a), sampled(b))


def test_attempts_that_wait_for_room_are_made_when_all_others_end_at_once() -> None:
    short = AgentLoop(Sampling(max_tokens=2))  # answers of two tokens: all rows end in one tick
    asked = requests(tasks=8, answers=1, turns=1)
    few = LocalEngine(sampler(rows=2)).collect(short, asked, Script(), Key(0))
    many = engine().collect(short, asked, Script(), Key(0))
    for one, other in zip(few, many, strict=True):
        np.testing.assert_array_equal(sampled(one.rollouts[0]), sampled(other.rollouts[0]))


def in_time(work: Callable[[], Any]) -> Any:
    """What `work` returns or raises; a failure where it never ends."""
    ended: Future[Any] = Future()

    def run() -> None:
        try:
            ended.set_result(work())
        except BaseException as error:
            ended.set_exception(error)

    threading.Thread(target=run, daemon=True).start()
    return ended.result(timeout=30)


def test_a_fault_of_the_program_is_raised_while_others_wait_for_their_environments() -> None:
    async def slow(turn: int, action: str) -> Step:
        await asyncio.sleep(0.2)
        return Step(turn + 1, "late", end=End.FAILED)

    async def strategy(request: Request, sampler: object, env: Any, key: Key) -> Rollout:
        if key.path[-1] == 1:
            raise KeyError("not in the recipe")
        await env.step(0, "go")
        raise AssertionError("was let go on after the fault")

    local = engine()
    for _ in range(2):  # and the engine is as good as before
        with pytest.raises(KeyError, match="not in the recipe"):
            in_time(lambda: local.collect(strategy, requests(1, 2, 1), Script(slow), Key(0)))


def test_a_call_that_has_returned_may_be_cancelled_before_its_tick() -> None:
    async def short(turn: int, action: str) -> Step:
        await asyncio.sleep(0.01)
        return Step(turn + 1, "soon", end=End.FAILED)

    async def slow(turn: int, action: str) -> Step:
        await asyncio.sleep(0.3)
        return Step(turn + 1, "late", end=End.FAILED)

    async def either(turn: int, action: str) -> Step:
        return await (short if action == "short" else slow)(turn, action)

    async def strategy(request: Request, sampler: object, env: Any, key: Key) -> Rollout:
        if key.path[-1] == 0:
            await env.step(0, "slow")
            return Rollout(request.task, (), (), 0.0, End.FAILED)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.1):
                await env.step(0, "short")
        return Rollout(request.task, (), (), 0.0, End.GAVE_UP)

    group = in_time(
        lambda: engine().collect(strategy, requests(1, 2, 1), Script(either), Key(0))[0]
    )
    assert [rollout.end for rollout in group.rollouts] == [End.FAILED, End.GAVE_UP]


def test_a_model_ends_its_turns_where_its_generation_config_says(tmp_path: Path) -> None:
    tiny_model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    before = open_model(tmp_path, device="cpu")[1].stop_ids
    assert not before & {11, 12}
    (tmp_path / "generation_config.json").write_text(json.dumps({"eos_token_id": [11, 12]}))
    assert open_model(tmp_path, device="cpu")[1].stop_ids == before | {11, 12}


def test_score_is_the_models_own_and_leaves_the_rollout_alone() -> None:
    model = tiny_model()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    local = sampler(model)

    async def play() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        context = Node(None, np.arange(10, 30), role="prompt")
        first = asyncio.ensure_future(local.generate(context, Sampling(max_tokens=4), Key(0)))
        forced = asyncio.ensure_future(local.score(context, np.array([5, 6, 7])))
        while not (first.done() and forced.done()):
            await asyncio.sleep(0)
            local.tick()
        return context.context(), forced.result(), first.result().tokens

    row, scored, tokens = asyncio.run(play())
    nothing = local.score(Node(None, row), np.zeros(0, np.int64))
    assert len(asyncio.run(asyncio.wait_for(nothing, 10))) == 0
    whole = torch.from_numpy(np.concatenate([row, [5, 6, 7]]))
    with torch.no_grad():
        logp = plain(input_ids=whole[None]).logits[0].log_softmax(-1)
    np.testing.assert_allclose(scored, logp[range(19, 22), [5, 6, 7]], atol=1e-4)
    assert len(tokens) == 4


# ------------------------------------------------------------------------------------------- choosing


def test_choose_inverts_the_cumulative_distribution() -> None:
    logits = torch.log(torch.tensor([[0.5, 0.2, 0.3]])).repeat(5, 1)
    uniform = torch.tensor([0.0, 0.49, 0.51, 0.69, 0.71])
    one = torch.ones(5)
    tokens, logp = choose(logits, one, uniform, [Sampling()] * 5)
    assert tokens.tolist() == [0, 0, 1, 1, 2]
    torch.testing.assert_close(logp.exp(), torch.tensor([0.5, 0.5, 0.2, 0.2, 0.3]))
    # temperature 0 takes the most likely, and records it at temperature 1
    tokens, logp = choose(logits, 0 * one, uniform, [Sampling(temperature=0)] * 5)
    assert tokens.tolist() == [0] * 5 and logp.exp().tolist() == pytest.approx([0.5] * 5)
    # temperature 0.5 squares: .25, .04, .09 over .38
    tokens, logp = choose(logits, one / 2, uniform, [Sampling(temperature=0.5)] * 5)
    assert logp[0].exp().item() == pytest.approx(0.25 / 0.38)
    # top_k=2 and top_p=0.6 both leave .5 and .3, renormalised for choosing and not for recording
    for narrow in (Sampling(top_k=2), Sampling(top_p=0.6)):
        tokens, logp = choose(logits, one, uniform, [narrow] * 5)
        assert tokens.tolist() == [0, 0, 0, 2, 2]
        assert logp[-1].exp().item() == pytest.approx(0.3)


@pytest.mark.parametrize(
    "setting",
    [
        {"temperature": -1.0},
        {"temperature": float("nan")},
        {"top_p": 0.0},
        {"top_k": -1},
        {"max_tokens": 0},
        {"stop": "</answer>"},
        {"stop": ("",)},
    ],
    ids=str,
)
def test_settings_that_choose_nothing_are_refused(setting: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"give a (temperature from 0|tuple of texts)"):
        Sampling(**setting)


def test_a_stop_string_may_have_several_tokens_a_character() -> None:
    stop = "答案在这里结束了"
    tokens = tokenizer()(stop, add_special_tokens=False)["input_ids"]
    assert len(tokens) > len(stop) + 8
    work: Any = SimpleNamespace(sampling=Sampling(stop=(stop,)), said=[5, *tokens])
    assert sampler()._said(work)


def test_stop_strings_end_a_turn_after_the_token_that_completes_them() -> None:
    free = engine().collect(LOOP, requests(1, 1, 1), Script(), Key(0))[0].rollouts[0]
    stop = free.turns[0].action.strip()[3:6]
    loop = AgentLoop(Sampling(max_tokens=6, stop=(stop,)))
    cut = engine().collect(loop, requests(1, 1, 1), Script(), Key(0))[0].rollouts[0]
    assert stop in cut.turns[0].action and len(sampled(cut)) <= len(sampled(free))
    np.testing.assert_array_equal(sampled(cut), sampled(free)[: len(sampled(cut))])


# ------------------------------------------------------------------------------------------- the tree


@given(
    st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=24), min_size=1, max_size=9),
    st.sampled_from([1, 3, 8]),
)
@settings(max_examples=200, deadline=None)
def test_packing_keeps_every_row_and_each_prefix_once(rows: list[list[int]], least: int) -> None:
    arrays = [np.array(row) for row in rows]
    packed = pack(arrays, least)
    for row, index in zip(arrays, packed.index, strict=True):
        np.testing.assert_array_equal(packed.ids[index], row)
        np.testing.assert_array_equal(packed.positions[index], np.arange(len(row)))
        of = [
            next(i for i, s in enumerate(packed.segments) if s.start <= t < s.stop) for t in index
        ]
        chain, segment = set(), of[-1]
        while segment >= 0:
            chain.add(segment)
            segment = packed.segments[segment].parent
        assert chain == set(of)  # a token sees its own row and nothing else
    if least == 1:
        assert len(packed.ids) == len({tuple(r[: i + 1]) for r in rows for i in range(len(r))})


def test_forty_and_three_answers_are_seventy_nine_tokens() -> None:
    """The card: prompt 40, answers 12, 7 and 20: 79 tokens instead of 159, the same log-probabilities."""
    rng = np.random.default_rng(0)
    prompt = rng.integers(0, 500, 40)
    rows = [np.concatenate([prompt, rng.integers(0, 500, n)]) for n in (12, 7, 20)]
    packed = pack(rows)
    assert len(packed.ids) == 79 and sum(map(len, rows)) == 159
    model = tiny_model()
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    policy = CausalModel(model)
    hidden = policy.hidden(
        torch.from_numpy(packed.ids)[None],
        torch.from_numpy(packed.positions)[None],
        Tree(packed.segments, torch.device("cpu")),
    )
    for row, index in zip(rows, packed.index, strict=True):
        own = plain(input_ids=torch.from_numpy(row)[None]).logits[0]
        torch.testing.assert_close(policy.logits(hidden[index]), own, atol=1e-4, rtol=1e-4)


def gradient(batch: Batch, objective: Objective, **optim: object) -> torch.Tensor:
    learner = LocalLearner(
        CausalModel(tiny_model()),
        objective,
        Optim(**optim),  # type: ignore[arg-type]
        reference=objective.kl is not None,
    )
    learner.gradients(learner.annotate(batch))
    return torch.cat([p.grad.flatten() for p in learner.model.module.parameters()])  # type: ignore[union-attr]


@pytest.mark.parametrize("over", ["tokens", "answers", "answer sums", "turns", 64])
def test_passes_sharing_and_order_do_not_change_the_gradient(over: object) -> None:
    batch = trained_batch()
    objective = Objective(clipped_ratio, over, KL(0.1, k3), entropy=0.01)  # type: ignore[arg-type]
    whole = gradient(batch, objective)
    assert whole.norm() > 1e-3
    for optim in ({"pass_tokens": 1}, {"pass_tokens": 300}, {"checkpointing": True}):
        torch.testing.assert_close(gradient(batch, objective, **optim), whole, atol=1e-6, rtol=1e-4)
    order = torch.randperm(len(batch))
    torch.testing.assert_close(gradient(batch.rows(order), objective), whole, atol=1e-6, rtol=1e-4)


def test_checkpointing_keeps_less_for_the_gradient() -> None:
    batch = trained_batch()

    def kept(checkpointing: bool) -> int:
        size = 0

        def count(tensor: torch.Tensor) -> torch.Tensor:
            nonlocal size
            size += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            gradient(batch, Objective(clipped_ratio), checkpointing=checkpointing)
        return size

    assert kept(True) < kept(False) / 2


def test_the_gradient_is_that_of_the_plainest_loop() -> None:
    """Row by row through transformers' own forward pass, no sharing, no packing, dense logits."""
    batch = trained_batch()
    ours = gradient(batch, Objective(clipped_ratio))
    model = tiny_model()
    tokens = int(batch.mask.sum())
    assert batch.advantage is not None
    loss = torch.zeros(())
    for i in range(len(batch)):
        n = int(batch.lengths()[i])
        logp = model(input_ids=batch.tokens[i : i + 1, :n]).logits[0].log_softmax(-1)
        for t in range(1, n):
            if batch.mask[i, t]:
                ratio = (logp[t - 1, batch.tokens[i, t]] - batch.logp[i, t]).exp()
                loss = loss - ratio * batch.advantage[i, t] / tokens
    loss.backward()
    plain = torch.cat([p.grad.flatten() for p in model.parameters()])  # type: ignore[union-attr]
    torch.testing.assert_close(ours, plain, atol=1e-6, rtol=1e-3)


def trained_batch() -> Batch:
    """Rollouts of a tiny model with rewards that differ inside groups."""

    def reward(turn: int, action: str) -> Step:
        return Step(
            turn + 1, "more", reward=float(len(action) % 3), end=End.FAILED if turn == 2 else None
        )

    groups = engine().collect(LOOP, requests(answers=4, turns=3), Script(reward), Key(1))
    batch = make_batch(groups)
    return replace(batch, advantage=GRPO()(batch).advantage)


# ------------------------------------------------------------------------------------------- the check


def test_the_check_passes_for_all_and_names_the_cause_where_it_must() -> None:
    local = sampler()
    assert check_agreement(local.model, local) < 1e-4
    assert not any(row.length for row in local.cache.rows)
    broken = sampler()
    renumbered = broken.model.hidden
    broken.model.hidden = lambda ids, at, plan, inputs=None: renumbered(
        ids, at + 1 * (at > 25), plan
    )  # type: ignore[method-assign]
    with pytest.raises(Disagreement, match="packed forward pass of Qwen3ForCausalLM"):
        check_agreement(broken.model, broken, tolerance=1e-9)
    lossy = sampler()
    lossy.cache.keys = [k.to(torch.bfloat16) for k in lossy.cache.keys]
    lossy.cache.values = [v.to(torch.bfloat16) for v in lossy.cache.values]
    lossy.cache.dtype = torch.bfloat16
    with pytest.raises((Disagreement, RuntimeError)):
        check_agreement(lossy.model, lossy)


def test_models_that_the_engine_cannot_run_are_refused() -> None:
    model = tiny_model()
    model._supports_attention_backend = False
    with pytest.raises(NotImplementedError, match="vllm"):
        CausalModel(model)
    plain = tiny_model()
    LocalSampler(CausalModel(plain), Renderer(tokenizer()))
    with pytest.raises(ValueError, match="set_attn_implementation"):
        plain(input_ids=torch.ones(1, 3, dtype=torch.long))
