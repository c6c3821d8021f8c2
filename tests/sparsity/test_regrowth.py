"""Drop and grow."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sparselit.sparsity import drop_and_grow, random_scores, select
from sparselit.sparsity.regrowth import generator


@given(st.integers(1, 6), st.integers(1, 6), st.floats(0, 1), st.integers(0, 10**6), st.data())
@settings(deadline=None)
def test_the_smallest_are_dropped_and_as_many_others_grow(rows, columns, fraction, seed, data):
    numel = rows * columns
    active = data.draw(st.integers(0, numel))
    weight = torch.randn(rows, columns, generator=torch.Generator().manual_seed(seed))
    mask = random_scores(weight.shape, generator(seed, 0, "m")).flatten().argsort().lt(active).reshape(weight.shape)
    new = drop_and_grow(weight, mask, fraction, random_scores(weight.shape, generator(seed, 1, "m")))
    assert new.sum() == mask.sum() == active
    dropped = int(fraction * active + 0.5)
    order = sorted(mask.flatten().nonzero().flatten().tolist(), key=lambda i: -abs(float(weight.flatten()[i])))
    survivors, gone = set(order[: active - dropped]), set(order[active - dropped :])
    after = set(new.flatten().nonzero().flatten().tolist())
    assert survivors <= after
    grown = after - survivors
    if dropped <= numel - active:
        assert not grown & gone  # room enough: nothing that was just dropped comes back
    else:
        assert set(range(numel)) - survivors - gone <= grown


def test_the_highest_scores_grow():
    weight = torch.tensor([5.0, 1.0, 0.0, 0.0, 0.0])
    mask = torch.tensor([True, True, False, False, False])
    scores = torch.tensor([9.0, 9.0, 0.1, 0.3, 0.2])
    assert drop_and_grow(weight, mask, 0.5, scores).tolist() == [True, False, False, True, False]


@pytest.mark.parametrize("per", ["row", "column"])
def test_a_floor_survives_many_exchanges(per):
    weight = torch.randn(8, 6, generator=torch.Generator().manual_seed(0))
    mask = select(random_scores(weight.shape, generator(0, 0, "w")), 20, floor=2, per=per)
    for step in range(1, 30):
        mask = drop_and_grow(weight, mask, 0.9, random_scores(weight.shape, generator(0, step, "w")), floor=2, per=per)
        assert mask.sum() == 20
        assert (mask.sum(1 if per == "row" else 0) >= 2).all()
        weight = weight * mask


def test_draws_depend_on_seed_step_and_name_alone():
    draws = {
        (seed, step, name): tuple(random_scores(torch.Size([4]), generator(seed, step, name)).tolist())
        for seed in (0, 1)
        for step in (0, 1)
        for name in ("a", "b")
    }
    assert len(set(draws.values())) == 8
    torch.manual_seed(5)
    assert tuple(random_scores(torch.Size([4]), generator(1, 1, "b")).tolist()) == draws[1, 1, "b"]
