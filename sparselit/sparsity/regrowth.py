"""Drop and grow: the mask update of Sparse Evolutionary Training (Mocanu et al. 2018, arXiv 1707.04780)."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from sparselit.sparsity.projection import Per, floor_need, select


def drop_and_grow(
    weight: Tensor, mask: Tensor, fraction: float, scores: Tensor, *, floor: int = 0, per: Per = "row"
) -> Tensor:
    """Drop the smallest active entries and grow as many inactive ones.

    An entry that was just dropped grows back only when no other inactive entry is left.

    Args:
        weight: finite tensor of any shape.
        mask: its active entries, boolean of the same shape.
        fraction: share of the active entries that is exchanged, in [0, 1], rounded half up.
        scores: non-negative number per entry: the highest grow. Random for SET, the gradient's magnitude for RigL.
        floor: active entries that each row or column keeps at least; fewer are dropped where needed.
        per: what the floor counts, ``row`` or ``column``.

    Returns:
        The new mask, with as many entries as the old one.
    """
    active = int(mask.sum())
    kept = max(active - int(fraction * active + 0.5), floor_need(weight.shape, floor, per))
    magnitude = weight.detach().abs().masked_fill(~mask, -1.0)
    survivors = select(magnitude, min(kept, active), floor=floor, per=per, eligible=mask)
    # three classes, best first: survivors, entries that were inactive, entries just dropped
    rank = torch.where(survivors, 2.0, torch.where(mask, 0.0, 1.0)).flatten()
    order = torch.sort(scores.detach().flatten(), descending=True, stable=True).indices
    order = order[torch.sort(rank[order], descending=True, stable=True).indices]
    grown = torch.zeros_like(rank, dtype=torch.bool)
    grown[order[:active]] = True
    return grown.reshape(mask.shape)


def random_scores(shape: torch.Size, generator: torch.Generator, device: torch.device | str = "cpu") -> Tensor:
    """Uniform scores in (0, 1], drawn on the generator's device so that they do not depend on where the weight lies.

    Args:
        shape: of the weight.
        generator: of the draw.
        device: where the scores are put.
    """
    return (1 - torch.rand(shape, generator=generator, device=generator.device)).to(device)


def generator(seed: int, step: int, name: str) -> torch.Generator:
    """A generator on the CPU whose draws are a function of its arguments alone.

    Args:
        seed: seed of the run.
        step: optimizer step of the draw.
        name: name of the tensor.
    """
    digest = hashlib.sha256(f"{seed}/{step}/{name}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:7], "big"))
