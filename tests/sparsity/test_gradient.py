"""Gradients scaled as a whole, against the definition."""

from __future__ import annotations

import pytest
import torch

from sparselit.sparsity.gradient import scale_


def gradients() -> tuple[list[torch.Tensor], list[torch.Tensor | None]]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(5, 7, generator=generator), torch.randn(3, generator=generator)]
    return values, [torch.rand(5, 7, generator=generator) < 0.3, None]


def counted(values: list[torch.Tensor], live: list[torch.Tensor | None]) -> torch.Tensor:
    return torch.cat([v.flatten() if m is None else v[m] for v, m in zip(values, live, strict=True)])


def test_the_root_mean_square_of_the_counted_entries_is_the_one_asked_for():
    values, live = gradients()
    for masks in (live, [None, None]):
        scaled = [v.clone() for v in values]
        scale_(scaled, masks, rms=0.5)
        assert counted(scaled, masks).square().mean().sqrt() == pytest.approx(0.5)
        ratio = torch.cat([(a / b).flatten() for a, b in zip(scaled, values, strict=True)])
        assert ratio.std() < 1e-6


def test_the_norm_of_the_counted_entries_is_clipped_from_above_only():
    values, live = gradients()
    norm = counted(values, live).norm()
    for clip, expected in ((float(norm) / 2, float(norm) / 2), (float(norm) * 2, float(norm))):
        scaled = [v.clone() for v in values]
        scale_(scaled, live, clip=clip)
        assert counted(scaled, live).norm() == pytest.approx(expected, rel=1e-4)
    scale_([], [], rms=1.0)
