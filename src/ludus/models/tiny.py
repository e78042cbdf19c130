"""Tiny models for a CPU: the architectures of transformers from random weights, and a tokenizer for the small world.

A tiny model has to bind names to recipes in a few million tokens of training, so the tokenizer spends as few tokens as
it can: each word of the small world is one token, with and without the space before it, and so is each digit. Any
other text falls back to its bytes, and decoding always gives back the text that was encoded.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    Qwen3Config,
)

from ludus.envs.games.books import ADJECTIVES, NOUNS, minecraft_book
from ludus.envs.games.textcraft import INSTRUCTION

# ---------------------------------------------------------------------------------------------- the tokenizer

PAD, END = "<|pad|>", "<|end|>"
ROLES = ("system", "user", "assistant", "tool")
SPECIAL = (PAD, END, *(f"<|{role}|>" for role in ROLES))

# Nothing is ever taken back or moved, so a longer conversation begins with the text of the shorter one.
TEMPLATE = (
    "{% for message in messages %}"
    "<|{{ message['role'] }}|>{{ message['content'] }}<|end|>"
    "{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)

# One action costs two tokens less where its label is one token; a digit stays apart from the next one.
PIECE = Regex(r"Action:| ?\p{L}+| ?\p{N}| ?[^\s\p{L}\p{N}]|\s")

SAID = (
    "Crafting commands Goal craft get using inventory Inventory Got Crafted Could not find enough items to execute "
    "a valid recipe for You are not carrying anything Error write only one action per turn"
)


def words() -> tuple[str, ...]:
    """The words of the crafting worlds, sorted: generated names, Minecraft's names, instruction and observations."""
    book = minecraft_book()
    names = {*book.of, *book.raw, *book.members, *NOUNS, *ADJECTIVES}
    text = " ".join((*names, INSTRUCTION.text, SAID))
    pieces = pre_tokenizers.Split(PIECE, "isolated").pre_tokenize_str(text)
    return tuple(sorted({piece.strip() for piece, _ in pieces} - {""}))


def tokenizer(known_words: Sequence[str] | None = None) -> PreTrainedTokenizerFast:
    """The tokenizer of a small world: one token for each of its words, and for each byte; reversible on any text.

    Without `known_words` it is that of the crafting worlds, `words()`.

    The vocabulary is given, not learnt: pieces are whole words (Unigram, in which a word in the vocabulary always
    beats its bytes) over the byte alphabet of GPT-2. `eos_token` ends a turn.
    """
    to_bytes = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    known = dict.fromkeys([*alphabet, "Action:"])
    given = words() if known_words is None else known_words
    for word in (*given, *"0123456789[("):
        for form in (f" {word}", word):
            known[to_bytes.pre_tokenize_str(form)[0][0]] = None
    # A byte costs ten times what a word costs, so the fewest pieces win; specials are matched before any of this.
    scores = [(piece, -10.0 if piece in set(alphabet) else -1.0) for piece in known]
    backend = Tokenizer(models.Unigram([(name, 0.0) for name in SPECIAL] + scores, None, False))
    backend.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(PIECE, "isolated"), to_bytes]
    )
    backend.decoder = decoders.ByteLevel()
    backend.add_special_tokens(list(SPECIAL))
    fast = PreTrainedTokenizerFast(
        tokenizer_object=backend,
        pad_token=PAD,
        eos_token=END,
        additional_special_tokens=[f"<|{role}|>" for role in ROLES],
        clean_up_tokenization_spaces=False,
        model_max_length=CONTEXT,
    )
    fast.chat_template = TEMPLATE
    return fast


# ---------------------------------------------------------------------------------------------- the models

CONTEXT = 4096


@dataclass(frozen=True)
class Size:
    """Shape of a tiny model; `heads` share `shared` key-value heads, each of `head` numbers."""

    hidden: int = 128
    layers: int = 4
    heads: int = 4
    shared: int = 2
    head: int = 32
    inner: int = 384

    def __post_init__(self) -> None:
        if self.heads % self.shared:
            raise ValueError(
                f"heads={self.heads}, shared={self.shared}; give heads as a multiple of shared"
            )


def config(
    size: Size, vocabulary: int, family: type[Qwen3Config] | type[LlamaConfig] = Qwen3Config
) -> Qwen3Config | LlamaConfig:
    """A configuration of transformers' own Qwen3 (default; it normalises queries and keys) or Llama classes."""
    return family(
        vocab_size=-(-vocabulary // 64) * 64,  # whole blocks are quicker to multiply
        hidden_size=size.hidden,
        intermediate_size=size.inner,
        num_hidden_layers=size.layers,
        num_attention_heads=size.heads,
        num_key_value_heads=size.shared,
        head_dim=size.head,
        max_position_embeddings=CONTEXT,
        tie_word_embeddings=True,
        pad_token_id=SPECIAL.index(PAD),
        eos_token_id=SPECIAL.index(END),
        bos_token_id=None,
    )


def model(
    size: Size,
    vocabulary: int,
    seed: int = 0,
    family: type[Qwen3Config] | type[LlamaConfig] = Qwen3Config,
) -> PreTrainedModel:
    """A model with random weights that depend on `seed` alone; the state of torch's generator is left as it was."""
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        return AutoModelForCausalLM.from_config(config(size, vocabulary, family))
