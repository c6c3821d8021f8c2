"""Interventions on the full model: scale, ablate or patch parts of it, and measure what that does to some behaviours.

The model's own forward runs; nodes are edited at their sites, edges and biases by scaled copies of the parameters.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.criterion import measure
from sparselit.circuits.run.ablation import Replacement, real_rows
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.circuits.run.naive import CHUNK
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place
from sparselit.statistics.intervals import wilson

Channels = dict[str, list[int]]


@dataclass
class Intervention:
    """What is changed; at a node that is named twice, scaling comes before ablation, and patching last.

    Attributes:
        scale: factor by node.
        edges: factor by edge or bias; 0 removes it.
        ablate: channels by site that are replaced by their mean.
        patch: channels by site that take the value they have on the corrupted prompt.
    """

    scale: dict[tuple[str, int], float] = field(default_factory=dict)
    edges: dict[Place, float] = field(default_factory=dict)
    ablate: Channels = field(default_factory=dict)
    patch: Channels = field(default_factory=dict)


@torch.no_grad()
def means(model: Transformer, sites: list[str], examples: Examples) -> dict[str, Tensor]:
    """Mean activation (channel,) of each site in the full model, over all positions that are no padding.

    Args:
        model: the full model.
        sites: their names.
        examples: the prompts.
    """
    with model.sites.recorded(sites) as record:
        model(examples.tokens)
    return {site: real_rows(x, examples.real).mean(0) for site, x in record.items()}


@torch.no_grad()
def changed_logits(
    model: Transformer, intervention: Intervention, examples: Examples, mean: Mapping[str, Tensor] | None = None
) -> Tensor:
    """Answer logits (example, vocabulary) of the full model under an intervention.

    Args:
        model: the full model; it is not changed.
        intervention: what to change.
        examples: the prompts.
        mean: :func:`means` of the sites that are ablated.

    Raises:
        SparselitError: a site that is ablated has no mean.
    """
    missing = [site for site in intervention.ablate if site not in (mean or {})]
    if missing:
        raise SparselitError(f"ablating {', '.join(missing)} needs its mean")
    masks: dict[str, Tensor] = {}
    for (name, row, column), factor in intervention.edges.items():
        parameter = model.get_parameter(name)
        mask = masks.setdefault(name, torch.ones_like(parameter))
        mask[row if parameter.ndim == 1 else (row, column)] = factor
    found = []
    for i in range(0, len(examples.answer), CHUNK):
        part = examples.select(slice(i, i + CHUNK))
        at = part.length - 1
        with model.sites.recorded(intervention.patch) as corrupted:
            if intervention.patch:
                model(part.corrupted, at)
        edits = _edits(intervention, mean or {}, corrupted)
        with model.sites.edited(after=edits):
            found.append(masked_logits(model, masks, context(model, Replacement(), part.tokens, at)))
    return torch.cat(found)


def effect(
    model: Transformer, intervention: Intervention, examples: Examples, mean: Mapping[str, Tensor] | None = None
) -> dict[str, Any]:
    """What an intervention does to a behaviour.

    Args:
        model: the full model; it is not changed.
        intervention: what to change.
        examples: the prompts.
        mean: :func:`means` of the sites that are ablated.

    Returns:
        ``before`` and ``after``, each with ``task_loss`` (nats), ``accuracy``, its ``accuracy_interval`` (Wilson, 95 %)
        and ``wrong`` (share answered by the competing answer); ``kl`` (mean divergence of the model's distribution
        from the changed one's, nats); ``flipped`` (share whose answer changes) and ``n``.

    Raises:
        SparselitError: a site that is ablated has no mean.
    """
    whole = changed_logits(model, Intervention(), examples)
    return compared(whole, changed_logits(model, intervention, examples, mean), examples)


def compared(whole: Tensor, changed: Tensor, examples: Examples) -> dict[str, Any]:
    """Answer logits before and after a change, as :func:`effect` gives them.

    Args:
        whole: (example, vocabulary) before.
        changed: after.
        examples: their examples.
    """
    n = len(examples.answer)
    scores: dict[str, Any] = {}
    for name, logits in (("before", whole), ("after", changed)):
        values = measure(logits, examples, whole)
        scores[name] = {
            "task_loss": values["task_loss"],
            "accuracy": values["accuracy"],
            "accuracy_interval": list(wilson(values["accuracy"] * n, n)),
            "wrong": float((logits.argmax(-1) == examples.wrong).double().mean()),
        }
    flipped = float((whole.argmax(-1) != changed.argmax(-1)).double().mean())
    return {**scores, "kl": measure(changed, examples, whole)["kl"], "flipped": flipped, "n": n}


def _edits(intervention: Intervention, mean: Mapping[str, Tensor], corrupted: Mapping[str, Tensor]) -> dict[str, Edit]:
    sites = {site for site, _ in intervention.scale} | set(intervention.ablate) | set(intervention.patch)
    return {site: _edit(site, intervention, mean, corrupted) for site in sites}


def _edit(site: str, intervention: Intervention, mean: Mapping[str, Tensor], corrupted: Mapping[str, Tensor]) -> Edit:
    factors = {channel: factor for (at, channel), factor in intervention.scale.items() if at == site}
    ablated, patched = intervention.ablate.get(site, []), intervention.patch.get(site, [])
    other = corrupted[site].clone() if patched else None

    def edit(x: Tensor) -> Tensor:
        x = x.clone()
        for channel, factor in factors.items():
            x[..., channel] *= factor
        if ablated:
            x[..., ablated] = mean[site][ablated]
        if other is not None:
            x[..., patched] = other[..., patched]
        return x

    return edit
