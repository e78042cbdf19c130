"""The local learner: packed, prefix-shared gradients, cut into passes of a token budget without changing the result.

Every token's share of the loss is counted over the whole update before it is cut (`token_weights`), so the gradient
does not depend on the number of passes. Log-probabilities come from hidden states in chunks: no [T,V] ever exists.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers.modeling_layers import GradientCheckpointingLayer

from ludus.engines.local.model import CausalModel
from ludus.engines.local.packed import hidden_before, passes, policy, scatter
from ludus.losses.kl import k3
from ludus.losses.objective import Objective
from ludus.losses.value import clipped_value
from ludus.models.heads import ScalarHead
from ludus.types import Batch, Key, Optim, Probe


class Critic(nn.Module):
    """A value for every token: its own copy of the policy's body, and a scalar head."""

    def __init__(self, model: CausalModel) -> None:
        super().__init__()
        self.body = model.copy()
        self.module = self.body.module  # registered, so that parameters() and state_dict() see it
        self.head = ScalarHead(self.body.text.hidden_size).to(model.device)

    def forward(self, batch: Batch) -> Tensor:
        """[B,T]: the value of the state in which each masked token was chosen."""
        hidden, _ = hidden_before(self.body, batch)
        return scatter(self.head(hidden).float(), batch.mask)


