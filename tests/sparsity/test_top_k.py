"""The fast selection against five others that decide in other ways, bit for bit, whatever the hint."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch

from sparselit.sparsity import top_k_mask
from sparselit.sparsity.top_k import SMALL, keep_largest_, largest

SHAPE = (97, 61)  # primes, and more entries than SMALL


def by_sorting_in_python(weight: torch.Tensor, k: int) -> set[int]:
    values = weight.double().flatten().tolist()
    return set(sorted(range(len(values)), key=lambda i: (-abs(values[i]), i))[:k])


def by_a_stable_sort(weight: torch.Tensor, k: int) -> set[int]:
    order = torch.sort(weight.double().abs().flatten(), descending=True, stable=True).indices
    return set(order[:k].tolist())


def by_partition_of_unique_keys(weight: torch.Tensor, k: int) -> set[int]:
    flat = weight.double().abs().flatten().numpy()
    rank = np.unique(flat, return_inverse=True)[1].astype(np.int64)  # equal values, equal ranks
    keys = rank * len(flat) + np.arange(len(flat))[::-1]  # all different, the lower index the larger
    return set(np.argpartition(-keys, k - 1)[:k].tolist()) if k else set()


def by_bits(weight: torch.Tensor, k: int) -> set[int]:
    """Radix selection on the bits of the magnitude, which order as the numbers do."""
    bits = weight.float().abs().flatten().view(torch.int32)
    prefix = 0
    for bit in reversed(range(31)):
        trial = prefix | (1 << bit)
        if int((bits >= trial).sum()) >= k:
            prefix = trial
    above = (bits > prefix).nonzero().flatten().tolist()
    tied = (bits == prefix).nonzero().flatten().tolist()
    return set(above) | set(tied[: k - len(above)])


def by_mask(weight: torch.Tensor, k: int) -> set[int]:
    return set(top_k_mask(weight, k).flatten().nonzero().flatten().tolist())


OTHERS: list[Callable[[torch.Tensor, int], set[int]]] = [
    by_sorting_in_python,
    by_a_stable_sort,
    by_partition_of_unique_keys,
    by_bits,
    by_mask,
]


def draw(kind: str, dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    normal = torch.randn(SHAPE, generator=generator)
    values = {
        "random": normal,
        "tied": (normal * 3).round() / 3,
        "constant": torch.full(SHAPE, -0.25),
        "denormal": normal * 1e-41,
        "sparse": normal * (torch.rand(SHAPE, generator=generator) < 0.05),
    }
    return values[kind].to(dtype)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", ["random", "tied", "constant", "denormal", "sparse"])
def test_six_ways_to_select_agree_bit_for_bit(kind, dtype):
    weight = draw(kind, dtype)
    assert weight.numel() > SMALL
    for k in (1, 59, 592, weight.numel() - 1, weight.numel()):
        expected = [other(weight, k) for other in OTHERS]
        assert all(found == expected[0] for found in expected)
        for hint in (None, 0.0, 1e-30, 0.3, 2.0, 1e30, 3.4e38, math.inf):
            found = largest(weight, k, hint)
            if int(weight.count_nonzero()) < k:
                assert found is None
            else:
                assert found is not None
                assert found.tolist() == sorted(expected[0])
                kept = weight.clone()
                limit = keep_largest_(kept, k, hint)
                assert limit <= weight.flatten()[found].abs().min()
                assert limit >= (weight - kept).abs().max()
                assert kept.flatten().nonzero().flatten().tolist() == found.tolist()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_rest_becomes_positive_zero_and_what_stays_keeps_its_bits(dtype):
    weight = draw("tied", dtype)
    before, mask = weight.clone(), top_k_mask(weight, 500)
    assert keep_largest_(weight, 500, hint=0.7) <= before[mask].abs().min()
    assert torch.equal(weight[mask], before[mask])
    assert not torch.signbit(weight[~mask]).any()
    assert weight.count_nonzero() == 500
    zeros = torch.zeros(SHAPE)
    assert keep_largest_(zeros, 3) is None


def test_a_chain_of_hints_follows_a_moving_tensor_exactly():
    generator = torch.Generator().manual_seed(2)
    weight, hint = torch.randn(SHAPE, generator=generator), None
    for step in range(30):
        weight += 0.1 * torch.randn(SHAPE, generator=generator) * (10 if step == 15 else 1)
        k = max(1, int(weight.numel() * 0.8**step))
        expected = top_k_mask(weight, k)
        hint = keep_largest_(weight, k, hint)
        assert torch.equal(weight != 0, expected)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("kind", ["random", "tied", "constant", "sparse"])
def test_a_hint_near_the_threshold_gives_the_same_result_on_either_side_of_it(kind, dtype):
    weight = draw(kind, dtype)
    for k in (1, 59, 287, weight.numel() // 2):
        if int(weight.count_nonzero()) < k:
            continue
        expected = top_k_mask(weight, k)
        threshold = float(weight[expected].abs().min())
        for factor in (0.95, 0.969, 0.97, 1 - 1e-7, 1.0, 1 + 1e-7, 1.03, 1.033, 1.05):  # the slack is 1/32
            kept = weight.clone()
            limit = keep_largest_(kept, k, threshold * factor)
            assert torch.equal(kept, weight * expected)
            assert limit <= threshold
            assert not (weight * ~expected).abs().gt(limit).any()
