"""What an optimizer step leaves behind: whether it happened at all, moments, and weights that must be finite."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor
from torch.optim import Optimizer

from sparselit.errors import SparselitError


def refuse_non_finite(tensors: Mapping[str, Tensor], step: int) -> None:
    """Name the first tensor with NaN or infinity; one device synchronisation for all of them.

    A sum is not finite where an entry is not, and is the cheapest thing to compute; one that overflows is looked into.

    Args:
        tensors: floating-point tensors by name.
        step: number of applied optimizer steps, for the message.

    Raises:
        SparselitError: an entry is not finite.
    """
    if not tensors or bool(torch.isfinite(torch.stack([t.detach().sum().float() for t in tensors.values()])).all()):
        return
    for name, tensor in tensors.items():
        if not bool(torch.isfinite(tensor.detach()).all()):
            raise SparselitError(
                f"{name} holds NaN or infinity after optimizer step {step}: the training diverged; lower the learning "
                "rate or clip the gradient"
            )


def refuse_vanishing_eps(optimizers: Sequence[Optimizer]) -> None:
    """Refuse an epsilon that is zero in the precision of the parameters: the first step would divide by zero.

    Args:
        optimizers: all of the run.

    Raises:
        SparselitError: names the optimizer and its epsilon.
    """
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            eps = group.get("eps")
            if not isinstance(eps, float) or eps <= 0:
                continue
            if any(float(torch.tensor(eps, dtype=parameter.dtype)) == 0 for parameter in group["params"]):
                raise SparselitError(
                    f"{type(optimizer).__name__}'s eps is {eps:g}, 0 in half precision: set it (model.eps) to 1e-4, or "
                    "take trainer.precision bf16-true"
                )


def masked_sparse(gradient: Tensor, mask: Tensor) -> Tensor:
    """A sparse gradient with zeros at dead entries.

    Args:
        gradient: a sparse tensor, such as that of an embedding.
        mask: true where an entry lives, of the same shape.
    """
    gradient = gradient.coalesce()
    indices = gradient.indices()
    values = gradient.values().masked_fill(~mask[tuple(indices)], 0.0)
    return torch.sparse_coo_tensor(indices, values, gradient.shape, is_coalesced=True, check_invariants=False)


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
    """Forget what the optimizers remember of the entries ``where``, boolean in the shape of ``weight``.

    Args:
        weight: the parameter.
        where: entries to forget, boolean in the shape of ``weight``.
        optimizers: all that may hold a state of it.
    """
    for value in _moments(weight, optimizers):
        value.masked_fill_(where, 0)
