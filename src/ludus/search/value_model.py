"""The value of a text in any state of completion: a language model with one number on top, by regression.

ReST-RL, arXiv:2508.19576: the policy's backbone, mean squared error to the targets of a tree (`mcts.values`). The
model is transformers' own sequence classifier with one label; the number is read at the last token, which is found by
the length: a policy may pad with a token that its texts have too, the end of a turn say.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import mse_loss
from transformers import AutoModelForSequenceClassification, PreTrainedModel

from ludus.types import Key


class ValueModel:
    """Starts from a copy of a causal model's body; the head is drawn by `seed`.

    Args:  length: tokens of a context that are read; of a longer one the last.
    """

    def __init__(self, policy: PreTrainedModel, *, seed: int = 0, length: int = 2048) -> None:
        config = copy.deepcopy(policy.config)
        config.num_labels = 1
        with torch.random.fork_rng(devices=()):
            torch.manual_seed(seed)
            self.module = AutoModelForSequenceClassification.from_config(
                config, attn_implementation="sdpa"
            )
        self.module.base_model.load_state_dict(policy.base_model.state_dict())
        self.module.to(policy.device).eval()
        self.device, self.length, self.seed = policy.device, length, seed

    def fit(
        self,
        contexts: Sequence[np.ndarray],
        targets: Sequence[float],
        *,
        lr: float,
        epochs: int = 2,
        rows: int = 64,
    ) -> list[float]:
        """The mean squared error of each update, `rows` contexts each, in an order drawn anew each epoch."""
        if not contexts or len(contexts) != len(targets):
            raise ValueError(
                f"{len(contexts)} contexts came with {len(targets)} targets; give one for each"
            )
        adam = torch.optim.AdamW(self.module.parameters(), lr, weight_decay=0.0)
        wanted, errors = torch.tensor(targets, dtype=torch.float32), []
        self.module.train()
        for epoch in range(epochs):
            order = Key(self.seed, ("value", epoch)).generator().permutation(len(contexts))
            for first in range(0, len(order), rows):
                part = order[first : first + rows]
                said = self._read([contexts[i] for i in part])
                loss = mse_loss(said, wanted[torch.from_numpy(part)].to(self.device))
                loss.backward()
                torch.nn.utils.clip_grad_norm_(self.module.parameters(), 1.0)
                adam.step()
                adam.zero_grad()
                errors.append(float(loss.detach()))
        self.module.eval()
        return errors

    @torch.no_grad()
    def __call__(self, contexts: Sequence[np.ndarray], *, rows: int = 256) -> list[float]:
        """A number in [0, 1] for each context of token ids."""
        parts = (contexts[first : first + rows] for first in range(0, len(contexts), rows))
        return [v for part in parts for v in self._read(part).clamp(0, 1).tolist()]

    def _read(self, contexts: Sequence[np.ndarray]) -> Tensor:
        cut = [torch.from_numpy(context[-self.length :]) for context in contexts]
        ids = torch.nn.utils.rnn.pad_sequence(cut, batch_first=True).to(self.device)
        lengths = torch.tensor([len(row) for row in cut], device=self.device)[:, None]
        real = torch.arange(ids.shape[1], device=self.device) < lengths
        hidden = self.module.base_model(input_ids=ids, attention_mask=real).last_hidden_state
        return self.module.score(hidden)[..., 0].gather(1, lengths - 1)[:, 0]
