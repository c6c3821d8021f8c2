"""How large a set of edges is: its nodes, its edges, and the parameters that stay without being edges."""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Ablation
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import BIAS, Edges, biases, live_channels


def nodes_of(edges: Edges, kept: Tensor) -> dict[str, tuple[int, ...]]:
    """Channels of each site that are an end of a kept edge or bias, ascending; sites without any are left out.

    Args:
        edges: the model's edges.
        kept: boolean (edge,).
    """
    found: dict[str, list[Tensor]] = {}
    for matrix, numbers in edges.by_matrix(kept):
        for site, channels in edges.ends(matrix, numbers):
            if site != BIAS:
                found.setdefault(site, []).append(channels)
    return {site: tuple(torch.cat(found[site]).unique().tolist()) for site in sorted(found)}


def free_parameters(model: Transformer, edges: Edges, kept: Tensor, ablation: Ablation) -> int:
    """Parameters that stay without being edges: the biases kept, gains of channels that are read, sinks of live heads.

    Where the ablation leaves biases alone (a constant is its own mean), all non-zero ones count.

    Args:
        model: the full model.
        edges: its edges.
        kept: the circuit's, boolean (edge,).
        ablation: says whether biases are removed with the other edges.
    """
    live = live_channels(edges, kept)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if ablation.removes_biases:
        count = int((kept & edges.is_bias).sum())
    else:
        count = sum(int(parameters[name].count_nonzero()) for name in biases(model))
    for name, parameter in parameters.items():
        site, _, kind = name.rpartition(".")
        if "norm" in site:
            block = site.rpartition(".")[0] or "unembed"
            read = live[f"{block}.in"]
            channels = read[: parameter.numel()] if "position_norm" not in site else read[-parameter.numel() :]
            count += int(((parameter != 0) & channels.to(parameter.device)).sum())
        elif kind == "sink":
            heads = (live[f"{site}.q"] | live[f"{site}.v"]).unflatten(0, (model.n_heads, -1)).any(1)
            count += int(heads.sum())
    return count
