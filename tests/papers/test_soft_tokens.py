"""Soft Tokens, arXiv:2509.19170: mixtures of embeddings with a density, in formula, sampler, learner and strategy."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.helpers import Script, engine, sampler, tiny_model, tokenizer
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig

from ludus.advantages.relative import rloo
from ludus.data import store
from ludus.data.batch import make_batch
from ludus.engines.local.build import build
from ludus.engines.local.model import CausalModel
from ludus.engines.local.packed import hidden_before, policy
from ludus.engines.local.sampler import LocalSampler
from ludus.models.soft import (
    embeddings,
    log_density,
    mixture,
    number_of,
    root_mean_square,
)
from ludus.recipes.efficiency import soft_tokens
from ludus.rollouts.settings import samplings
from ludus.rollouts.soft_thought import SoftThought
from ludus.train.recipe import RecipeError
from ludus.types import (
    Batch,
    Completion,
    End,
    Group,
    Image,
    Key,
    Node,
    Request,
    Rollout,
    Sampling,
    Soft,
    Step,
    Turn,
)


def f(*numbers: float) -> Tensor:
    return torch.tensor(numbers, dtype=torch.float64)


def close(got: Tensor, want: Any, atol: float = 1e-6) -> None:
    torch.testing.assert_close(got, torch.as_tensor(want, dtype=got.dtype), atol=atol, rtol=0)


# ---------------------------------------------------------------- the formula

TABLE = torch.stack([f(1, 0), f(0, 1), f(-1, -1)])
LOGITS = f(1, 0.5, -0.5)[None]


def test_a_worked_case() -> None:
    logits = LOGITS.clone().requires_grad_()
    close((logits / 0.5).softmax(-1)[0], [0.705385, 0.259496, 0.035119])
    centre = mixture(logits, TABLE, 0.5)
    centre.retain_grad()
    close(centre[0], [0.670265, 0.224377])
    sigma = 0.33 * root_mean_square(TABLE)
    assert sigma == pytest.approx(0.33 * 0.816497, abs=1e-6)
    logp = log_density(centre.detach() + f(0.2, -0.1), centre, sigma)
    close(logp, [-0.344353])
    logp.sum().backward()
    assert centre.grad is not None and logits.grad is not None
    close(centre.grad[0], [2.754821, -1.377410])
    close(logits.grad[0], [1.717498, -1.512767, -0.204731])


def test_credit() -> None:
    reward = torch.tensor([100.0, 10.0, 0.0, 100.0])
    advantage = rloo(reward, torch.zeros(4, dtype=torch.int64))
    close(advantage, [63.3333, -56.6667, -70.0, 63.3333], atol=1e-4)


def test_the_score_is_unbiased() -> None:
    """The mean of R d log pi / d h0 is the gradient of the mean of R: for R = a.h, it is a."""
    a, sigma, draws = f(2.0, -1.0), 0.27, 1_000_000
    rng = torch.Generator().manual_seed(0)
    centre = mixture(LOGITS, TABLE, 0.5).expand(draws, -1).clone().requires_grad_()
    noise = torch.randn(draws, 2, generator=rng, dtype=torch.float64)
    read = centre.detach() + sigma * noise
    (log_density(read, centre, sigma) * (read @ a)).sum().backward()
    assert centre.grad is not None
    assert float((centre.grad.mean(0) - a).norm() / a.norm()) < 0.01


def test_fuzzy_is_the_likeliest_embedding_and_rows_may_have_their_own_temperature() -> None:
    both = mixture(LOGITS.expand(2, -1), TABLE, f(1e-4, 0.5))
    assert torch.equal(both[0], TABLE[0])
    close(both[1], [0.670265, 0.224377])
    with pytest.raises(ValueError, match="different vocabularies"):
        mixture(LOGITS, TABLE[:2], 0.5)


def test_without_noise_there_is_no_gradient() -> None:
    logits = LOGITS.clone().requires_grad_()
    centre = mixture(logits, TABLE, 0.5)
    log_density(centre, centre, 0.3).sum().backward()
    assert logits.grad is not None and not logits.grad.any()


def test_numbers_name_vectors() -> None:
    one, other = np.array([1, 2], np.float32), np.array([1, 2.0000002], np.float32)
    assert number_of(one) == number_of(one.copy()) != number_of(other)
    assert all(1 << 40 <= number_of(v) < 1 << 62 for v in (one, other))


# ---------------------------------------------------------------- the sampler

SOFT, FUZZY = Soft(0.5, 0.33), Soft(1e-4, 0.33)
THOUGHT, ANSWER = Sampling(max_tokens=6), Sampling(max_tokens=3)


def gemma() -> torch.nn.Module:
    """Its embeddings are scaled on the way in, and its logits are those of the tied table."""
    torch.manual_seed(0)
    made = Gemma3ForCausalLM(
        Gemma3TextConfig(
            vocab_size=len(tokenizer()),
            hidden_size=64,
            intermediate_size=96,
            num_hidden_layers=2,
            num_attention_heads=4,
            num_key_value_heads=2,
            head_dim=16,
            max_position_embeddings=512,
        )
    )
    for parameter in made.parameters():
        if parameter.dim() > 1:
            parameter.data.mul_(3)
    return made.eval()


def prompt(local: LocalSampler, text: str = "Goal: craft") -> Node:
    ids = local.renderer.tokenizer(text, add_special_tokens=False)["input_ids"]
    return Node(None, np.array(ids, np.int64), role="prompt")


def generate(local: LocalSampler, asked: Sequence[tuple[Node, Sampling, Key]]) -> list[Completion]:
    async def together() -> list[Completion]:
        tasks = [asyncio.ensure_future(local.generate(*each)) for each in asked]
        while not all(task.done() for task in tasks):
            await asyncio.sleep(0)
            if local.parked:
                local.tick()
        return [task.result() for task in tasks]

    return asyncio.run(together())


@pytest.mark.parametrize("make", [tiny_model, gemma])
def test_fuzzy_without_noise_is_greedy(make: Callable[[], Any]) -> None:
    local = sampler(make())
    table = embeddings(local.model.module)
    greedy = Sampling(temperature=0.0, max_tokens=12)
    fuzzy = Sampling(max_tokens=12, soft=Soft(1e-4, 0.0))
    twin = replace(greedy, soft=FUZZY)  # at temperature 0 the noise is left out
    rng = np.random.default_rng(0)
    starts = [Node(None, rng.integers(0, len(table), 9), role="prompt") for _ in range(8)]
    asked = [(start, s, Key(i)) for start in starts for i, s in enumerate((greedy, fuzzy, twin))]
    made = iter(generate(local, asked))
    told = set()
    for hard, soft, without in zip(made, made, made, strict=True):
        told |= set(hard.tokens.tolist())
        assert soft.shadow is not None and soft.shadow.tolist() == hard.tokens.tolist()
        assert soft.said is soft.shadow and hard.said is hard.tokens
        assert without.tokens.tolist() == soft.tokens.tolist() and not soft.logprobs.any()
        for number, token in zip(soft.tokens.tolist(), hard.tokens.tolist(), strict=True):
            assert torch.equal(torch.from_numpy(soft.inputs[number]), table[token])
    assert len(told) > 8


def test_what_is_sampled_depends_on_the_key_alone() -> None:
    start = prompt(sampler())
    soft = replace(THOUGHT, soft=SOFT)
    alone = generate(sampler(), [(start, soft, Key(3))])[0]
    among = generate(
        sampler(),
        [(start, THOUGHT, Key(1)), (start, soft, Key(3)), (start, soft, Key(4))],
    )
    for one, other in ((alone, among[1]), (alone, among[2])):
        same = other is among[1]
        vectors = [np.array([c.inputs[n] for n in c.tokens.tolist()]) for c in (one, other)]
        assert np.allclose(vectors[0][0], vectors[1][0], atol=1e-5) == same
        if same:
            np.testing.assert_allclose(vectors[0], vectors[1], atol=1e-5)
            np.testing.assert_allclose(one.logprobs, other.logprobs, atol=1e-3)


def test_noise_is_as_large_as_asked() -> None:
    local = sampler()
    made = generate(local, [(prompt(local), replace(THOUGHT, soft=SOFT), Key(0))])[0]
    assert made.sampling.soft is not None
    sigma = 0.33 * root_mean_square(embeddings(local.model.module))
    assert made.sampling.soft.sigma == pytest.approx(sigma)
    # -|n|^2 / 2 of 64 normal numbers: -32 on average, 5.7 its deviation
    assert -50 < float(made.logprobs.mean()) < -20


def test_no_score_for_a_vector() -> None:
    local = sampler()
    with pytest.raises(ValueError, match="is no token"):
        asyncio.run(local.score(prompt(local), np.array([1 << 41])))


def test_soft_refuses_what_it_cannot_mean() -> None:
    with pytest.raises(ValueError, match="top_k=5"):
        Sampling(top_k=5, soft=SOFT)
    with pytest.raises(ValueError, match="above 0"):
        Soft(temperature=0.0)
    with pytest.raises(ValueError, match="answer is read as text"):
        SoftThought(answer=Sampling(soft=SOFT))


# ---------------------------------------------------------------- the strategy


def graded(turn: int, action: str) -> Step:
    """Any reward will do, as long as the answers differ."""
    return Step(turn + 1, "seen", float(len(action) % 3), End.FAILED)


def strategy(soft: Soft | None = SOFT, thought: int = 6) -> SoftThought:
    return SoftThought(replace(THOUGHT, max_tokens=thought, soft=soft), ANSWER)


def collected(soft: Soft | None = SOFT, thought: int = 6) -> tuple[Any, list[Group]]:
    local = engine()
    requests = [Request(task, 3, 1) for task in Script(count=2).tasks()]
    return local, local.collect(strategy(soft, thought), requests, Script(graded), Key(0))


@pytest.mark.parametrize("soft", [SOFT, FUZZY, None])
def test_ratios_are_one_at_unchanged_weights(soft: Soft | None) -> None:
    local, groups = collected(soft)
    batch = make_batch(groups)
    with torch.no_grad():
        logp, now = policy(local.sampler.model, batch, ("entropy", "mean_logp"))
    ratio = (logp - batch.logp)[batch.mask].exp()
    assert float((ratio - 1).abs().max()) < 1e-4
    assert batch.mask.sum() > 6 * 9 - 6
    assert (now["entropy"][batch.mask] > 0).all()  # of the tokens, where vectors were chosen too
    beyond = batch.mask & (batch.tokens >= 1 << 40)
    assert bool(beyond.any()) == (soft is not None) == (batch.soft is not None)
    assert (batch.turn[beyond] == 0).all() and (batch.turn[batch.mask & ~beyond] >= 0).all()


def test_the_cache_holds_what_was_read_and_not_the_shadow() -> None:
    """The answer's log-probabilities are those of one plain forward pass over the vectors."""
    local, groups = collected()
    model = local.sampler.model.module
    plain = copy.deepcopy(model)
    plain.set_attn_implementation("sdpa")
    table = embeddings(model)
    for rollout in [r for group in groups for r in group.rollouts]:
        start, thought, _, answer = rollout.contexts[0].chain()
        row = answer.context()
        inputs = answer.all_inputs()
        assert start.length == answer.length - len(row[start.length :])

        def after(read: Callable[[int], Tensor], row: np.ndarray = row) -> Tensor:
            embedded = torch.stack([read(n) for n in row.tolist()])[None]
            with torch.no_grad():
                return plain(inputs_embeds=embedded).logits[0].log_softmax(-1)

        def vector(n: int, inputs: Any = inputs) -> Tensor:
            return torch.from_numpy(inputs[n]) if n in inputs else table[n]

        def token(n: int, inputs: Any = inputs) -> Tensor:
            near = (table - vector(n, inputs)).norm(dim=1).argmin()
            return table[near] if n in inputs else table[n]

        at = range(len(row) - len(answer.tokens) - 1, len(row) - 1)
        got = torch.from_numpy(answer.logprobs)
        close(after(vector)[at, answer.tokens], got, atol=1e-4)
        assert float((after(token)[at, answer.tokens] - got).abs().max()) > 1e-2
        assert len(thought.tokens) and all(n in inputs for n in thought.tokens.tolist())


