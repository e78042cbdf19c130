"""Pictures to the vectors that a model's body reads: its vision tower and its projector, frozen.

Frozen, as the papers train: the vectors of a picture are then constants, computed once and kept while it is in use.

Of transformers' models with a vision tower, LLaVA's is served: it makes the same number of vectors of every picture,
reads them as it reads embeddings, and counts positions one by one. Others do more than that for a picture: Qwen2-VL and
its successors give it positions in three dimensions (M-RoPE), Gemma 3 lets its parts see each other both ways, Qwen3-VL
adds to the hidden states of later layers. The contexts of the local engine are rows of numbers with one position each,
compared and cached as such, and carry none of this; such a model is refused by name.
"""

from __future__ import annotations

import io
from collections import OrderedDict
from typing import Any

import PIL.Image
import torch
from torch import Tensor
from transformers import PreTrainedModel

from ludus.data.render import Pictures
from ludus.types import Image

SERVED = ("llava",)
KEPT = 4096  # pictures whose vectors are kept


class Tower:
    """The vectors of pictures, for one model.

    model      of a type in SERVED; its vision tower and projector learn no more
    processor  transformers' image processor of the model: a picture to numbers of a fixed shape
    """

    def __init__(self, model: PreTrainedModel, processor: Any) -> None:
        if model.config.model_type not in SERVED:
            raise NotImplementedError(
                f"{type(model).__name__} ({model.config.model_type}) does more for a picture than to read vectors in "
                "the place of embeddings, such as positions in three dimensions, and the local engine's contexts do "
                f"not carry that; take a model of type {' or '.join(SERVED)}"
            )
        self.processor = processor
        self.body: Any = model.base_model
        for part in (self.body.vision_tower, self.body.multi_modal_projector):
            part.requires_grad_(False)
        self._kept: OrderedDict[tuple[bytes, int], Tensor] = OrderedDict()

    def told(self) -> Pictures:
        """What a renderer has to know; a blank picture is looked at for it."""
        blank = io.BytesIO()
        PIL.Image.new("RGB", (64, 64)).save(blank, "PNG")
        table = self.body.get_input_embeddings()
        return Pictures(
            vocabulary=table.num_embeddings,
            vectors=len(self.vectors(Image(blank.getvalue()))),
            placeholder=self.body.config.image_token_id,
        )

    def vectors(self, image: Image) -> Tensor:
        """[K,H] of one picture, in float32 and without a gradient."""
        # weights that are loaded are all loaded, so how often one of them was written names them all
        name = (image.data, next(self.body.multi_modal_projector.parameters())._version)
        if name not in self._kept:
            # no inference mode here, even inside the sampler's: the learner reads the same vectors
            with torch.inference_mode(False), torch.no_grad():
                made = seen(self.body, pixels(self.processor, [image]))[0]
            self._kept[name] = made
            if len(self._kept) > KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(name)
        return self._kept[name]


def pixels(processor: Any, images: list[Image]) -> Tensor:
    """[N,3,height,width]: encoded pictures as the image processor prepares them."""
    opened = [PIL.Image.open(io.BytesIO(image.data)).convert("RGB") for image in images]
    return processor(images=opened, return_tensors="pt")["pixel_values"]


def seen(body: Any, pixels: Tensor) -> list[Tensor]:
    """Of each picture [3,height,width] its vectors [K,H]; differentiable where the tower learns."""
    weight = next(body.vision_tower.parameters())
    return list(
        body.get_image_features(pixel_values=pixels.to(weight), return_dict=True).pooler_output
    )
