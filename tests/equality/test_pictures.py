"""Pictures: what the engine computes is what the model computes by itself; none is taken for another."""

from __future__ import annotations

import asyncio
import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image
import pytest
import torch
from tests.helpers import tiny_model, tokenizer
from transformers import (
    Gemma3Config,
    Gemma3ForConditionalGeneration,
    LlavaForConditionalGeneration,
    Qwen2_5_VLConfig,
    SiglipVisionConfig,
)

from ludus.data import store
from ludus.data.batch import make_batch
from ludus.data.render import Renderer
from ludus.engines.local.check import check_agreement
from ludus.engines.local.engine import LocalEngine
from ludus.engines.local.model import CausalModel, load
from ludus.engines.local.packed import policy
from ludus.engines.local.pictures import Tower
from ludus.engines.local.sampler import LocalSampler
from ludus.envs.small.shapes import Shapes, drawn
from ludus.models import tiny
from ludus.models.shapes_base import ShapesBase
from ludus.rollouts.agent_loop import AgentLoop
from ludus.types import Group, Image, Key, Message, Node, Patch, Request, Sampling

WORLD = Shapes(train=12, test=12)
BASE = ShapesBase(WORLD, size=tiny.Size(32, 2, 2, 1, 16, 64), eye=16)


def opened() -> tuple[CausalModel, Renderer, Any]:
    """A random model whose words are not uniform and whose pictures matter."""
    processor = BASE.processor()
    module = BASE.model(processor.tokenizer).eval()
    with torch.no_grad():
        for parameter in module.parameters():
            if parameter.dim() > 1:
                parameter.mul_(3.0)
        body: Any = module.base_model
        body.multi_modal_projector.linear_2.weight.mul_(30.0)
    model = CausalModel(module, Tower(module, processor.image_processor))
    return model, Renderer(processor.tokenizer, pictures=model.pictures), processor


def picture(index: int) -> Image:
    state = WORLD.start("train", index)
    return drawn(state.cells, state.strokes)


def plain(model: CausalModel) -> Any:
    """The same model as transformers runs it."""
    module = copy.deepcopy(model.module)
    module.set_attn_implementation("sdpa")
    return module


def rollouts(model: CausalModel, renderer: Renderer, answers: int = 3) -> list[Group]:
    engine = LocalEngine(LocalSampler(model, renderer))
    requests = [Request(task, answers, 1) for task in WORLD.tasks()[:4]]
    return engine.collect(AgentLoop(Sampling(max_tokens=12)), requests, WORLD, Key(0))


def pixels(processor: Any, image: Image) -> torch.Tensor:
    shown = PIL.Image.open(io.BytesIO(image.data))
    return processor.image_processor(images=[shown], return_tensors="pt")["pixel_values"]


def test_sampler_learner_and_the_models_own_forward_agree() -> None:
    model, renderer, processor = opened()
    check_agreement(model, LocalSampler(model, renderer))
    groups = rollouts(model, renderer)
    batch = make_batch(groups)
    assert len(batch.inputs) == 4 * 9
    with torch.no_grad():
        learner, _ = policy(model, batch)
    assert (learner - batch.logp)[batch.mask].abs().max() < 1e-4
    own = plain(model)
    each = [rollout for group in groups for rollout in group.rollouts]
    compared = 0
    for row, rollout in enumerate(each):
        image = next(part for m in rollout.opening for part in m.content if isinstance(part, Image))
        ids = batch.tokens[row][batch.tokens[row] >= 0].clone()
        if bool((ids == own.config.image_token_id).any()):
            continue  # a random policy wrote the placeholder itself, which transformers takes for a picture
        ids[ids >= renderer.pictures.vocabulary] = own.config.image_token_id  # type: ignore[union-attr]
        with torch.no_grad():
            logits = own(input_ids=ids[None], pixel_values=pixels(processor, image)).logits[0, :-1]
        wanted = logits.log_softmax(-1).gather(1, ids[1:, None])[:, 0]
        mask = batch.mask[row, 1 : len(ids)]
        assert mask.sum() > 3
        assert (wanted - learner[row, 1 : len(ids)])[mask].abs().max() < 1e-4
        compared += 1
    assert compared > 6