class LocalLearner:
    """Owns the policy's weights, and the frozen reference and the critic where the recipe needs them.

    Args:
        model:      the policy; the sampler may share it.
        objective:  what an update minimises.
        probes:     name -> what to measure before an update, for `Batch.probes`.
        reference:  frozen weights for `Batch.ref_logp`; True keeps a copy of the first ones.
        critic:     keep and train a critic, for `Batch.value`.
    """

    def __init__(
        self,
        model: CausalModel,
        objective: Objective,
        optim: Optim,
        *,
        reference: bool | CausalModel = False,
        critic: bool = False,
        probes: Mapping[str, Probe] | None = None,
        seed: int = 0,
    ) -> None:
        self.model, self.objective, self.optim = model, objective, optim
        self.probes = dict(probes or {})
        self.key = Key(seed, ("learner",))
        self.steps = 0
        if optim.checkpointing:
            model.module.gradient_checkpointing_enable({"use_reentrant": False})
        self.reference = model.copy() if reference is True else (reference or None)
        if self.reference is not None:
            self.reference.module.requires_grad_(False)
        self.critic = Critic(model) if critic else None
        self.restart()

    def restart(self) -> None:
        """Forget what the optimisers remember; the weights stay."""
        self._adam = _adam(self.model.module.parameters(), self.optim.lr, self.optim)
        self._critic_adam = (
            _adam(self.critic.parameters(), self.optim.critic_lr, self.optim)
            if self.critic
            else None
        )

    @torch.no_grad()
    def annotate(self, batch: Batch, needs: Sequence[str] = ()) -> Batch:
        """Fill what credit and loss need: ref_logp, value, probes; old_logp if asked for or if no sampler gave it."""
        changes: dict[str, Any] = {}
        if "old_logp" in needs or (batch.external is not None and bool(batch.external.any())):
            changes["old_logp"] = self._everywhere(batch, lambda part: policy(self.model, part)[0])
        if self.reference is not None:
            reference = self.reference
            changes["ref_logp"] = self._everywhere(batch, lambda part: policy(reference, part)[0])
        if self.critic is not None:
            changes["value"] = self._everywhere(batch, self.critic)
        if self.probes:
            changes["probes"] = {
                name: self._everywhere(batch, partial(probe, self.model))
                for name, probe in self.probes.items()
            }
        return replace(batch, **changes)

    def update(self, batch: Batch) -> dict[str, float]:
        """All optimiser steps for one batch with its advantages; the mean of what they report."""
        self.steps += 1
        reports = [report for part in self._minibatches(batch) if (report := self._step(part))]
        if not reports:
            return {"skipped": 1.0}
        return {name: float(np.mean([report[name] for report in reports])) for name in reports[0]}

    def gradients(self, batch: Batch) -> dict[str, float]:
        """Add the gradient of one batch to the parameters, without a step.

        Returns means over the tokens that taught something, and nothing where there are none. `loss` is whole.
        """
        weights = self.objective.weights(batch)
        teaching = self._teaching(batch, weights)
        seen = int(batch.mask[teaching].sum())
        totals: dict[str, float] = {}
        for rows in passes(batch, self.optim.pass_tokens, teaching):
            part = batch.rows(rows).to(self.model.device)
            cut = tuple(w[rows, : part.tokens.shape[1]].to(self.model.device) for w in weights)
            with self._checkpointed():
                sums = self._policy_gradient(part, cut, seen) if self._policy_learns else {}
                if self.critic is not None:
                    sums["value_loss"] = self._value_gradient(self.critic, part, cut[0])
            for name, value in sums.items():
                totals[name] = totals.get(name, 0.0) + float(value.detach())
        return totals

    @contextmanager
    def _checkpointed(self) -> Iterator[None]:
        """transformers checkpoints a layer while it trains; what it holds does not train, so no dropout."""
        bodies = [self.model.module, *([self.critic.module] if self.critic else [])]
        layers = [
            layer
            for body in bodies
            for layer in body.modules()
            if self.optim.checkpointing and isinstance(layer, GradientCheckpointingLayer)
        ]
        try:
            for layer in layers:
                layer.training = True
            yield
        finally:
            for layer in layers:
                layer.training = False

    def _value_gradient(self, critic: Critic, part: Batch, weight: Tensor) -> Tensor:
        assert part.value is not None and part.returns is not None
        clip = self.optim.critic_clip
        each = clipped_value(critic(part), part.value, part.returns, part.mask, clip=clip)
        loss = (each * weight).sum()
        loss.backward()
        return loss

    def _policy_gradient(
        self, part: Batch, weights: tuple[Tensor, ...], seen: int
    ) -> dict[str, Tensor]:
        logp, now = policy(self.model, part, self.objective.now | {"entropy"})
        loss = self.objective(logp, now, part, weights)
        loss.backward()
        old = part.logp if part.old_logp is None else part.old_logp
        own = part.mask if part.external is None else part.mask & ~part.external
        sums = {
            "loss": loss,
            "entropy": now["entropy"][part.mask].sum() / seen,
            "kl_old": k3(logp, old, own).sum() / seen,
        }
        if part.ref_logp is not None:
            sums["kl_ref"] = k3(logp, part.ref_logp, part.mask).sum() / seen
        return sums

    @property
    def _policy_learns(self) -> bool:
        return self.steps > self.optim.critic_alone or not self.optim.critic_alone

    def _teaching(self, batch: Batch, weights: tuple[Tensor, ...]) -> Tensor:
        """[B] bool: rows that can send a gradient. In a group of equal rewards every advantage is 0."""
        weighed = torch.stack([(weight != 0).any(1) for weight in weights]).any(0)
        if self.objective.teaches_all or self.critic is not None:
            return weighed
        assert batch.advantage is not None
        return weighed & (batch.advantage != 0).any(1)

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, as nested dicts of tensors and numbers."""
        state: dict[str, Any] = {
            "steps": self.steps,
            "model": self.model.module.state_dict(),
            "adam": self._adam.state_dict(),
        }
        if self.reference is not None:
            state["reference"] = self.reference.module.state_dict()
        if self.critic is not None and self._critic_adam is not None:
            state["critic"] = self.critic.state_dict()
            state["critic_adam"] = self._critic_adam.state_dict()
        return state

    def load(self, state: Mapping[str, Any]) -> None:
        self.steps = state["steps"]
        self.model.module.load_state_dict(state["model"])
        self._adam.load_state_dict(state["adam"])
        if self.reference is not None:
            self.reference.module.load_state_dict(state["reference"])
        if self.critic is not None and self._critic_adam is not None:
            self.critic.load_state_dict(state["critic"])
            self._critic_adam.load_state_dict(state["critic_adam"])

    def _step(self, batch: Batch) -> dict[str, float]:
        totals = self.gradients(batch)
        if not totals:
            return totals
        if self._policy_learns:
            totals["grad_norm"] = self._move(self._adam, self.optim.lr)
        if self._critic_adam is not None:
            self._move(self._critic_adam, self.optim.critic_lr)
        return totals

    def _move(self, adam: torch.optim.Optimizer, lr: float) -> float:
        """One optimiser step at the scheduled rate; returns the norm before clipping. A norm of NaN moves nothing."""
        parameters = [p for group in adam.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.optim.max_norm)
        risen = min(1.0, self.steps / self.optim.warmup) if self.optim.warmup else 1.0
        for group in adam.param_groups:
            group["lr"] = lr * risen
        if bool(torch.isfinite(norm)):
            adam.step()
        adam.zero_grad(set_to_none=True)
        return float(norm)

    def _minibatches(self, batch: Batch) -> Iterator[Batch]:
        groups = batch.group.unique()
        count = min(self.optim.updates, len(groups))
        of_row = batch.group[batch.rollout]
        rng = (self.key / self.steps).generator()
        for _ in range(self.optim.epochs):
            if count <= 1:
                yield batch
                continue
            order = torch.from_numpy(rng.permutation(len(groups)))
            for part in order.tensor_split(count):
                yield batch.rows(torch.isin(of_row, groups[part]).nonzero()[:, 0])

    def _everywhere(self, batch: Batch, compute: Any) -> Tensor:
        """[B,T] of a function of parts of the batch, computed pass by pass."""
        out = torch.zeros(batch.tokens.shape)
        for rows in passes(batch, self.optim.pass_tokens, batch.mask.any(1)):
            part = compute(batch.rows(rows).to(self.model.device)).cpu()
            out[rows, : part.shape[1]] = part.float()
        return out.to(batch.logp.device)


def _adam(parameters: Iterable[nn.Parameter], lr: float, optim: Optim) -> torch.optim.AdamW:
    trained = [p for p in parameters if p.requires_grad]
    return torch.optim.AdamW(
        trained, lr=lr, betas=optim.betas, weight_decay=optim.weight_decay, fused=True
    )
