"""The projection against a slow reference that sorts in Python, and by properties over shapes and dtypes."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.errors import SparselitError
from sparselit.sparsity import project_, top_k_mask
from sparselit.sparsity.projection import floor_need

DTYPES = [torch.float32, torch.float64, torch.bfloat16, torch.float16]


def reference(weight: torch.Tensor, k: int, floor: int = 0, per: str = "row", fill: bool = True) -> set[int]:
    """Flat indices that stay: each line's `floor` largest non-zero entries first, then the largest of all."""
    flat = weight.double().flatten().tolist()
    order = sorted(range(len(flat)), key=lambda i: (-abs(flat[i]), i))
    stays: set[int] = set()
    if floor:
        dim = 0 if per == "row" else 1
        line = list(itertools.product(*(range(n) for n in weight.shape)))
        for which in range(weight.shape[dim]):
            stays |= set([i for i in order if line[i][dim] == which and flat[i] != 0][:floor])
    if per == "both" and floor:  # the rows first; what they took counts for the columns and comes first there
        stays = reference(weight, 0, floor, "row", fill=False)
        for which in range(weight.shape[1]):
            ordered = [i for i in order if i in stays] + [i for i in order if i not in stays]
            stays |= set([i for i in ordered if line[i][1] == which and flat[i] != 0][:floor])
    return stays | set([i for i in order if i not in stays][: k - len(stays)] if fill else ())


@st.composite
def cases(draw):
    shape = draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    numel = math.prod(shape)
    # few different values, so that ties and zeros of both signs are common
    values = draw(st.lists(st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, -0.5, 3e-5]), min_size=numel, max_size=numel))
    weight = torch.tensor(values).reshape(shape).to(draw(st.sampled_from(DTYPES)))
    return weight, draw(st.integers(0, numel))


@given(cases())
@settings(max_examples=150, deadline=None)
def test_projection_keeps_exactly_what_the_reference_keeps(case):
    weight, k = case
    mask = top_k_mask(weight, k)
    assert set(mask.flatten().nonzero().flatten().tolist()) == reference(weight, k)
    projected = weight.clone()
    project_(projected, k)
    assert torch.equal(projected[mask], weight[mask])
    assert not torch.signbit(projected[~mask]).any()
    assert (projected[~mask] == 0).all()
    assert projected.count_nonzero() == min(k, int(weight.count_nonzero()))


@given(cases(), st.integers(1, 3), st.sampled_from(["row", "column", "both"]))
@settings(max_examples=150, deadline=None)
def test_a_floor_is_kept_inside_the_exact_budget(case, floor, per):
    weight, k = case
    dims = {"row": [0], "column": [1], "both": [0, 1]}[per]
    counts = [weight.shape[dim] if dim < weight.ndim else 0 for dim in dims]
    need = min(weight.numel(), floor * sum(counts))
    if not all(counts) or need > k or any(floor > weight.numel() // lines for lines in counts):
        if k < weight.numel():
            with pytest.raises(SparselitError, match="floor"):
                top_k_mask(weight, k, floor=floor, per=per)
        return
    mask = top_k_mask(weight, k, floor=floor, per=per)
    assert set(mask.flatten().nonzero().flatten().tolist()) == reference(weight, k, floor, per)
    for dim, lines in zip(dims, counts, strict=True):
        kept = (mask & (weight != 0)).movedim(dim, 0).reshape(lines, -1).sum(1)
        there = (weight != 0).movedim(dim, 0).reshape(lines, -1).sum(1)
        assert (kept >= there.clamp(max=floor)).all()
    assert mask.sum() == k


@pytest.mark.parametrize("dtype", DTYPES)
def test_large_tensors_with_many_ties_keep_exactly_k(dtype):
    weight = torch.randn(300, 70, generator=torch.Generator().manual_seed(0)).to(dtype)
    for k in (1, 210, 10500, 20999, 21000):
        mask = top_k_mask(weight, k)
        assert mask.sum() == k
        assert set(mask.flatten().nonzero().flatten().tolist()) == reference(weight, k)


def test_projection_works_on_views_that_are_not_contiguous():
    base = torch.arange(1.0, 13.0).reshape(3, 4)
    project_(base.t(), 2)
    assert base.flatten().nonzero().flatten().tolist() == [10, 11]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_weights_that_are_not_finite_are_refused(bad):
    weight = torch.ones(2, 3)
    weight[1, 1] = bad
    with pytest.raises(SparselitError, match="not finite"):
        project_(weight, 2)


def test_an_impossible_floor_names_the_smallest_k_that_fits():
    with pytest.raises(SparselitError, match="needs k >= 6, got 5"):
        top_k_mask(torch.ones(3, 4), 5, floor=2)
    with pytest.raises(SparselitError, match="a row has 4"):
        floor_need((3, 4), 5, "row")
    with pytest.raises(SparselitError, match="two dimensions"):
        floor_need((3,), 1, "column")


def test_k_out_of_range_is_refused():
    with pytest.raises(SparselitError, match=r"k must lie in \[0, 4\], got 5"):
        top_k_mask(torch.ones(4), 5)
