"""Proximal steps: the exact minimiser of a penalty plus the distance moved (Parikh & Boyd 2014, §6.5)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

#: What shrinks together: every entry alone, or the entries of a row (dim 0) or column (dim 1) as one vector.
Group = Literal["entry", "row", "column"]


def shrink_(weight: Tensor, threshold: float, group: Group = "entry") -> None:
    """Pull a tensor towards zero in place; what lies within the threshold becomes exactly +0.0.

    Entries: ``sign(w) · max(0, |w| - threshold)`` (L1). Groups: ``w · max(0, 1 - threshold · sqrt(size) / ‖w‖)``
    (group L1; the root of the size makes rows of different lengths comparable).

    Args:
        weight: tensor of any shape and floating dtype; with groups, of at least two dimensions or else entries shrink.
        threshold: how far, in units of the weight, at least 0.
        group: what shrinks together.
    """
    if threshold <= 0:
        return
    if group == "entry" or weight.ndim < 2:
        weight.copy_(F.softshrink(weight, threshold))
        return
    dim = 0 if group == "row" else 1
    others = [d for d in range(weight.ndim) if d != dim]
    norm = weight.square().sum(others, keepdim=True).sqrt()
    size = weight.numel() / max(1, weight.shape[dim])
    weight.mul_((1 - threshold * size**0.5 / norm.clamp_min(torch.finfo(weight.dtype).tiny)).clamp_min(0))
    weight.add_(0.0)  # a negative entry times zero is -0.0
