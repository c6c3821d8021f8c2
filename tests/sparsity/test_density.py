"""Counting non-zero entries."""

from __future__ import annotations

import torch
from torch import nn

from sparselit.sparsity import dead_lines, density_table, total


def test_the_table_agrees_with_a_count_by_hand():
    a = torch.tensor([[0.0, 1.0, -2.0], [0.0, 0.0, -0.0]])
    rows = density_table({"a": a, "b": torch.ones(2, dtype=torch.bfloat16), "ids": torch.ones(3, dtype=torch.int64)})
    assert [(r.name, r.shape, r.numel, r.nonzero) for r in rows] == [("a", (2, 3), 6, 2), ("b", (2,), 2, 2)]
    assert rows[0].density == 1 / 3
    assert (total(rows).numel, total(rows).nonzero, total(rows).density) == (8, 4, 0.5)


def test_tied_tensors_count_once_and_empty_ones_do_not_divide_by_zero():
    net = nn.Sequential(nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False))
    net[1].weight = net[0].weight
    assert [row.name for row in density_table(net.state_dict())] == ["0.weight"]
    assert density_table({"a": torch.empty(0), "b": torch.empty(0)})[1].density == 0


def test_rows_and_columns_without_a_weight_are_counted():
    weight = torch.zeros(3, 4, 2)
    weight[0, 1, 1] = weight[2, 1, 0] = -1
    assert dead_lines(weight) == (1, 3)
    assert dead_lines(weight[..., 1]) == (2, 3)
