"""Ablations: what stands in for a removed edge, as the user says it and as the masked forward pass needs it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, get_args

import torch
from torch import Tensor
from torch.nn import functional as F

from sparselit.data.examples import Examples
from sparselit.errors import SparselitError, check_choice
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices

Kind = Literal["zero", "mean", "resample"]
Per = Literal["all", "token", "position"]
Norm = Literal["live", "frozen"]
#: Most memory for the activations of which means are taken at once, bytes.
RECORDED_BYTES = 2**28


@dataclass(frozen=True)
class Ablation:
    """What a removed edge contributes.

    Args:
        kind: ``zero``: nothing, and biases can be removed too; ``mean``: its weight times its source's mean, a
            constant, so that biases, which are their own mean, stay; ``resample``: its weight times what its source is
            on the corrupted prompt.
        distribution: the split that the means are taken over; default ``discovery``.
        per: one mean for ``all`` positions, or one for each ``token`` or each ``position``.
        norm: norms are computed anew from what remains (``live``), or keep the scale that they have in the full model
            on the same prompt (``frozen``).

    Raises:
        SparselitError: a value is unknown, or does not fit the kind.
    """

    kind: Kind = "zero"
    distribution: str | None = None
    per: Per | None = None
    norm: Norm = "live"

    def __post_init__(self) -> None:
        for key, choices in (("kind", Kind), ("per", Per), ("norm", Norm)):
            if not (key == "per" and self.per is None):
                check_choice(f"ablation.{key}", getattr(self, key), get_args(choices))
        if self.kind == "mean":
            object.__setattr__(self, "distribution", self.distribution or "discovery")
            object.__setattr__(self, "per", self.per or "all")
        elif self.distribution is not None or self.per is not None:
            raise SparselitError(f"ablation.distribution and ablation.per belong to mean ablation, not to {self.kind}")

    @property
    def removes_biases(self) -> bool:
        """Whether a bias can be ablated; a constant is its own mean, and the same on any prompt."""
        return self.kind == "zero"

    def as_json(self) -> dict[str, Any]:
        """The ablation as ``circuit.json`` says it."""
        return {"kind": self.kind, "distribution": self.distribution, "per": self.per, "norm": self.norm}

    def __str__(self) -> str:
        parts: list[str] = [self.kind]
        if self.kind == "mean":
            parts.append(f"means over the {self.distribution} split")
            parts += [f"one for each {self.per}"] if self.per != "all" else []
        parts += ["norms frozen"] if self.norm == "frozen" else []
        return ", ".join(parts)


def as_ablation(value: str | Mapping[str, Any] | Ablation) -> Ablation:
    """A kind's name, or a mapping of the arguments, as an :class:`Ablation`.

    Raises:
        SparselitError: it is none.
    """
    if isinstance(value, Ablation):
        return value
    try:
        return Ablation(value) if isinstance(value, str) else Ablation(**value)  # type: ignore[arg-type]
    except TypeError as error:
        raise SparselitError(f"the ablation {value!r} is none: give kind, distribution, per, norm") from error


@dataclass(frozen=True)
class Replacement:
    """An ablation ready for one model.

    Attributes:
        ablation: the configured one.
        means: by matrix, the means of its sources (group, source channel), under ``mean``; the groups are everything,
            the tokens or the positions. See :func:`source_means`.
        distribution: what the means were taken over, under ``mean``.
    """

    ablation: Ablation = Ablation()
    means: Mapping[str, Tensor] = field(default_factory=dict)
    distribution: Examples | None = None

    def in_model(self, model: Transformer) -> Replacement:
        """The same ablation ready for another model."""
        if self.distribution is None:
            return self
        means = source_means(model, self.distribution, self.ablation.per or "all")
        return Replacement(self.ablation, means, self.distribution)


def prepare(model: Transformer, ablation: Ablation, splits: Mapping[str, Examples]) -> Replacement:
    """Compute the means that an ablation needs.

    Args:
        model: the full model.
        ablation: the configured one.
        splits: the behaviour's splits, by name.

    Raises:
        SparselitError: the distribution is no split.
    """
    if ablation.kind != "mean":
        return Replacement(ablation)
    distribution = ablation.distribution or "discovery"
    if distribution not in splits:
        raise SparselitError(
            f"ablation.distribution must be one of the splits {', '.join(splits)}, got {distribution!r}"
        )
    return Replacement(ablation, distribution=splits[distribution]).in_model(model)


@torch.no_grad()
def source_means(model: Transformer, examples: Examples, per: Per = "all") -> dict[str, Tensor]:
    """Mean activation of every edge source over the prompts' positions (padding excluded), by matrix.

    What only the answer needs (the last layer's heads' output and MLP, the unembedding and the bigram table) is
    averaged over the answer positions, because that is where the forward pass for an answer evaluates it.

    Args:
        model: the full model.
        examples: the distribution.
        per: what there is one mean for; a token or position that does not occur has the mean of all.

    Returns:
        Tensors (group, source channel); the sources ``token`` and ``position`` are one-hot, so that their means are
        frequencies.
    """
    groups = {"all": 1, "token": model.unembed.out_features, "position": model.max_length}[per]
    sums: dict[str, Tensor] = {}
    counts: dict[str, Tensor] = {}
    for part in _portions(model, examples):
        for name, x, group in _sources(model, part, per):
            added = x.sum(0, keepdim=True)
            if groups > 1:  # those of all rows come last
                each = torch.zeros(groups, x.shape[1], dtype=x.dtype, device=x.device).index_add_(0, group, x)
                added = torch.cat([each, added])
            sums[name] = sums[name] + added if name in sums else added
            count = torch.bincount(group, minlength=groups)[:, None]
            counts[name] = counts[name] + count if name in counts else count
    means = {name: sums[name][:groups] / counts[name].clamp(min=1) for name in sums}
    if groups > 1:
        means = {
            name: torch.where(counts[name] > 0, mean, sums[name][-1] / counts[name].sum())
            for name, mean in means.items()
        }
    return means


def _portions(model: Transformer, examples: Examples) -> Iterator[Examples]:
    """The examples in as few parts as keep all recorded activations of one part within :data:`RECORDED_BYTES`."""
    widths = {
        bundle.source: model.get_parameter(name).shape[1 - bundle.target_axis]
        for name, bundle in matrices(model).items()
        if bundle.source in model.sites
    }
    inside = sum(widths.values())
    row = max(1, examples.tokens.shape[1] * inside * model.embed.token.weight.element_size())
    step = max(64, RECORDED_BYTES // row)
    return (examples.select(slice(i, i + step)) for i in range(0, len(examples.answer), step))


def _sources(model: Transformer, examples: Examples, per: Per) -> Iterator[tuple[str, Tensor, Tensor]]:
    """Each matrix by name, with what its source is (row, source channel) and the group of each row (row,)."""
    at = examples.length - 1
    positions = torch.arange(examples.tokens.shape[1], device=at.device).expand_as(examples.tokens)
    real = examples.real
    bundles = matrices(model)
    with model.sites.recorded({bundle.source for bundle in bundles.values()} & set(model.sites)) as records:
        model(examples.tokens, at)
    answer = examples.tokens.gather(1, at[:, None])[:, 0]
    for name, bundle in bundles.items():
        x = records.get(bundle.source)
        everywhere = bundle.target != "logits" if x is None else x.shape[1] == positions.shape[1]
        token, position = (examples.tokens[real], positions[real]) if everywhere else (answer, at)
        if x is not None:
            x = real_rows(x, real)
        elif bundle.source == "token":
            x = F.one_hot(token, model.unembed.out_features).to(model.embed.token.weight.dtype)
        else:
            x = F.one_hot(position, model.max_length).to(model.embed.token.weight.dtype)
        yield name, x, {"all": torch.zeros_like(token), "token": token, "position": position}[per]


def real_rows(x: Tensor, real: Tensor) -> Tensor:
    """The rows (row, channel) of a recorded activation that belong to prompts, without the padding.

    Args:
        x: (example, position, channel) as recorded with ``at``: what only the answer needs has one position, and
            concatenated positions come once for all prompts.
        real: which positions those are, :attr:`Examples.real`.
    """
    x = x.expand(len(real), -1, -1)
    return x[real] if x.shape[1] == real.shape[1] else x[:, 0]
