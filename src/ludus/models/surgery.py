"""Model surgery: a behaviour made rarer by moving a few rows of the gate projections. arXiv:2407.08770.

    probe = fit_probe(features(model, texts), labels)
    edit = plan(gates(model.module), probe.direction(), alpha=4.0, count=35)
    apply(model.module, edit)          # and undo(model.module, edit) gives the very same bits back

A row that is opposed to the direction was shut (its SiLU near 0) where the hidden state shows the behaviour. Moved
along the direction it opens there and nowhere else: where the state is orthogonal to the direction nothing changes.
Rows that are aligned with it do the contrary, and are here to be compared with, as are rows taken at random.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

Which = Literal["opposed", "random", "aligned"]
GATE = "gate_proj.weight"


class SurgeryError(ValueError):
    """An edit that does not fit the weights it is used on."""


# ---------------------------------------------------------------------------------------------- which rows, where to


def cosines(gate: Tensor, direction: Tensor) -> Tensor:
    """Cosine of each row with the direction, cos_i = w_i v / (|w_i| |v|); a row of zeros has 0.

    Args:     gate [I,H] (intermediate rows over hidden), direction [H].
    Returns:  [I].
    """
    if gate.dim() != 2 or direction.shape != gate.shape[1:]:
        raise SurgeryError(
            f"direction has shape {list(direction.shape)} and the gate {list(gate.shape)}; "
            "give one number per column of the gate"
        )
    if not direction.any():
        raise SurgeryError("the direction is zero; it names no behaviour")
    return F.cosine_similarity(gate, direction.to(gate)[None], dim=1)


def select(
    gates: Mapping[str, Tensor],
    direction: Tensor,
    count: int,
    which: Which = "opposed",
    rng: np.random.Generator | None = None,
) -> dict[str, Tensor]:
    """The `count` rows, of all layers together, with the lowest cosine (opposed), the highest (aligned), or any.

    Args:     gates name -> [I,H], direction [H]; `rng` for random ones. The paper takes 4 x 4096 of 352,256 rows.
    Returns:  name -> indices of its rows, rising; a layer without a chosen row is left out. Ties go to the first.
    """
    score = torch.cat([cosines(gate, direction) for gate in gates.values()])
    if not 0 < count <= len(score):
        raise SurgeryError(f"count={count} of {len(score)} rows; give 1 to {len(score)}")
    if which == "random":
        if rng is None:
            raise SurgeryError("random rows want rng=Key(seed).generator()")
        chosen = torch.from_numpy(rng.choice(len(score), count, replace=False))
    else:
        chosen = score.argsort(descending=which == "aligned", stable=True)[:count]
    mine = torch.zeros(len(score), dtype=torch.bool)
    mine[chosen] = True
    parts = mine.split([len(gate) for gate in gates.values()])
    found = {name: part.nonzero()[:, 0] for name, part in zip(gates, parts, strict=True)}
    return {name: rows for name, rows in found.items() if len(rows)}


def moved(gate: Tensor, rows: Tensor, direction: Tensor, alpha: float) -> Tensor:
    """A copy of the gate [I,H] in which w_i <- w_i + alpha v for i in `rows`; with alpha 0 bit for bit the same."""
    made = gate.clone()
    if alpha:  # adding 0 would turn -0.0 into 0.0
        made[rows] += alpha * direction.to(gate)
    return made


# ---------------------------------------------------------------------------------------------- the edit of a model


@dataclass(frozen=True, eq=False)
class Edit:
    """What was done to which weights, with what they were before: enough to undo it to the last bit.

    rows    name of a matrix -> indices of its rows that move by alpha times the direction
    before  name of a matrix -> those rows as they were, [len(rows), H]
    """

    direction: Tensor
    alpha: float
    which: Which
    rows: Mapping[str, Tensor]
    before: Mapping[str, Tensor]

    @property
    def count(self) -> int:
        return sum(map(len, self.rows.values()))

    def after(self, name: str) -> Tensor:
        """The rows as the edit leaves them."""
        old = self.before[name]
        return moved(old, torch.arange(len(old)), self.direction, self.alpha)

    def save(self, folder: Path) -> None:
        """surgery.json tells it, surgery.safetensors holds what undoing needs."""
        rows = {name: rows.tolist() for name, rows in self.rows.items()}
        told = {"alpha": self.alpha, "which": self.which, "count": self.count, "rows": rows}
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "surgery.json").write_text(json.dumps(told, indent=1) + "\n")
        kept = {f"before/{name}": old.contiguous() for name, old in self.before.items()}
        save_file(
            {"direction": self.direction.contiguous(), **kept}, folder / "surgery.safetensors"
        )

    @classmethod
    def load(cls, folder: Path) -> Edit:
        told = json.loads((folder / "surgery.json").read_text())
        with safe_open(folder / "surgery.safetensors", "pt") as file:
            rows = {name: torch.tensor(rows) for name, rows in told["rows"].items()}
            before = {name: file.get_tensor(f"before/{name}") for name in rows}
            direction = file.get_tensor("direction")
        return cls(direction, told["alpha"], told["which"], rows, before)


def gates(model: nn.Module) -> dict[str, Tensor]:
    """The gate projections of a model, by name, in the order of its layers."""
    found = {name: p.detach() for name, p in model.named_parameters() if name.endswith(GATE)}
    if not found:
        raise SurgeryError(
            f"{type(model).__name__} has no {GATE}; take a model with a gated MLP, such as Llama or Qwen"
        )
    return found


def plan(
    weights: Mapping[str, Tensor],
    direction: Tensor,
    *,
    alpha: float,
    count: int,
    which: Which = "opposed",
    rng: np.random.Generator | None = None,
) -> Edit:
    """The edit of these gates, not yet applied."""
    rows = select(weights, direction, count, which, rng)
    before = {name: weights[name][index].clone() for name, index in rows.items()}
    return Edit(direction.clone(), alpha, which, rows, before)


def apply(model: nn.Module, edit: Edit) -> None:
    """Move the rows, in place. Edits may follow one another, each planned after the one before."""
    _replace(model, edit, {name: edit.before[name] for name in edit.rows}, edit.after, "made for")


def undo(model: nn.Module, edit: Edit) -> None:
    """The rows as they were, bit for bit. Of several edits the last goes first."""
    made = {name: edit.after(name) for name in edit.rows}
    _replace(model, edit, made, edit.before.__getitem__, "left by")


@torch.no_grad()
def _replace(model: nn.Module, edit: Edit, expected: Mapping[str, Tensor], new, how: str) -> None:
    weights = gates(model)
    if missing := sorted(edit.rows.keys() - weights.keys()):
        raise SurgeryError(f"the model has no {missing[0]}; the edit was made for another one")
    for name, rows in edit.rows.items():  # look at all of them before any is changed
        if not torch.equal(weights[name][rows], expected[name].to(weights[name])):
            raise SurgeryError(
                f"{name} has other rows than those {how} this edit; undo later edits first, or plan anew"
            )
    for name, rows in edit.rows.items():
        weights[name][rows] = new(name).to(weights[name])


# ---------------------------------------------------------------------------------------------- the direction


@torch.no_grad()
def features(model, rows: Sequence[np.ndarray]) -> Tensor:
    """Mean over its tokens of the last hidden layer, for each row of token ids: [len(rows), H].

    model  a ludus.engines.local.model.CausalModel
    """
    from ludus.engines.local.attention import Tree
    from ludus.engines.local.tree import pack

    packed = pack(rows)
    device = model.device
    hidden = model.hidden(
        torch.from_numpy(packed.ids)[None].to(device),
        torch.from_numpy(packed.positions)[None].to(device),
        Tree(packed.segments, device),
    )
    return torch.stack(
        [hidden[torch.from_numpy(index).to(device)].mean(0) for index in packed.index]
    )


@dataclass(frozen=True, eq=False)
class Probe:
    """A linear reader of two classes: weight [2,H], bias [2]; class 1 is the behaviour."""

    weight: Tensor
    bias: Tensor

    def direction(self, *, unit: bool = True) -> Tensor:
        """Row 1 of the weight, at length 1; or as it was learnt, which is what the release adds."""
        return F.normalize(self.weight[1], dim=0) if unit else self.weight[1].clone()

    def accuracy(self, feature: Tensor, label: Tensor) -> tuple[float, float]:
        """Share of the texts of each class [N,H], labels [N], read right. Use it only if both are high."""
        right = (F.linear(feature, self.weight, self.bias).argmax(-1) == label).float()
        return float(right[label == 0].mean()), float(right[label == 1].mean())


def fit_probe(
    feature: Tensor,
    label: Tensor,
    *,
    lr: float = 1e-4,
    epochs: int = 20,
    batch: int = 32,
    seed: int = 0,
) -> Probe:
    """Cross-entropy and Adam on features [N,H] and labels [N] in {0, 1}; the paper's 20 epochs at 1e-4."""
    if set(label.tolist()) != {0, 1}:
        raise SurgeryError(
            f"labels are {sorted(set(label.tolist()))}; give texts of both classes, 0 and 1"
        )
    generator = torch.Generator().manual_seed(seed)
    weight = torch.zeros(2, feature.shape[1], requires_grad=True)
    bias = torch.zeros(2, requires_grad=True)
    adam = torch.optim.Adam([weight, bias], lr=lr)
    feature = feature.detach().float().cpu()
    for _ in range(epochs):
        for index in torch.randperm(len(feature), generator=generator).split(batch):
            loss = F.cross_entropy(F.linear(feature[index], weight, bias), label[index])
            adam.zero_grad()
            loss.backward()
            adam.step()
    return Probe(weight.detach(), bias.detach())
