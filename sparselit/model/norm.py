"""The norms: RMSNorm, LayerNorm, or none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparselit.model.sites import Site


class Norm(nn.Module):
    """RMSNorm or LayerNorm with its scale as a site, or the identity (``kind="none"``).

    Attributes:
        kind: ``rms``, ``layer`` or ``none``.
        width: the divisor of the mean. It stays the full model's where channels are left out, so that a compacted model
            computes the same function.
        eps: added to the mean square.
        left_out: sum, and sum of squares, of the channels that are left out, for an input; None where they are zero.
    """

    def __init__(self, kind: str, width: int, eps: float, bias: bool, scale: Site) -> None:
        super().__init__()
        self.kind, self.width, self.eps = kind, width, eps
        self.left_out: Callable[[Tensor], tuple[Tensor, Tensor]] | None = None
        self._scale = scale
        self.weight = nn.Parameter(torch.ones(width)) if kind != "none" else None
        self.bias = nn.Parameter(torch.zeros(width)) if kind == "layer" and bias else None

    def forward(self, x: Tensor) -> Tensor:
        """Normalise the last axis of ``x`` (..., channel)."""
        if self.weight is None:
            return x
        total = x.square().sum(-1, keepdim=True)
        rest = None if self.left_out is None else self.left_out(x)
        if self.kind == "layer":
            mean = x.sum(-1, keepdim=True) / self.width
            if rest is not None:
                mean = mean + rest[0] / self.width
            missing = self.width - x.shape[-1]
            x = x - mean
            # Left-out channels are centred too: where they are zero, they are -mean afterwards.
            total = x.square().sum(-1, keepdim=True) + missing * mean.square()
            if rest is not None:
                total = total - 2 * mean * rest[0]
        if rest is not None:
            total = total + rest[1]
        x = x * self._scale(torch.rsqrt(total / self.width + self.eps)) * self.weight
        return x if self.bias is None else x + self.bias