def test_the_picture_matters() -> None:
    """So that the agreement above is one about pictures."""
    model, renderer, _ = opened()
    batch = make_batch(rollouts(model, renderer))
    other = {n: Patch(picture(9), each.index) for n, each in batch.inputs.items()}  # type: ignore[union-attr]
    with torch.no_grad():
        one, _ = policy(model, batch)
        two, _ = policy(model, type(batch)(**{**vars(batch), "inputs": other}))
    assert (one - two)[batch.mask].abs().max() > 0.1


def test_the_ids_are_those_of_the_models_own_processor() -> None:
    model, renderer, processor = opened()
    messages = [Message("system", "Think."), Message("user", (picture(0), " How many are red?"))]
    tokens = renderer.open(messages).tokens
    parts = [{"type": "image"}, {"type": "text", "text": " How many are red?"}]
    said = [{"role": "system", "content": "Think."}, {"role": "user", "content": parts}]
    text = processor.apply_chat_template(said, add_generation_prompt=True)
    shown = PIL.Image.open(io.BytesIO(picture(0).data))
    wanted = processor(images=[shown], text=text)["input_ids"][0]
    assert model.pictures is not None
    beyond = tokens >= model.pictures.vocabulary
    assert np.where(beyond, model.pictures.placeholder, tokens).tolist() == wanted


def test_a_text_that_spells_a_picture_shows_none() -> None:
    model, renderer, _ = opened()
    assert model.pictures is not None
    context = renderer.open([Message("user", (picture(0), " Where is the <image>?"))])
    assert model.pictures.placeholder not in context.tokens and len(context.inputs) == 9
    assert "<image>?" in renderer.text(context.tokens[context.tokens < 384])


def test_two_pictures_under_one_text_never_share_a_row() -> None:
    model, renderer, _ = opened()
    contexts = [
        renderer.open([Message("user", (picture(index), " How many are red?"))])
        for index in (0, 1, 0)
    ]
    assert np.array_equal(contexts[0].tokens, contexts[2].tokens)
    numbers = [set(context.inputs) for context in contexts]
    assert not numbers[0] & numbers[1] and all(384 <= n < 2**62 for n in numbers[0] | numbers[1])
    places = contexts[0].tokens != contexts[1].tokens
    assert places.sum() == 9

    async def first_words(sampler: LocalSampler, order: list[int]) -> list[np.ndarray]:
        found = []
        for index in order:
            task = asyncio.ensure_future(
                sampler.score(contexts[index], np.array([70, 80, 90], np.int64))
            )
            while not task.done():
                await asyncio.sleep(0)
                if sampler.parked:
                    sampler.tick()
            found.append(task.result())
        return found

    sampler = LocalSampler(model, renderer)
    together = asyncio.run(first_words(sampler, [0, 1, 2]))
    begin = int(np.flatnonzero(places)[0])
    assert sampler.counts["reused"] <= begin + len(contexts[0].tokens) + 3
    alone = [asyncio.run(first_words(LocalSampler(model, renderer), [i]))[0] for i in (0, 1)]
    assert np.abs(together[0] - alone[0]).max() < 1e-4
    assert np.abs(together[1] - alone[1]).max() < 1e-4
    assert np.abs(together[0] - together[2]).max() < 1e-4
    assert np.abs(alone[0] - alone[1]).max() > 0.01


def test_a_picture_in_a_later_turn() -> None:
    _, renderer, _ = opened()
    history = [Message("user", (picture(0), " How many are red?")), Message("assistant", "1")]
    context = renderer.open(history[:1])
    said = np.array(renderer.tokenizer("1")["input_ids"], np.int64)
    node = Node(context, said, True, np.zeros(len(said), np.float32), role="assistant")
    after = renderer.extend(node, "stop", history, [Message("user", ("And ", picture(1), "?"))])
    assert after.parent is node and len(after.inputs) == 9
    assert {each.image for each in after.inputs.values()} == {picture(1)}  # type: ignore[union-attr]
    assert len(after.all_inputs()) == 18
    whole = renderer.open([*history, Message("user", ("And ", picture(1), "?"))])
    assert np.array_equal(whole.tokens, after.context())


