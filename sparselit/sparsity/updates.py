"""What an optimizer step leaves behind: whether it happened at all, moments, and weights that must be finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparselit.errors import SparselitError


def refuse_non_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Name the first tensor with NaN or infinity; one device synchronisation for all of them."""
    extremes = [torch.aminmax(tensor.detach()) for tensor in tensors.values()]  # both carry NaN along
    finite = torch.stack([torch.isfinite(low) & torch.isfinite(high) for low, high in extremes])
    if not bool(finite.all()):
        name = list(tensors)[int((~finite).nonzero()[0])]
        raise SparselitError(
            f"{name} holds NaN or infinity after optimizer step {step}: the training diverged; lower the learning rate "
            "or clip the gradient"
        )


def was_skipped(optimizer: Optimizer) -> bool:
    """Whether mixed precision skipped this update: fused optimizers do so inside the step and still call the hook."""
    found = getattr(optimizer, "found_inf", None)
    return found is not None and bool(found)


def _moments(weight: Tensor, optimizers: Sequence[Optimizer]) -> Iterator[Tensor]:
    """The optimizer states of a parameter that have one number per entry."""
    for optimizer in optimizers:
        if weight in optimizer.state:
            for value in optimizer.state[weight].values():
                if isinstance(value, Tensor) and value.shape == weight.shape:
                    yield value


def zero_moments(weight: Tensor, where: Tensor, optimizers: Sequence[Optimizer]) -> None:
    """Forget what the optimizers remember of the entries ``where``, boolean in the shape of ``weight``."""
    for value in _moments(weight, optimizers):
        value.masked_fill_(where, 0)
