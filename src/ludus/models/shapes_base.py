"""A base that sees: a tiny model of LLaVA's architecture, for the world of coloured shapes.

A vision tower of CLIP's, LLaVA's projector and a text model of Qwen3's, all from transformers, trained together on
scripted play. The texts are the responses in five parts of `envs.shapes`: in a `share` of them a teacher who knows what
was drawn reflects on the first attempt (some of these are wrong), in the others nobody does. That is at once what its
pre-training and what its supervised stage on reflections are made of. Afterwards tower and projector are frozen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import (
    AddedToken,
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedModel,
)

from ludus.data.render import Pictures, Renderer
from ludus.envs.small.shapes import SIDE, Shapes
from ludus.envs.world import Game, mixed, play
from ludus.models import base, tiny
from ludus.models.world_base import WorldBase
from ludus.types import Image, Key

PICTURE = "<image>"
TAGS = tuple(f"<{end}{name}>" for name in ("think", "answer", "reflection") for end in ("", "/"))
TEMPLATE = (
    "{% for message in messages %}<|{{ message['role'] }}|>"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}" + PICTURE + "{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
PATCHES = 9  # a cell each
ANSWERS = 4.0  # extra weight of an answer, which is short and takes longest to learn


@dataclass(frozen=True)
class ShapesBase(WorldBase):
    """`share` is of games in which the player knows what is drawn; see WorldBase for the other settings.

    clear  first steps, in which the player always knows: seeing is learnt from these
    eye    numbers that the vision tower keeps of a patch
    """

    turns: int = 1
    clear: int = 0
    eye: int = 48

    def __post_init__(self) -> None:
        if not isinstance(self.world, Shapes):
            raise ValueError(f"a ShapesBase plays Shapes, not {self.world.name}; take a WorldBase")

    def processor(self) -> LlavaProcessor:
        """Tokenizer, template and preparation of pictures, as transformers keeps them in one folder."""
        tokenizer = tiny.tokenizer(self.world.words())
        tokenizer.add_tokens([AddedToken(tag, normalized=False) for tag in TAGS])
        tokenizer.add_tokens([AddedToken(PICTURE, special=True, normalized=False)], True)
        tokenizer.chat_template = TEMPLATE
        side = {"height": 3 * SIDE, "width": 3 * SIDE}
        return LlavaProcessor(
            CLIPImageProcessorPil(
                size=side,
                do_center_crop=False,
                image_mean=[0.5] * 3,
                image_std=[0.25] * 3,
            ),
            tokenizer,
            patch_size=SIDE,
            vision_feature_select_strategy="default",
            chat_template=TEMPLATE,
            image_token=PICTURE,
            num_additional_image_tokens=1,  # CLIP's class token, which "default" leaves out again
        )

    def model(self, tokenizer: Any) -> PreTrainedModel:
        """From random weights that depend on `seed` alone."""
        config = LlavaConfig(
            text_config=tiny.config(self.size, len(tokenizer)),
            vision_config=CLIPVisionConfig(
                hidden_size=self.eye,
                intermediate_size=3 * self.eye,
                num_hidden_layers=1,
                num_attention_heads=2,
                image_size=3 * SIDE,
                patch_size=SIDE,
            ),
            image_token_index=tokenizer.convert_tokens_to_ids(PICTURE),
            image_seq_length=PATCHES,
            vision_feature_layer=-1,
            vision_feature_select_strategy="default",
        )
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(self.seed)
            return LlavaForConditionalGeneration(config)

    def played(self) -> Iterator[list[Game]]:
        """The games of each step."""
        tasks = self.world.tasks("train")
        for step in range(self.steps):
            player = mixed(self.world, 1.0 if step < self.clear else self.share)
            rng = (Key(self.seed) / "shapes base" / step).generator()
            chosen = rng.integers(len(tasks), size=self.games)
            games = [play(self.world, tasks[int(i)], 0, player, rng, 1) for i in chosen]
            yield asyncio.run(_in_order(games))

    def build(self, show: bool = False) -> tuple[PreTrainedModel, Any]:
        """Train it, tower and all; deterministic for one number of threads, which is set to 1 here."""
        from rich.progress import track

        from ludus.engines.local.model import CausalModel

        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            processor = self.processor()
            module = self.model(processor.tokenizer)
            tower = Learning(module.base_model, processor.image_processor)
            model = CausalModel(module, tower)  # type: ignore[arg-type]
            pictures = Pictures(
                module.config.text_config.vocab_size, PATCHES, module.config.image_token_id
            )
            renderer = Renderer(processor.tokenizer, pictures=pictures)
            movers = self._optimisers(module)
            work = track(self.played(), f"base of {self.world.name}", self.steps, disable=not show)
            for step, games in enumerate(work):
                rate = min(1.0, (step + 1) / self.warmup, 3 * (self.steps - step) / self.steps)
                loss_of(model, tower, renderer, games).backward()
                torch.nn.utils.clip_grad_norm_(module.parameters(), 1.0)
                for mover, peak in movers:
                    mover.param_groups[0]["lr"] = peak * rate
                    mover.step()
                    mover.zero_grad()
            return module.eval(), processor
        finally:
            torch.set_num_threads(threads)


async def _in_order(games: Sequence[Awaitable[Game]]) -> list[Game]:
    return [await game for game in games]


class Learning:
    """The tower while it learns: the vectors of the pictures of one step, with their gradients."""

    def __init__(self, body: Any, processor: Any) -> None:
        self.body, self.processor = body, processor
        self._seen: dict[Image, Tensor] = {}

    def look(self, images: Sequence[Image]) -> None:
        from ludus.engines.local.pictures import pixels, seen

        images = list(dict.fromkeys(images))
        found = seen(self.body, pixels(self.processor, images))
        self._seen = dict(zip(images, found, strict=True))

    def vectors(self, image: Image) -> Tensor:
        return self._seen[image]


def within(ids: np.ndarray, begin: int, end: int) -> np.ndarray:
    """[T] float32: 1 on what stands between two tokens, and on the second of them."""
    opened = np.cumsum(ids == begin) - np.cumsum(ids == end)
    return (np.concatenate([[0], opened[:-1]]) > 0).astype(np.float32)


def loss_of(model: Any, tower: Learning, renderer: Renderer, games: Sequence[Game]) -> Tensor:
    """Weighted mean of the negative log-probability of what the players said, given picture and question."""
    tower.look(
        [part for g in games for m in g.opening for part in m.content if isinstance(part, Image)]
    )
    prompts = [renderer.open(game.opening) for game in games]
    said = renderer.tokenizer([f"{game.turns[0][0]}{tiny.END}" for game in games])["input_ids"]
    ids = [
        np.concatenate([prompt.tokens, np.array(own, np.int64)])
        for prompt, own in zip(prompts, said, strict=True)
    ]
    number: Any = renderer.tokenizer.convert_tokens_to_ids
    begin, end = number("<answer>"), number("</answer>")
    weights = [
        np.where(np.arange(len(row)) < len(prompt.tokens), 0, 1 + ANSWERS * within(row, begin, end))
        for prompt, row in zip(prompts, ids, strict=True)
    ]
    inputs = {number: each for prompt in prompts for number, each in prompt.inputs.items()}
    reads = SimpleNamespace(hidden=partial(model.hidden, inputs=inputs), logp=model.logp)
    return base.loss_of(reads, ids, weights)
