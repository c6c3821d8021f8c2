"""Linear maps that only multiply by the non-zeros, forward and backward, in plain torch.

``F.embedding_bag`` with weights is a sparse matrix product: row r of the result is the sum of the rows of the input
that row r of the matrix points at, each times its weight. On a CPU it is several times faster than a CSR product.
"""

from __future__ import annotations

import warnings
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

#: Density below which the sparse product of a large matrix is faster than the dense one (benchmarks/sparse_compute.py).
CROSSOVER = 0.1
#: Entries below which a matrix is multiplied densely: the overhead would not pay.
SMALLEST = 2**14


class Pattern(NamedTuple):
    """Where a matrix may be other than zero, row by row and column by column.

    Attributes:
        entries: flat indices of the entries, ascending.
        column: column of each entry.
        begin: number of the first entry of each row.
        by_column: the order in which the entries come column by column.
        row: row of each entry, in that order.
        column_begin: number of the first entry of each column, in that order.
    """

    entries: Tensor
    column: Tensor
    begin: Tensor
    by_column: Tensor
    row: Tensor
    column_begin: Tensor


def pattern_of(live: Tensor) -> Pattern:
    """The pattern of a matrix.

    Args:
        live: matrix (row, column), boolean or with its dead entries zero.
    """
    rows, columns = live.shape
    if live.device.type == "cpu":
        index = torch.from_numpy(np.flatnonzero(live.detach().contiguous().numpy() != 0))
    else:
        index = live.detach().reshape(-1).nonzero().flatten()
    row, column = torch.div(index, columns, rounding_mode="floor").int(), (index % columns).int()
    if live.device.type == "cpu" and columns <= 2**16:  # numpy sorts 16 bits by their digits, in linear time
        by_column = torch.from_numpy(np.argsort(column.numpy().astype(np.uint16), kind="stable"))
    else:
        by_column = torch.sort(column, stable=True).indices
    return Pattern(index, column, _begins(row, rows), by_column, row[by_column], _begins(column, columns))


def _begins(line: Tensor, count: int) -> Tensor:
    """Number of the first entry of each line."""
    sizes = torch.bincount(line, minlength=count)
    return (sizes.cumsum(0) - sizes).int()


def sparse_linear(
    x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, masked_gradient: bool = False
) -> Tensor:
    """``F.linear(x, weight, bias)`` where the weight is zero outside of a pattern.

    Args:
        x: (..., input channel), float32 or float64.
        weight: (output channel, input channel).
        bias: (output channel,), or None.
        pattern: where the weight may be other than zero.
        masked_gradient: give the weight the gradient of the pattern only, zero elsewhere, which is much cheaper; the
            dense one lets dead entries come back.

    Returns:
        (..., output channel).
    """
    result: Tensor = _SparseLinear.apply(x, weight, bias, pattern, masked_gradient)
    return result


class _SparseLinear(torch.autograd.Function):
    """Works channel by channel, (channel, token), the order in which the sparse product has its rows.

    What goes out is laid out token by token, as everything else is (adding two layouts costs more than a copy), but
    for the wide inner channels of a feed-forward block: these stay channel by channel until the next layer reads them.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, pattern: Pattern, masked: bool) -> Tensor:
        channels = x.reshape(-1, x.shape[-1]).t().contiguous()  # (input channel, token)
        values = weight.reshape(-1)[pattern.entries]
        y = F.embedding_bag(
            pattern.column, channels, pattern.begin, mode="sum", per_sample_weights=values
        )  # (output channel, token)
        if bias is not None:
            y += bias[:, None]
        ctx.save_for_backward(channels, values)
        ctx.pattern, ctx.masked, ctx.shape, ctx.in_shape = pattern, masked, weight.shape, x.shape
        ctx.has_bias, ctx.by_token = bias is not None, x.is_contiguous()
        wide = weight.shape[0] > weight.shape[1]
        return (y.t() if wide else y.t().contiguous()).reshape(*x.shape[:-1], weight.shape[0])

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Any:
        channels, values = ctx.saved_tensors
        pattern: Pattern = ctx.pattern
        flat = grad.reshape(-1, grad.shape[-1])
        by_channel = flat.t().contiguous()  # (output channel, token)
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            back = F.embedding_bag(
                pattern.row, by_channel, pattern.column_begin, mode="sum", per_sample_weights=values[pattern.by_column]
            )
            grad_x = (back.t().contiguous() if ctx.by_token else back.t()).reshape(ctx.in_shape)
        if ctx.needs_input_grad[1]:
            if ctx.masked:
                grad_weight = _sampled(by_channel, channels, pattern, ctx.shape)
            else:
                grad_weight = by_channel @ channels.t()
        if ctx.has_bias and ctx.needs_input_grad[2]:
            grad_bias = flat.sum(0)
        return grad_x, grad_weight, grad_bias, None, None


def _sampled(left: Tensor, right: Tensor, pattern: Pattern, shape: torch.Size) -> Tensor:
    """``left @ right.T`` at the entries of a pattern, zero elsewhere."""
    _say_once()
    ends = torch.cat([pattern.begin, pattern.begin.new_tensor([len(pattern.entries)])])
    empty = torch.zeros(len(pattern.entries), dtype=left.dtype, device=left.device)
    where = torch.sparse_csr_tensor(ends, pattern.column, empty, tuple(shape), check_invariants=False)
    product = torch.sparse.sampled_addmm(where, left, right.t(), beta=0.0).values()
    return (
        torch.zeros(shape.numel(), dtype=left.dtype, device=left.device)
        .index_copy_(0, pattern.entries, product)
        .view(shape)
    )


@lru_cache(maxsize=1)
def _say_once() -> None:
    """Let torch say, unheard, that its CSR tensors are young: it says so once in a process."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.zeros(1, 1).to_sparse_csr()


class SparseLinear(nn.Linear):
    """A linear map that multiplies by its non-zeros only while somebody says that this is worth while.

    It has the parameters of ``nn.Linear`` and no others, so that checkpoints are the same; an existing layer becomes
    one by its class, ``layer.__class__ = SparseLinear``.

    Attributes:
        sparse: whether to multiply sparsely now.
        masked_gradient: whether the weight's gradient is computed at the pattern only.
        live: mask of the living entries, where that is not the weight's non-zeros.
    """

    sparse: bool = False
    masked_gradient: bool = False
    live: Tensor | None = None
    _pattern: tuple[int, int, Pattern] | None = None

    def forward(self, input: Tensor) -> Tensor:
        """(..., input channel) to (..., output channel)."""
        weight = self.weight
        if not self.sparse or weight.dtype not in (torch.float32, torch.float64) or torch.is_autocast_enabled("cpu"):
            return F.linear(input, weight, self.bias)
        return sparse_linear(input, weight, self.bias, self._current(weight), self.masked_gradient)

    def _current(self, weight: Tensor) -> Pattern:
        """The pattern of this very weight: masked runs put other tensors under its name."""
        source = weight if self.live is None else self.live
        if self._pattern is None or self._pattern[:2] != (id(source), source._version):
            self._pattern = (id(source), source._version, pattern_of(source))
        return self._pattern[2]
