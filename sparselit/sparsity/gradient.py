"""Gradients scaled as a whole: to a root mean square, or clipped to a norm, counted over all or over live entries."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def scale_(
    gradients: Sequence[Tensor], live: Sequence[Tensor | None], rms: float | None = None, clip: float | None = None
) -> None:
    """Multiply all gradients by one number, in place.

    In a sparse model nearly all of the gradient belongs to dead weights; a norm over all entries then says little
    about the step that the live ones take. Dead entries are scaled with the rest.

    Args:
        gradients: one per parameter.
        live: boolean masks of the entries that count; None where all do.
        rms: root mean square that the counted entries get; None leaves it alone.
        clip: largest Euclidean norm of the counted entries, afterwards; None for no limit.
    """
    if not gradients:
        return
    counted = [g if mask is None else g * mask for g, mask in zip(gradients, live, strict=True)]
    norm = torch.stack([part.norm() for part in counted]).norm()
    if rms is not None:
        # no synchronisation: the counts stay on the device
        numel = sum(g.numel() if mask is None else mask.sum() for g, mask in zip(gradients, live, strict=True))
        factor = rms * torch.as_tensor(numel, dtype=norm.dtype, device=norm.device).sqrt() / (norm + 1e-12)
        torch._foreach_mul_(list(gradients), factor)
        norm = norm * factor
    if clip is not None and not math.isinf(clip):
        torch._foreach_mul_(list(gradients), (clip / (norm + 1e-6)).clamp(max=1.0))