def test_what_the_world_shows_after_the_answer_is_kept_as_text_and_pictures() -> None:
    picture = Image(b"png")
    world = Script(lambda turn, action: Step(turn, ("seen", picture), 1.0, End.SOLVED))
    request = Request(world.tasks()[0], 1, 1)
    (group,) = engine().collect(strategy(), [request], world, Key(0))
    turn = group.rollouts[0].turns[-1]
    assert turn.observation == "seen" and turn.pictures == (picture,)


def test_a_thought_that_ends_by_itself_needs_only_the_box() -> None:
    """The stop string is watched in the shadow; where it does not come, the sentence is put there whole."""
    local, groups = collected(Soft(1e-4, 0.0))
    shadow = groups[0].rollouts[0].turns[0].action
    middle = shadow[len(shadow) // 2 :].strip()
    assert middle
    said = replace(strategy(Soft(1e-4, 0.0)), ends=middle)
    requests = [Request(task, 1, 1) for task in Script(count=1).tasks()]
    ended = local.collect(said, requests, Script(graded), Key(0))[0].rollouts[0]
    assert ended.turns[0].action.endswith(middle) and ended.turns[0].observation == " \\boxed{"
    cut = groups[0].rollouts[0]
    assert cut.turns[0].observation == " The final answer is: \\boxed{"
    assert [node.role for node in cut.contexts[0].chain()] == [
        *("prompt", "assistant", "template", "assistant")
    ]
    assert [node.trainable for node in cut.contexts[0].chain()] == [False, False, False, True]


def test_every_sampling_of_a_strategy_is_found() -> None:
    assert [s.max_tokens for s in samplings(strategy())] == [6, 3]
    assert [s.soft for s in samplings((strategy(None), [strategy(FUZZY)]))].count(FUZZY) == 1
    assert LocalSampler.soft


# ---------------------------------------------------------------- learning


def vectors_at(batch: Batch) -> list[int]:
    return batch.tokens[thoughts(batch)].tolist()


def thoughts(batch: Batch) -> Tensor:
    return batch.mask & (batch.tokens >= 1 << 40)


def gradient(model: CausalModel, batch: Batch) -> Tensor:
    model.module.zero_grad()
    policy(model, batch)[0].sum().backward()
    return torch.cat(
        [(p.grad if p.grad is not None else p * 0).flatten() for p in model.module.parameters()]
    )


def test_deleting_the_noise_deletes_the_gradient_of_the_thought() -> None:
    """Each stored vector is put on its centre, first to last; then the densities have exactly no gradient."""
    local, groups = collected()
    model = local.sampler.model
    batch = make_batch(groups)
    batch = replace(batch, mask=thoughts(batch))
    assert float(gradient(model, batch).norm()) > 1
    for _ in range(6):
        placed = dict(zip(vectors_at(batch), centres(model, batch), strict=True))
        batch = replace(batch, inputs=placed)
    assert not gradient(model, batch).any()
    assert not policy(model, batch)[0].any()


def centres(model: CausalModel, batch: Batch) -> list[np.ndarray]:
    """h0 of every vector of a batch, as the learner makes it."""
    with torch.no_grad():
        hidden, _ = hidden_before(model, batch)
        assert batch.soft is not None
        made = mixture(model.logits(hidden), embeddings(model.module), batch.soft.temperature)
    return list(made.numpy())


def test_no_gradient_flows_along_the_thought() -> None:
    """The learner's gradient is that of teacher forcing with constants, and not that of a chain held together."""
    local, groups = collected(thought=3)
    model = local.sampler.model
    one = [replace(groups[0], rollouts=groups[0].rollouts[:1])]
    batch = make_batch(one)
    batch = replace(batch, mask=thoughts(batch))
    got = gradient(model, batch)
    plain = copy.deepcopy(model.module)
    plain.set_attn_implementation("sdpa")
    soft = batch.soft
    assert soft is not None and soft.sigma is not None
    row = batch.tokens[0][batch.tokens[0] >= 0]
    first = int(thoughts(batch)[0].nonzero()[0])
    stored = [torch.from_numpy(batch.inputs[n]) for n in vectors_at(batch)]

    def of_chain(constant: bool) -> Tensor:
        plain.zero_grad()
        table = embeddings(plain)
        read = list(table[row[:first]])
        total = torch.zeros(())
        for h in stored:
            logits = plain(inputs_embeds=torch.stack(read)[None]).logits[0, -1:]
            centre = mixture(logits, table, soft.temperature)
            total = total + log_density(h[None], centre, soft.sigma or 0.0).sum()
            # the trap: the same number, reached through what was sampled before
            read.append(h if constant else centre[0] + (h - centre[0]).detach())
        total.backward()
        return torch.cat(
            [(p.grad if p.grad is not None else p * 0).flatten() for p in plain.parameters()]
        )

    scale = float(got.norm())
    assert float((got - of_chain(True)).norm()) < 1e-3 * scale
    assert float((got - of_chain(False)).norm()) > 1e-2 * scale


def test_the_graph_does_not_grow_with_the_thought() -> None:
    """One forward pass whatever its length; a chain held together would add one for each position."""

    def nodes(thought: int) -> int:
        local, groups = collected(thought=thought)
        logp = policy(local.sampler.model, make_batch(groups))[0]
        seen, todo = set(), [logp.grad_fn]
        while todo:
            node = todo.pop()
            if node is not None and node not in seen:
                seen.add(node)
                todo += [each for each, _ in node.next_functions]
        return len(seen)

    assert nodes(24) <= nodes(4) + 40  # the packed tree has a few segments more or less


# ---------------------------------------------------------------- what must not be mixed, and what is kept


def test_a_batch_has_one_soft_setting_and_a_density() -> None:
    _, groups = collected(SOFT)
    _, others = collected(FUZZY)
    with pytest.raises(ValueError, match="one setting"):
        make_batch([*groups, *others])
    rollout = groups[0].rollouts[0]
    sampled = rollout.contexts[0].chain()[1]
    assert sampled.sampling is not None
    silent = replace(sampled, sampling=replace(sampled.sampling, soft=Soft(0.5, 0.0, 0.0)))
    lone = Rollout(rollout.task, (silent,), (Turn(silent, ""),), 1.0, End.FAILED)
    with pytest.raises(ValueError, match="no density"):
        make_batch([Group("g", (lone,))])


def test_the_store_keeps_numbers_and_settings_and_not_the_vectors(tmp_path: Path) -> None:
    local, groups = collected()
    store.write(tmp_path, groups, step=1)
    back = store.read(tmp_path)
    for one, other in zip(groups, back, strict=True):
        for made, found in zip(one.rollouts, other.rollouts, strict=True):
            assert made.contexts[0].context().tolist() == found.contexts[0].context().tolist()
            assert [n.sampling for n in made.contexts[0].chain()] == [
                n.sampling for n in found.contexts[0].chain()
            ]
            assert [t.action for t in made.turns] == [t.action for t in found.turns]
    with pytest.raises(ValueError, match="the store does not keep it"):
        policy(local.sampler.model, make_batch(back))


def test_a_sampler_that_cannot_is_refused_at_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where only the evaluation asks for mixtures; a recipe of tokens alone goes on."""
    tiny_model().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    of_tokens = replace(soft_tokens.recipe, strategy=soft_tokens.hard, model=str(tmp_path))
    monkeypatch.setattr(LocalSampler, "soft", False)
    build(of_tokens, device="cpu")
    examined = replace(of_tokens.evaluation, strategy=soft_tokens.fuzzy)
    for recipe in (
        replace(of_tokens, strategy=soft_tokens.soft),
        replace(of_tokens, evaluation=examined),
    ):
        with pytest.raises(RecipeError, match=r"mixtures of embeddings.*sampler cannot"):
            build(recipe, device="cpu")
