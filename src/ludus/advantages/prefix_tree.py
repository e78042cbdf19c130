"""Token credit from the prefix tree of a group: the value of a prefix is the mean reward below it.

TEMPO, arXiv:2509.18314. Answers that begin alike share a prefix; where they part, the mean reward
of those that go one way may differ from the mean before, and the token that chose the way is
credited with the change. No critic and no further sampling.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from ludus.advantages.compact import Compact, compact
from ludus.advantages.credit import Stateless
from ludus.advantages.relative import Alone, relative
from ludus.tensors import check_vectors, constant, total
from ludus.types import Batch, Credited


def prefix_td(
    tokens: Tensor, reward: Tensor, group: Tensor, *, scored: Tensor | None = None
) -> Tensor:
    """V(s_{t+1}) - V(s_t): by how much each token changed the mean reward of its group's prefix.

        D(s) = rollouts of the group that begin with s,   V(s) = mean reward over D(s)

    Exactly 0 where nobody parts, and on all tokens of a rollout that is alone on its branch. Over a
    rollout the terms sum to V(whole answer) - mean_g, and over the members of a prefix that all
    continue to 0. Prefixes are told apart by comparing ids, never by text or by a hash. Cost: one
    pass over the tokens that are still shared.

    Args:     tokens [R,N] ids, -1 behind the end of an answer (the end token itself belongs to it:
              stopping is a choice), reward [R], group [R], scored [R] bool; a rollout lost to a
              fault is in no D.
    Returns:  [R,N] float64, 0 behind the end and for rollouts lost to faults.
    """
    _check(tokens, reward, group)
    rows = torch.arange(len(reward), device=reward.device)
    if scored is not None:
        rows = rows[scored]
    _, node = group[rows].unique(return_inverse=True)
    value, count = _means(reward[rows].double(), node)
    td = torch.zeros(tokens.shape, dtype=torch.float64, device=tokens.device)
    size = int(tokens.max()) + 1 if tokens.numel() else 0
    for t in range(tokens.shape[1]):
        shared = (count > 1) & (tokens[rows, t] >= 0)
        rows, node, value, count = rows[shared], node[shared], value[shared], count[shared]
        if not len(rows):
            break
        _, node = (node * size + tokens[rows, t]).unique(return_inverse=True)
        before, many = value, count
        value, count = _means(reward[rows].double(), node)
        td[rows, t] = (value - before).masked_fill(count == many, 0.0)
    return td


def tempo(
    tokens: Tensor,
    reward: Tensor,
    group: Tensor,
    *,
    scale: Literal["none", "group"] = "group",
    eps: float = 1e-6,
    scored: Tensor | None = None,
    alone: Alone = "zero",
) -> Tensor:
    """A_t = (r - mean_g + V(s_{t+1}) - V(s_t)) / (std_g + eps). TEMPO, arXiv:2509.18314.

    std_g is that of the rewards, ddof 1; scale="none" leaves the division out. Without a shared
    token this is GRPO, but for the first token, which gets twice GRPO's number.

    Args:     as `prefix_td`; alone as in `relative`: what a group of one gets.
    Returns:  [R,N] of the dtype of reward, 0 behind the end and for rollouts lost to faults.
    """
    td = prefix_td(tokens, reward, group, scored=scored)
    centred = relative(
        reward.double(), group, centre="group", scale="none", scored=scored, alone=alone
    )
    advantage = centred[:, None] + td
    if scale == "group":
        kept = torch.ones_like(group, dtype=torch.bool) if scored is None else scored
        names, member = group.unique(return_inverse=True)
        count = total(kept.double(), member, len(names))
        square = total(centred**2 * kept, member, len(names))
        deviation = (square / (count - 1).clamp(min=1)).sqrt()
        deviation = deviation.where((count > 1) & (deviation > 0), 1.0)  # nothing to divide
        advantage = advantage / (deviation + eps)[member][:, None]
    return advantage.masked_fill(tokens < 0, 0.0).to(reward.dtype)


@dataclass(frozen=True)
class Tempo(Stateless):
    """TEMPO on a batch: each rollout is walked from the first token that the policy wrote to its end.

    What the environment said is part of a prefix: after the same actions, another observation is
    another state. Its own change of value is luck, and nobody is credited with it. A rollout of
    several contexts is their sequence, and where a context opens is part of the prefix too.

    scale, eps  as in `tempo`
    """

    scale: Literal["none", "group"] = "group"
    eps: float = 1e-6
    needs: tuple[str, ...] = ("group", "one prompt")

    def __call__(self, batch: Batch) -> Credited:
        tokens, place = answers(batch)
        advantage = tempo(
            tokens,
            batch.reward,
            batch.group,
            scale=self.scale,
            eps=self.eps,
            scored=batch.scored,
        )
        return Credited(place.scatter(advantage) * batch.mask)


def answers(batch: Batch) -> tuple[Tensor, Compact]:
    """What followed the first choice of each rollout, as one sequence: ids [R,N], and where they stand.

    Chosen is where `turn` is 0 or more: in a tree, a shared token is trained in one row (`mask`)
    and belongs to the prefix in all. Rollouts without a row are empty. The first token of a context
    gets an id of its own, so that "a b" and then "c" in a new context is not "a b c".
    """
    chosen, real = batch.turn >= 0, batch.lengths_mask()
    whole = compact(real, batch.rollout)
    begun = whole.scatter(whole.gather(chosen.long()).cumsum(1)) > 0
    place = compact(begun & real, batch.rollout)
    ids = batch.tokens.clone()
    if ids.numel():
        ids[:, 0] += int(ids.max()) + 1
    found = place.gather(ids + 1) - 1
    tokens = found.new_full((len(batch.reward), found.shape[1]), -1)
    tokens[: len(found)] = found
    return tokens, place


def _means(value: Tensor, index: Tensor) -> tuple[Tensor, Tensor]:
    """[N], [N] -> mean and number of the values of the same index, each [N]; exact where all are equal."""
    size = int(index.max()) + 1 if len(index) else 0
    count = total(torch.ones_like(value), index, size)
    mean = total(value, index, size) / count.clamp(min=1)
    return torch.where(constant(value, index, size)[index], value, mean[index]), count[index]


def _check(tokens: Tensor, reward: Tensor, group: Tensor) -> None:
    check_vectors("reward", reward, group=group)
    if tokens.dim() != 2 or len(tokens) != len(reward) or tokens.is_floating_point():
        raise ValueError(
            f"tokens has shape {list(tokens.shape)} and dtype {tokens.dtype}, reward has shape {list(reward.shape)}; "
            "give integer ids [R,N], one row per reward, -1 behind the end"
        )
    gaps = ((tokens[:, 1:] >= 0) & (tokens[:, :-1] < 0)).nonzero()
    if len(gaps):
        row, t = gaps[0].tolist()
        raise ValueError(
            f"answer {row} has padding before its token {t + 1}; give ids from the first on, -1 only behind the end"
        )
