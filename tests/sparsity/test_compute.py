"""Sparse products against the dense ones, forward and backward."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sparselit.sparsity.compute import SparseLinear, pattern_of, sparse_linear


def matrix(rows: int, columns: int, density: float, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(rows)
    weight = torch.randn(rows, columns, generator=generator, dtype=dtype)
    return weight * (torch.rand(rows, columns, generator=generator) < density)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("density", [0.0, 0.02, 0.3, 1.0])
@pytest.mark.parametrize("shape", [(7, 13), (1, 5), (5, 1), (64, 32)])
@pytest.mark.parametrize("masked", [False, True])
def test_result_and_gradients_are_those_of_the_dense_product(shape, density, dtype, masked):
    weight = matrix(*shape, density, dtype).requires_grad_()
    bias = torch.randn(shape[0], dtype=dtype, requires_grad=True)
    x = torch.randn(3, 11, shape[1], dtype=dtype, requires_grad=True)
    upstream = torch.randn(3, 11, shape[0], dtype=dtype)
    expected = torch.autograd.grad(F.linear(x, weight, bias), (x, weight, bias), upstream)
    y = sparse_linear(x, weight, bias, pattern_of(weight), masked)
    found = torch.autograd.grad(y, (x, weight, bias), upstream)
    close = {"rtol": 1e-5, "atol": 1e-5} if dtype == torch.float32 else {"rtol": 1e-12, "atol": 1e-12}
    torch.testing.assert_close(y, F.linear(x, weight, bias), **close)
    dense = expected[1] * (weight != 0) if masked else expected[1]
    for one, other in zip(found, (expected[0], dense, expected[2]), strict=True):
        torch.testing.assert_close(one, other, **close)


def test_all_but_wide_channels_are_laid_out_token_by_token():
    for rows, columns in ((4, 9), (9, 9), (9, 4)):
        weight = matrix(rows, columns, 0.5, torch.float32).requires_grad_()
        x = torch.randn(2, 5, columns, requires_grad=True)
        y = sparse_linear(x, weight, None, pattern_of(weight))
        (gradient,) = torch.autograd.grad(y.sum(), x)
        assert y.is_contiguous() == (rows <= columns)
        assert gradient.is_contiguous()


@pytest.mark.parametrize("shape", [(3, 2**16), (3, 2**16 + 5), (40, 9)])
def test_entries_are_listed_row_by_row_and_column_by_column(shape):
    weight = matrix(*shape, 0.3, torch.float32)
    pattern = pattern_of(weight)
    places = weight.nonzero()
    assert torch.equal(pattern.entries, places[:, 0] * shape[1] + places[:, 1])
    assert torch.equal(pattern.column.long(), places[:, 1])
    in_columns = weight.t().nonzero()  # ordered by column, then by row
    assert torch.equal(pattern.column[pattern.by_column].long(), in_columns[:, 0])
    assert torch.equal(pattern.row.long(), in_columns[:, 1])


def test_derivatives_agree_with_differences():
    weight = matrix(4, 6, 0.4, torch.float64).requires_grad_()
    x = torch.randn(5, 6, dtype=torch.float64, requires_grad=True)
    pattern = pattern_of(torch.ones(4, 6))
    assert torch.autograd.gradcheck(lambda a, w: sparse_linear(a, w, None, pattern), (x, weight))


def test_a_layer_notices_that_its_weight_or_mask_has_changed():
    layer = nn.Linear(6, 4)
    layer.__class__ = SparseLinear
    layer.sparse = True
    x = torch.randn(5, 6)
    for _ in range(3):
        with torch.no_grad():
            layer.weight.copy_(matrix(4, 6, 0.5, torch.float32).roll(1, 0) * torch.rand(4, 6).round())
        torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias))
    other = torch.randn(4, 6)
    replaced = torch.func.functional_call(layer, {"weight": other}, (x,))
    torch.testing.assert_close(replaced, F.linear(x, other, layer.bias))
    layer.live = torch.ones(4, 6, dtype=torch.bool)  # entries that live and are still zero get their gradient
    layer.masked_gradient = True
    layer(x).sum().backward()
    assert layer.weight.grad.all()
    assert layer.state_dict().keys() == nn.Linear(6, 4).state_dict().keys()
