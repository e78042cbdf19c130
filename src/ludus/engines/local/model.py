"""A transformers causal language model, seen as the two functions that sampling and learning need.

`hidden` runs the body over packed tokens; `logits` (or `linear_logprob`) is the head. Everything that models do to
their logits on the way out (bias, scale, soft cap) is stated here once.
"""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedModel,
)
from transformers.models.auto.modeling_auto import (
    MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
    MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES,
)
from transformers.utils import logging

from ludus.data.render import Pictures
from ludus.engines.local import attention
from ludus.engines.local.packed import policy
from ludus.engines.local.pictures import SERVED, Tower
from ludus.models.linear_logprob import linear_logprob
from ludus.models.mean_logprob import mean_logprob
from ludus.types import Batch, Inputs, Patch


class CausalModel:
    """Any transformers causal LM whose attention can be chosen (`_supports_attention_backend`).

    tower  what looks at pictures, for a model that reads them
    """

    def __init__(self, model: PreTrainedModel, tower: Tower | None = None) -> None:
        if not getattr(model, "_supports_attention_backend", False):
            raise NotImplementedError(
                f"{type(model).__name__} does not let its attention be chosen, which the local engine needs; "
                "use --engine vllm, or a model such as Qwen, Llama, Mistral or Gemma"
            )
        # a vision tower keeps its own attention: every part of a picture sees every other
        body: Any = model.base_model
        getattr(body, "language_model", model).set_attn_implementation(attention.NAME)
        self.module = model
        self.tower = tower
        self.text = model.config.get_text_config()
        head = model.get_output_embeddings()
        if head is None:
            raise ValueError(f"{type(model).__name__} has no output embeddings: not a causal LM")
        self.head: Any = head
        #: what the body is computed in; weights stay float32, so that small updates are not rounded away
        fast = model.device.type == "cuda" and torch.cuda.is_bf16_supported()
        self.compute = torch.bfloat16 if fast else torch.float32

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def max_length(self) -> int:
        return int(getattr(self.text, "max_position_embeddings", None) or 1 << 20)

    def cache_shape(self) -> tuple[int, int, int]:
        """(layers, key-value heads, head dimension)."""
        text = self.text
        heads = text.num_attention_heads
        dim = getattr(text, "head_dim", None) or text.hidden_size // heads
        return text.num_hidden_layers, getattr(text, "num_key_value_heads", None) or heads, dim

    def hidden(
        self, ids: Tensor, positions: Tensor, plan: object, inputs: Inputs | None = None
    ) -> Tensor:
        """[1,N] packed ids and positions -> [N,H] last hidden states; `inputs` where ids lie beyond the vocabulary."""
        reads = {"inputs_embeds": self.embed(ids, inputs)} if inputs else {"input_ids": ids}
        mixed = torch.autocast(ids.device.type, self.compute, self.compute is not torch.float32)
        with mixed:
            out = self.module.base_model(
                **reads, position_ids=positions, use_cache=False, plan=plan
            )
        return out.last_hidden_state[0]

    def embed(self, ids: Tensor, inputs: Inputs) -> Tensor:
        """[1,N] -> [1,N,H]: embeddings of tokens, and what the numbers beyond the vocabulary stand for."""
        table: Any = self.module.get_input_embeddings()
        beyond = ids[0] >= table.num_embeddings
        embedded = table(ids.masked_fill(beyond, 0))
        if not bool(beyond.any()):
            return embedded
        vectors = [self.vector(inputs[number]) for number in ids[0][beyond].tolist()]
        read = torch.stack(vectors).to(embedded)
        return embedded.masked_scatter(beyond[None, :, None], read)

    def vector(self, given: np.ndarray | Patch) -> Tensor:
        """[H]: what the body reads for an input that is no token."""
        if not isinstance(given, Patch):
            return torch.from_numpy(given)
        if self.tower is None:
            raise NotImplementedError(
                f"{type(self.module).__name__} reads no pictures; take a model with a vision tower, of type "
                f"{' or '.join(SERVED)}"
            )
        return self.tower.vectors(given.image)[given.index]

    @cached_property
    def pictures(self) -> Pictures | None:
        """What a renderer has to know to show pictures to this model; None if it reads text alone."""
        return None if self.tower is None else self.tower.told()

    @property
    def stops(self) -> tuple[int, ...]:
        """Ids that end a turn, as its generation_config.json names them; a template may know fewer."""
        config = self.module.generation_config
        ends = None if config is None else config.eos_token_id
        return (ends,) if isinstance(ends, int) else tuple(ends or ())

    def copy(self) -> CausalModel:
        """The same model with weights of its own."""
        module = copy.deepcopy(self.module)
        return CausalModel(module, self.tower and Tower(module, self.tower.processor))

    def save(self, folder: str | Path) -> None:
        """As a transformers folder: weights, config, and how pictures are prepared. The tokenizer goes beside it."""
        self.module.save_pretrained(folder)
        if self.tower is not None:
            self.tower.processor.save_pretrained(folder)

    @property
    def _scale(self) -> float:
        if getattr(self.text, "logit_scale", None):  # Cohere
            return float(self.text.logit_scale)
        return 1.0 / float(getattr(self.text, "logits_scaling", None) or 1.0)  # Granite

    @property
    def _cap(self) -> float | None:
        return getattr(self.text, "final_logit_softcapping", None)  # Gemma

    def logits(self, hidden: Tensor) -> Tensor:
        """[N,H] -> [N,V] in float32."""
        hidden = hidden.to(self.head.weight.dtype)
        z = nn.functional.linear(hidden, self.head.weight, self.head.bias).float() * self._scale
        return self._cap * torch.tanh(z / self._cap) if self._cap else z

    def logp(
        self, hidden: Tensor, targets: Tensor, temperature: float = 1.0, entropy: bool = False
    ) -> tuple[Tensor, Tensor | None]:
        """Log-probability [N] of `targets` [N], and the entropy [N] if wanted; [N,V] never exists at once."""
        return linear_logprob(
            hidden.to(self.head.weight.dtype),
            self.head.weight,
            targets,
            bias=self.head.bias,
            temperature=temperature,
            softcap=self._cap,
            scale=self._scale,
            entropy=entropy,
        )

    @torch.no_grad()
    def mean_logp(self, hidden: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean over the vocabulary of the log-probabilities after each of `hidden` [N,H]: [N], without gradient."""
        return mean_logprob(
            hidden.to(self.head.weight.dtype),
            self.head.weight,
            bias=self.head.bias,
            temperature=temperature,
            softcap=self._cap,
            scale=self._scale,
        )

    def measure(self, batch: Batch, now: Collection[str] = ()) -> tuple[Tensor, dict[str, Tensor]]:
        """Log-probability [B,T] of each masked token, and what else is asked; see `packed.policy`."""
        return policy(self, batch, now)


def load(name: str | Path, *, device: str = "auto") -> tuple[CausalModel, Any]:
    """A model in float32 and its tokenizer, from a directory or a hub name; with its vision tower, if it has one."""
    where = Path(name)
    if isinstance(name, Path) or where.exists():
        if not (where / "config.json").exists():
            raise FileNotFoundError(
                f"{name} is no model folder: it has no config.json; "
                f"save one with model.save_pretrained({str(name)!r})"
            )
        files = ("tokenizer.json", "tokenizer_config.json", "vocab.json", "tokenizer.model")
        if not any((where / file).exists() for file in files):
            raise FileNotFoundError(
                f"{name} has a model but no tokenizer; save it beside the weights with "
                f"tokenizer.save_pretrained({str(name)!r})"
            )
    logging.disable_progress_bar()  # it would tear our own
    tokenizer = AutoTokenizer.from_pretrained(name)
    kind = AutoConfig.from_pretrained(name).model_type
    if kind in SERVED:
        model = AutoModelForImageTextToText.from_pretrained(name, dtype=torch.float32)
        processor = AutoProcessor.from_pretrained(name).image_processor
    else:
        if (
            kind in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES
            and kind not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
        ):
            raise NotImplementedError(
                f"{name} is a model of type {kind!r}, whose pictures the local engine cannot read (see "
                f"ludus.engines.local.pictures for why); take one of type {' or '.join(SERVED)}, or a text model"
            )
        model, processor = AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32), None
    model.to(pick_device(device))  # type: ignore[arg-type]
    model.eval()
    return CausalModel(model, Tower(model, processor) if processor else None), tokenizer


def pick_device(device: str = "auto") -> torch.device:
    """CUDA if there is one, then MPS, then the CPU; or the one that was asked for."""
    if device != "auto":
        return torch.device(device)
    if torch.cuda.is_available():
        return torch.device("cuda")
    return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
