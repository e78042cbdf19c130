"""The tokenizer and the architectures of the tiny models."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM, Qwen3ForCausalLM

from ludus.data.render import Renderer
from ludus.envs.games.books import generated, minecraft_book
from ludus.envs.games.textcraft import INSTRUCTION, inventory_text, opening
from ludus.models import tiny
from ludus.types import Message

TOKENIZER = tiny.tokenizer()


def ids(text: str) -> list[int]:
    return TOKENIZER.encode(text, add_special_tokens=False)


def text_of(tokens: Sequence[int]) -> str:
    return str(TOKENIZER.decode(list(tokens)))


@settings(max_examples=200, deadline=None)
@given(st.text())
def test_any_text_comes_back(text: str) -> None:
    assert text_of(ids(text)) == text


@pytest.mark.parametrize(
    "text",
    ["", " ", "  two  spaces ", "\n\n\tx\r\n", "héllo 世界 🙂", " .", "1 2  34", "Action: Action:"],
)
def test_awkward_text_comes_back(text: str) -> None:
    assert text_of(ids(text)) == text


def test_a_text_of_the_small_world_costs_one_token_a_word() -> None:
    assert TOKENIZER.convert_ids_to_tokens(ids("Action: get 12 oak log")) == [
        *("Action:", "Ġget", "Ġ1", "2", "Ġoak", "Ġlog")
    ]
    # 11 words, counts and commas, one token each
    assert len(ids("craft 2 light blue dye using 1 blue dye, 1 bone")) == 12


def test_every_word_of_both_books_is_one_token_with_and_without_its_space() -> None:
    book = minecraft_book()
    for name in (*book.of, *book.raw, *book.members):
        words = re.findall(r"[^\W\d_]+|\S", name)
        assert len(ids(f" {name}")) == len(words), name
    for word in tiny.words():
        assert len(ids(word)) == 1, word
        assert len(ids(f" {word}")) == 1, word


def test_no_world_needs_bytes_but_for_a_line_end() -> None:
    """What the generated environment says is words, figures and punctuation: no word falls to its letters."""
    texts = {i: text_of([i]) for i in range(len(TOKENIZER))}
    letters = {i for i, text in texts.items() if len(text) == 1 and text.isalpha()}
    world = generated(train=20, test=1, counts=3, names=80)
    for index in range(20):
        state = world.start("train", index)
        held = inventory_text(tuple((name, 2) for name in sorted(state.book.raw)))
        assert not letters & set(ids(opening(state) + held))
    assert not (letters - set(ids("a"))) & set(ids(INSTRUCTION.text))


def test_vocabulary_is_small_and_the_same_each_time() -> None:
    again = tiny.tokenizer()
    assert again.get_vocab() == TOKENIZER.get_vocab()
    assert len(TOKENIZER) <= 1024
    assert TOKENIZER.convert_tokens_to_ids(list(tiny.SPECIAL)) == list(range(len(tiny.SPECIAL)))
    assert (TOKENIZER.eos_token, TOKENIZER.pad_token) == (tiny.END, tiny.PAD)


def test_saved_and_loaded_it_is_the_same(tmp_path) -> None:
    TOKENIZER.save_pretrained(tmp_path)
    loaded = AutoTokenizer.from_pretrained(tmp_path)
    talk = [{"role": "system", "content": INSTRUCTION.text}, {"role": "user", "content": "héllo"}]
    expected = TOKENIZER.apply_chat_template(talk, add_generation_prompt=True, tokenize=False)
    assert loaded.apply_chat_template(talk, add_generation_prompt=True, tokenize=False) == expected
    assert loaded.encode(expected, add_special_tokens=False) == ids(str(expected))


def test_template_only_appends_and_a_role_is_one_token() -> None:
    talk = [
        {"role": "system", "content": " be brief\n"},
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": "<think>x</think>get 1 log"},
        {"role": "tool", "content": "Got 1 log"},
    ]
    texts = [str(TOKENIZER.apply_chat_template(talk[:n], tokenize=False)) for n in range(1, 5)]
    for shorter, longer in pairwise(texts):
        assert longer.startswith(shorter)
    prompt = TOKENIZER.apply_chat_template(talk[:2], add_generation_prompt=True, tokenize=False)
    assert prompt == texts[1] + "<|assistant|>"
    assert texts[2].startswith(str(prompt))
    for role in tiny.ROLES:
        assert len(ids(f"<|{role}|>")) == 1


def test_the_renderer_takes_the_template() -> None:
    renderer = Renderer(TOKENIZER)
    opened = renderer.open([INSTRUCTION, Message("user", "hello")])
    assert text_of(opened.tokens.tolist()).endswith("<|user|>hello<|end|><|assistant|>")
    assert TOKENIZER.eos_token_id in renderer.stop_ids


@pytest.mark.parametrize(
    ("family", "kind"), [(None, Qwen3ForCausalLM), (LlamaConfig, LlamaForCausalLM)]
)
def test_a_model_depends_on_its_seed_alone(family, kind) -> None:
    options = {} if family is None else {"family": family}
    size = tiny.Size(hidden=32, layers=2, heads=2, shared=1, head=16, inner=64)
    torch.manual_seed(5)
    untouched = torch.rand(3)
    torch.manual_seed(5)
    first = tiny.model(size, len(TOKENIZER), seed=3, **options)
    assert torch.equal(torch.rand(3), untouched)
    same, other = (tiny.model(size, len(TOKENIZER), seed=s, **options) for s in (3, 4))
    assert isinstance(first, kind)
    weights, others = dict(same.named_parameters()), dict(other.named_parameters())
    assert all(torch.equal(p, weights[name]) for name, p in first.named_parameters())
    assert any(not torch.equal(p, others[name]) for name, p in first.named_parameters())
    # tied embeddings: no second matrix of the vocabulary's size
    assert weights.keys().isdisjoint({"lm_head.weight"})
    prompt = torch.tensor([ids("craft 1 sand using 1 glass")])
    assert first(input_ids=prompt).logits.shape == (1, prompt.shape[1], first.config.vocab_size)


def test_a_size_that_cannot_share_heads_says_so() -> None:
    with pytest.raises(ValueError, match=r"heads=4, shared=3; .*multiple"):
        tiny.Size(heads=4, shared=3)
