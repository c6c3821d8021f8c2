"""The masked forward pass: the model with a set of edges kept and all others ablated.

There is no second forward: the model's own runs, with masked tensors in place of its parameters and, where a removed
edge contributes something, that contribution added where each matrix arrives at its site. All edges kept gives the
model's logits bit for bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor
from torch.func import functional_call

from sparselit.circuits.run.ablation import Replacement
from sparselit.model.sites import Edit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Matrix, matrices


@dataclass(frozen=True)
class Context:
    """Some prompts under an ablation, with what other forward passes say about them where the ablation needs it.

    Attributes:
        replacement: what a removed edge contributes.
        tokens: (batch, position).
        at: (batch,) the position whose logits are wanted, see :meth:`Transformer.forward`; None for all.
        sources: activations of every source on the corrupted prompts, under ``resample``, by site.
        scales: the full model's norm scales on the prompts, where norms are frozen, by site.
    """

    replacement: Replacement
    tokens: Tensor
    at: Tensor | None = None
    sources: Mapping[str, Tensor] = field(default_factory=dict)
    scales: Mapping[str, Tensor] = field(default_factory=dict)


@torch.no_grad()
def context(
    model: Transformer,
    replacement: Replacement,
    tokens: Tensor,
    at: Tensor | None = None,
    corrupted: Tensor | None = None,
) -> Context:
    """Run the full model as often as the ablation needs: not at all for zero and mean ablation with live norms.

    Args:
        model: the full model.
        replacement: what a removed edge contributes.
        tokens: (batch, position).
        at: (batch,) the position whose logits are wanted; None for all.
        corrupted: (batch, position), the corrupted prompts, which resample ablation needs.
    """
    sources: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    if replacement.ablation.kind == "resample":
        if corrupted is None:
            raise ValueError("resampling needs the corrupted prompts")
        with model.sites.recorded({bundle.source for bundle in matrices(model).values()} & set(model.sites)) as records:
            model(corrupted, at)
        sources = {**records, "token": corrupted}
    if replacement.ablation.norm == "frozen":
        with model.sites.recorded([site for site in model.sites if site.endswith("scale")]) as scales:
            model(tokens, at)
    return Context(replacement, tokens, at, sources, scales)


def masked_logits(
    model: Transformer,
    masks: Mapping[str, Tensor],
    known: Context,
    resume: tuple[int, Tensor] | None = None,
    within: Mapping[str, Tensor] | None = None,
) -> Tensor:
    """Logits of ``model`` with the edges outside ``masks`` ablated; shapes as in :meth:`Transformer.forward`.

    Args:
        model: the full model, or a compacted one; it is not changed.
        masks: one tensor per matrix and bias, as :meth:`Edges.masks` gives them; floats in [0, 1] interpolate.
        known: :func:`context` of the prompts, from the full model.
        resume: where to begin, see :meth:`Transformer.forward`.
        within: masks of all that may be open; inner channels that nothing in there reads are not computed.
    """
    replacement, tokens, at = known.replacement, known.tokens, known.at
    parameters: dict[str, Tensor] = dict(model.named_parameters(remove_duplicate=False))
    masks, replaced = dict(masks), {}
    read = {} if within is None else _read_channels(model, within)
    for name, channels in read.items():
        for inner in _inner(name, parameters):
            parameters[inner] = replaced[inner] = parameters[inner][channels]
            if inner in masks:
                masks[inner] = masks[inner][channels]
    replaced |= {name: parameters[name] * mask for name, mask in masks.items()}
    replaced |= {name: replaced[name][:, channels] for name, channels in read.items()}
    edits: dict[str, Edit] = {}
    if replacement.ablation.kind != "zero":
        bundles = matrices(model)
        for name, mask in masks.items():
            removed, bundle = parameters[name] * (1 - mask.to(parameters[name].dtype)), bundles[name]
            if replacement.ablation.kind == "resample":
                edit = _adding(_contribution(removed, bundle, known.sources, at), at)
            else:
                edit = _adding_mean(_into(replacement.means[name], removed, bundle), replacement, tokens, at)
            edits[bundle.target] = _both(edits[bundle.target], edit) if bundle.target in edits else edit
    frozen = {site: _instead(scale) for site, scale in known.scales.items()}
    with model.sites.edited(before=edits, after=frozen):
        return functional_call(model, replaced, (tokens, at, resume), tie_weights=False)


def _read_channels(model: Transformer, within: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inner channels that a block must compute, by the matrix that reads them, where those are not all.

    Neurons that nothing reads go, unless AbsTopK weighs them against the others. Attention stays whole, or shrinks to
    one channel for each head where nothing reads it.
    """
    read = {}
    for i in range(len(model.layers)):
        attention, mlp = f"layers.{i}.attn.o.weight", f"layers.{i}.mlp.down.weight"
        if attention in within and not bool(within[attention].any()):
            read[attention] = torch.arange(model.n_heads, device=within[attention].device)
        neurons = within[mlp].any(0) if mlp in within else torch.ones(1)
        if not bool(neurons.all()) and (model.sites[f"layers.{i}.mlp.act"].keep is None or not bool(neurons.any())):
            read[mlp] = neurons.nonzero()[:, 0]
    return read


def _inner(name: str, parameters: Mapping[str, Tensor]) -> list[str]:
    """The parameters that produce what the matrix ``name`` reads."""
    layer = name.rsplit(".", 2)[0]
    letters = ("up",) if layer.endswith("mlp") else ("q", "k", "v")
    names = [f"{layer}.{letter}.{kind}" for letter in letters for kind in ("weight", "bias")]
    return [name for name in names if name in parameters]


def _into(source: Tensor, removed: Tensor, bundle: Matrix) -> Tensor:
    """What the removed weights make of ``source`` (…, source channel): (…, target channel)."""
    return source @ (removed.T if bundle.target_axis == 0 else removed)


def _contribution(removed: Tensor, bundle: Matrix, sources: Mapping[str, Tensor], at: Tensor | None) -> Tensor:
    """What removed edges bring from the corrupted prompts, (batch, position, target channel)."""
    if bundle.source == "position":
        return removed  # a position is the same in both prompts
    if bundle.source == "token":
        tokens = sources["token"]
        return removed[tokens if at is None or bundle.target != "logits" else tokens.gather(1, at[:, None])]
    return _into(sources[bundle.source], removed, bundle)


def _adding(offset: Tensor, at: Tensor | None) -> Edit:
    """Add what is there for each prompt and position; only the answers' rows where only those are computed."""

    def edit(x: Tensor) -> Tensor:
        if offset.ndim == 2:  # a table over positions
            return x + offset[: x.shape[1]]
        if at is not None and x.shape[1] == 1 < offset.shape[1]:
            return x + offset.gather(1, at[:, None, None].expand(-1, 1, offset.shape[-1]))
        return x + offset

    return edit


def _adding_mean(table: Tensor, replacement: Replacement, tokens: Tensor, at: Tensor | None) -> Edit:
    """Add the row of ``table`` (group, channel) that belongs to each token or position."""
    per = replacement.ablation.per

    def edit(x: Tensor) -> Tensor:
        if per == "all":
            return x + table[0]
        answers_only = at is not None and x.shape[1] == 1
        if per == "position":
            return x + (table[at][:, None] if answers_only and at is not None else table[: x.shape[1]])
        return x + table[tokens.gather(1, at[:, None]) if answers_only and at is not None else tokens]

    return edit


def _instead(value: Tensor) -> Edit:
    return lambda x: value


def _both(first: Edit, second: Edit) -> Edit:
    return lambda x: second(first(x))
