"""What a repair is to reach: given errors become right, and answers that were right stay as they were."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.func import functional_call
from torch.nn import functional as F

from sparselit.circuits.criterion import divergence
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place

#: Logits by which a repaired answer is to beat every other token, so that unseen errors of the kind are repaired too.
MARGIN = 2.0


def joined(parts: Sequence[Examples]) -> Examples:
    """Examples one after the other, padded with token 0 to one width."""
    width = max(part.tokens.shape[1] for part in parts)

    def wide(tokens: Tensor) -> Tensor:
        return F.pad(tokens, (0, width - tokens.shape[1]))

    padded = [part._replace(tokens=wide(part.tokens), corrupted=wide(part.corrupted)) for part in parts]
    return Examples(*(torch.cat(fields) for fields in zip(*padded, strict=True)))


def lead(logits: Tensor, answer: Tensor) -> Tensor:
    """By how much each answer's logit is above every other token's (example,); negative where it is wrong."""
    others = logits.scatter(1, answer[:, None], -torch.inf).amax(1)
    return logits.gather(1, answer[:, None])[:, 0] - others


@dataclass(frozen=True)
class Cases:
    """What a repair is fitted to.

    Attributes:
        wrong: prompts that the model answers wrongly.
        right: prompts whose answers are to stay.
    """

    wrong: Examples
    right: Examples


class Objective:
    """The loss of a repair, in nats: how far errors are from being repaired, plus how far other answers have moved.

    Args:
        model: as it is.
        cases: what to repair, and what to keep.
        keep: weight of what is to stay.
    """

    def __init__(self, model: Transformer, cases: Cases, keep: float = 1.0) -> None:
        self.model, self.cases, self.keep = model, cases, keep
        self.base = dict(model.named_parameters())
        self._both, self._n = joined([cases.wrong, cases.right]), len(cases.wrong.answer)
        with torch.no_grad():
            self._before = self.logits({})[self._n :].detach()

    def logits(self, changed: Mapping[str, Tensor]) -> Tensor:
        """Answer logits (example, vocabulary) on wrong prompts, then right ones, with some tensors exchanged."""
        logits: Tensor = functional_call(
            self.model, {**self.base, **changed}, (self._both.tokens, self._both.length - 1), tie_weights=False
        )
        return logits

    def loss(self, changed: Mapping[str, Tensor]) -> Tensor:
        """The loss with some tensors exchanged."""
        logits, n = self.logits(changed), self._n
        missing = F.softplus(MARGIN - lead(logits[:n], self.cases.wrong.answer)).mean()
        kept = divergence(logits[n:], self.cases.right, self._before).mean()
        return missing + self.keep * kept

    @torch.no_grad()
    def repaired(self, changed: Mapping[str, Tensor]) -> float:
        """Share of the errors that are right with some tensors exchanged."""
        return self._right(changed)[0]

    @torch.no_grad()
    def reached(self, changed: Mapping[str, Tensor]) -> bool:
        """Whether every error is right with some tensors exchanged, and everything that was right still is."""
        return min(self._right(changed)) == 1

    def _right(self, changed: Mapping[str, Tensor]) -> tuple[float, float]:
        """Shares of the errors, and of the right prompts, that are right."""
        logits, n = self.logits(changed), self._n
        parts = ((logits[:n], self.cases.wrong), (logits[n:], self.cases.right))
        wrong, right = (float((lead(x, one.answer) > 0).double().mean()) for x, one in parts)
        return wrong, right


class Entries:
    """Some entries of a model's tensors as one vector.

    Args:
        model: whose tensors.
        places: parameter, row and column of each entry.
    """

    def __init__(self, model: Transformer, places: Sequence[Place]) -> None:
        self.places = list(places)
        self._base = {name: model.get_parameter(name).detach() for name, _, _ in places}
        self._where: dict[str, tuple[list[int], list[int]]] = {}
        for i, (name, row, column) in enumerate(places):
            width = self._base[name].numel() // len(self._base[name])
            flat, number = self._where.setdefault(name, ([], []))
            flat.append(row * width + column)
            number.append(i)

    @property
    def values(self) -> Tensor:
        """Their values (entry,)."""
        found = torch.empty(len(self.places), dtype=next(iter(self._base.values())).dtype)
        for name, (flat, number) in self._where.items():
            found[number] = self._base[name].flatten()[flat]
        return found

    @property
    def scale(self) -> Tensor:
        """The largest size of an entry of each one's tensor (entry,), at least a small number."""
        most = {name: max(float(tensor.abs().max()), 1e-3) for name, tensor in self._base.items()}
        return torch.tensor([most[name] for name, _, _ in self.places])

    def tensors(self, values: Tensor) -> dict[str, Tensor]:
        """The tensors with other values (entry,) at the entries; differentiable."""
        return {
            name: self._base[name]
            .flatten()
            .index_put((torch.tensor(flat),), values[number])
            .view(self._base[name].shape)
            for name, (flat, number) in self._where.items()
        }

    def of(self, gradients: Mapping[str, Tensor]) -> Tensor:
        """The entries (entry,) of tensors in the shape of the model's."""
        found = torch.zeros(len(self.places))
        for name, (flat, number) in self._where.items():
            found[number] = gradients[name].flatten()[flat]
        return found

    def model(self, model: Transformer, values: Tensor) -> Transformer:
        """A copy of the model with other values (entry,) at the entries."""
        return with_tensors(model, self.tensors(values.detach()))


def with_tensors(model: Transformer, tensors: Mapping[str, Tensor]) -> Transformer:
    """A copy of a model with some tensors exchanged."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for name, tensor in tensors.items():
            other.get_parameter(name).copy_(tensor)
    return other


def gradients(objective: Objective, names: Iterable[str], changed: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The gradient of the loss for some tensors, where others may be exchanged.

    Args:
        objective: what is to be reached.
        names: of the tensors.
        changed: tensors that are not the model's own.
    """
    leaves = {
        name: changed.get(name, objective.base.get(name, objective.model.get_parameter(name))).detach().clone()
        for name in dict.fromkeys(names)
    }
    for leaf in leaves.values():
        leaf.requires_grad_()
    loss = objective.loss({**changed, **leaves})
    found = torch.autograd.grad(loss, list(leaves.values()), allow_unused=True)
    return {
        name: torch.zeros_like(leaf) if gradient is None else gradient
        for (name, leaf), gradient in zip(leaves.items(), found, strict=True)
    }
