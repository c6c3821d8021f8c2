"""N:M sparsity: n non-zeros in every group of m neighbours, the pattern that some hardware multiplies faster.

Zhou et al. 2021 (arXiv 2102.04010). Groups run along dim 1 (input channels), which is the dimension over which a
linear map sums and the one that 2:4 kernels compress.
"""

from __future__ import annotations

import torch
from torch import Tensor

from sparselit.errors import SparselitError


def n_of_m(scores: Tensor, n: int, m: int) -> Tensor:
    """The ``n`` highest scores of each group of ``m`` along dim 1, ties to the lower index.

    Args:
        scores: finite tensor with at least two dimensions, dim 1 a multiple of ``m``.
        n: entries that stay in a group, in [1, m].
        m: entries of a group.

    Returns:
        Boolean tensor of the scores' shape.

    Raises:
        SparselitError: the shape does not divide into groups.
    """
    if scores.ndim < 2 or scores.shape[1] % m:
        raise SparselitError(f"groups of {m} need a second dimension that is a multiple of it, got {[*scores.shape]}")
    groups = scores.detach().movedim(1, -1).unflatten(-1, (-1, m))
    best = groups.sort(dim=-1, descending=True, stable=True).indices[..., :n]
    mask = torch.zeros(groups.shape, dtype=torch.bool, device=scores.device).scatter_(-1, best, True)
    return mask.flatten(-2).movedim(-1, 1)


def has_semi_structured_kernels(weight: Tensor) -> bool:
    """Whether the device multiplies 2:4 matrices of this kind with kernels of its own (CUDA 8.0 and later).

    Args:
        weight: matrix with exactly two non-zeros in each group of four along dim 1.
    """
    return (
        weight.is_cuda
        and weight.dtype in (torch.float16, torch.bfloat16)
        and torch.cuda.get_device_capability(weight.device) >= (8, 0)
        and weight.ndim == 2
        and weight.shape[0] % 32 == 0
        and weight.shape[1] % 64 == 0
    )


def compress(weight: Tensor) -> Tensor:
    """A 2:4 matrix in the form that the device multiplies faster; as it is where the device has none.

    Args:
        weight: matrix with exactly two non-zeros in each group of four along dim 1.
    """
    if not has_semi_structured_kernels(weight):
        return weight
    from torch.sparse import to_sparse_semi_structured

    return to_sparse_semi_structured(weight)