def test_a_folder_opens_with_its_tower_and_is_saved_with_it(tmp_path: Path) -> None:
    model, _, processor = opened()
    processor.save_pretrained(tmp_path / "a")
    model.save(tmp_path / "a")
    again, words = load(tmp_path / "a", device="cpu")
    again.save(tmp_path / "b")
    words.save_pretrained(tmp_path / "b")
    third, words = load(tmp_path / "b", device="cpu")
    assert (
        isinstance(third.module, LlavaForConditionalGeneration) and third.pictures == model.pictures
    )
    groups = rollouts(third, Renderer(words, pictures=third.pictures))
    with torch.no_grad():
        learner, _ = policy(model, make_batch(groups))
    batch = make_batch(groups)
    assert (learner - batch.logp)[batch.mask].abs().max() < 1e-4


def test_rollouts_with_pictures_are_written_and_read(tmp_path: Path) -> None:
    model, renderer, _ = opened()
    groups = rollouts(model, renderer, answers=2)
    store.write(tmp_path, groups, step=1)
    again = store.read(tmp_path)
    for group, read in zip(groups, again, strict=True):
        for one, two in zip(group.rollouts, read.rollouts, strict=True):
            assert np.array_equal(one.contexts[0].context(), two.contexts[0].context())
            assert one.opening == two.opening


def test_a_copy_has_weights_of_its_own_and_the_tower_never_learns() -> None:
    model, renderer, _ = opened()
    batch = make_batch(rollouts(model, renderer))
    twin = model.copy()
    before, _ = policy(twin, batch)
    before[batch.mask].sum().backward()
    body: Any = twin.module.base_model
    frozen = [*body.vision_tower.parameters(), *body.multi_modal_projector.parameters()]
    assert all(p.grad is None and not p.requires_grad for p in frozen)
    assert body.language_model.embed_tokens.weight.grad.abs().sum() > 0
    assert next(model.module.parameters()).grad is None


def test_other_weights_make_other_vectors() -> None:
    model, _, _ = opened()
    assert model.tower is not None
    once = model.tower.vectors(picture(0))
    assert model.tower.vectors(picture(0)) is once
    state = {name: 2 * weight for name, weight in model.module.state_dict().items()}
    model.module.load_state_dict(state)
    assert not torch.equal(model.tower.vectors(picture(0)), once)


# ------------------------------------------------------------------------------------------- what is refused


def test_a_text_model_that_is_shown_a_picture() -> None:
    renderer = Renderer(tokenizer())
    with pytest.raises(ValueError, match="no vision tower"):
        renderer.open([Message("user", (picture(0), "?"))])
    model = CausalModel(tiny_model())
    assert model.pictures is None
    with pytest.raises(NotImplementedError, match="reads no pictures"):
        model.vector(Patch(picture(0), 0))


def test_a_template_that_writes_no_placeholder() -> None:
    model, _, processor = opened()
    words = copy.deepcopy(processor.tokenizer)
    words.chat_template = words.chat_template.replace("<image>", "")
    with pytest.raises(ValueError, match="0 times for 1 pictures"):
        Renderer(words, pictures=model.pictures).open([Message("user", (picture(0), "?"))])


def test_models_whose_pictures_are_more_than_vectors(tmp_path: Path) -> None:
    text = {"vocab_size": 64, "hidden_size": 16, "num_hidden_layers": 1, "head_dim": 8}
    heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "intermediate_size": 16}
    eye = SiglipVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2
    )
    both = Gemma3ForConditionalGeneration(
        Gemma3Config(text_config={**text, **heads}, vision_config=eye.to_dict())
    )
    with pytest.raises(NotImplementedError, match="take a model of type llava"):
        Tower(both, None)
    Qwen2_5_VLConfig().save_pretrained(tmp_path)
    tokenizer().save_pretrained(tmp_path)
    with pytest.raises(NotImplementedError, match="'qwen2_5_vl'"):
        load(tmp_path, device="cpu")
