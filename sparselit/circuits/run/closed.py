"""The reference: what a model is when every edge is removed, known before any prompt is run.

Under zero and mean ablation what arrives at a site without kept edges is a constant, or depends on the position or the
token alone. The masked forward is this reference plus, along kept edges only, weight times (activation - reference).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Replacement
from sparselit.circuits.run.masked import into
from sparselit.circuits.run.rows import RowKind, Rows
from sparselit.model.sites import Site, abs_top_k
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import biases, matrices


@dataclass(frozen=True)
class Closed:
    """What every edge removed leaves of a model.

    Attributes:
        arriving: by target site, what arrives there (before the activation function and AbsTopK).
        streams: by what reads it (a block, or ``unembed``) and by residual site, the residual stream; empty where it
            would need a row for every token at every position.
        positions: the concatenated positional embedding, where there is one.
    """

    arriving: Mapping[str, Rows]
    streams: Mapping[str, Rows]
    positions: Rows | None


@torch.no_grad()
def closed_model(model: Transformer, replacement: Replacement) -> Closed:
    """The reference of zero and mean ablation.

    Args:
        model: the full model.
        replacement: the ablation, not resample.
    """
    zero = replacement.ablation.kind == "zero"
    per: RowKind = "all" if zero else replacement.ablation.per or "all"
    arriving: dict[str, Tensor] = {}
    for name, bundle in matrices(model).items():
        weight = model.get_parameter(name).detach()
        here = weight.new_zeros(1, weight.shape[bundle.target_axis])
        if not zero:
            here = into(replacement.means[name], weight, bundle)
        arriving[bundle.target] = arriving[bundle.target] + here if bundle.target in arriving else here
    if not zero:
        for name, bundle in biases(model).items():
            arriving[bundle.target] = arriving[bundle.target] + model.get_parameter(name).detach()
    rows = {site: Rows(per, table) for site, table in arriving.items()}
    return Closed(rows, _streams(model, per, arriving), _positions(model, per, arriving))


def _positions(model: Transformer, per: RowKind, arriving: Mapping[str, Tensor]) -> Rows | None:
    if "positions" in arriving:
        return Rows(per, arriving["positions"])
    return Rows("position", model.sinusoid) if model.sinusoid is not None else None


def _streams(model: Transformer, per: RowKind, arriving: Mapping[str, Tensor]) -> dict[str, Rows]:
    """The residual stream where each block reads it, and as it arrives at each residual site."""
    x = arriving["embed"]
    if model.embed.sinusoid is not None:
        if per == "token":
            return {}
        per, x = "position", x + model.embed.sinusoid[: len(x) if per == "position" else None]
    found = {"embed": Rows(per, x)}
    x = _leaving(model.sites["embed"], x)
    for i in range(len(model.layers)):
        for block in (f"layers.{i}.attn", f"layers.{i}.mlp"):
            found[block] = Rows(per, x)
            x = x + _leaving(model.sites[f"{block}.out"], arriving[f"{block}.out"])
            found[f"{block}.residual"] = Rows(per, x)
            x = _leaving(model.sites[f"{block}.residual"], x)
    found["unembed"] = Rows(per, x)
    return found


def _leaving(site: Site, x: Tensor) -> Tensor:
    """What leaves a site, with nothing attached to it."""
    if site.activation is not None:
        x = site.activation(x)
    return x if site.keep is None else abs_top_k(x, site.keep)
