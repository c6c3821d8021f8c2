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
from sparselit.circuits.run.rows import Rows
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
                rows = contribution(removed, bundle, known.sources, at)
            else:
                rows = Rows(replacement.ablation.per or "all", into(replacement.means[name], removed, bundle))
            edit = rows.adding(tokens, at)
            edits[bundle.target] = _both(edits[bundle.target], edit) if bundle.target in edits else edit
    frozen = {site: instead(scale) for site, scale in known.scales.items()}
    with model.sites.edited(before=edits, after=frozen):
        return functional_call(model, replaced, (tokens, at, resume), tie_weights=False)


def _read_channels(model: Transformer, within: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inner channels that a block must compute, by the matrix that reads them, where those are not all.

    Neurons that nothing reads go, unless AbsTopK weighs them against the others. Attention stays whole, or shrinks to
    one channel for each head where nothing reads it. Where an edit is attached, it counts channels, and all stay.
    """
    read = {}
    for i in range(len(model.layers)):
        attention, mlp = f"layers.{i}.attn.o.weight", f"layers.{i}.mlp.down.weight"
        whole = {block for block in ("attn", "mlp") if _is_edited(model, f"layers.{i}.{block}.")}
        if attention in within and "attn" not in whole and not bool(within[attention].any()):
            read[attention] = torch.arange(model.n_heads, device=within[attention].device)
        neurons = within[mlp].any(0) if mlp in within else torch.ones(1)
        whole |= {"mlp"} if bool(neurons.all()) else set()
        if "mlp" not in whole and (model.sites[f"layers.{i}.mlp.act"].keep is None or not bool(neurons.any())):
            read[mlp] = neurons.nonzero()[:, 0]
    return read


def _is_edited(model: Transformer, block: str) -> bool:
    """Whether anything is attached to a block's inner sites."""
    inner = ("q", "k", "v", "z", "act")
    return any(site.attached for name, site in model.sites.items() if name.removeprefix(block) in inner)


def _inner(name: str, parameters: Mapping[str, Tensor]) -> list[str]:
    """The parameters that produce what the matrix ``name`` reads."""
    layer = name.rsplit(".", 2)[0]
    letters = ("up",) if layer.endswith("mlp") else ("q", "k", "v")
    names = [f"{layer}.{letter}.{kind}" for letter in letters for kind in ("weight", "bias")]
    return [name for name in names if name in parameters]


def into(source: Tensor, weight: Tensor, bundle: Matrix) -> Tensor:
    """What weights make of ``source`` (…, source channel): (…, target channel)."""
    return source @ (weight.T if bundle.target_axis == 0 else weight)


def contribution(weight: Tensor, bundle: Matrix, sources: Mapping[str, Tensor], at: Tensor | None) -> Rows:
    """What some weights bring from the corrupted prompts, by target channel.

    Args:
        weight: the weights, in the shape of their matrix.
        bundle: which matrix that is.
        sources: activations on the corrupted prompts, by site; ``token``: the prompts themselves.
        at: (batch,) the position whose logits are wanted; None for all.
    """
    if bundle.source == "position":
        return Rows("position", weight)  # a position is the same in both prompts
    if bundle.source == "token":
        tokens = sources["token"]
        return Rows(
            "example", weight[tokens if at is None or bundle.target != "logits" else tokens.gather(1, at[:, None])]
        )
    return Rows("example", into(sources[bundle.source], weight, bundle))


def instead(value: Tensor) -> Edit:
    """The edit that puts a known value in place of the computed one."""
    return lambda x: value


def _both(first: Edit, second: Edit) -> Edit:
    return lambda x: second(first(x))
