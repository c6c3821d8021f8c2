"""Training with sparse compute gives what training without it gives, and leaves no trace."""

from __future__ import annotations

import copy

import pytest
import torch
from lightning.pytorch import Callback
from sparselit.callbacks import (
    AnnealedSparsity,
    DynamicSparsity,
    RiglSparsity,
    SnipSparsity,
    SparseCompute,
    StaticSparsity,
)
from torch import nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Schedule
from sparselit.sparsity.compute import SparseLinear

METHODS = {
    "annealed": lambda: AnnealedSparsity(Schedule(to=0.1, end=6)),
    "static": lambda: StaticSparsity(0.1),
    "snip": lambda: SnipSparsity(0.1),
    "set": lambda: DynamicSparsity(0.1, every_n_steps=3),
    "rigl": lambda: RiglSparsity(0.1, every_n_steps=3),
}


class Look(Callback):
    """Notes whether the first layer was sparse, and whether its gradient was masked."""

    def __init__(self) -> None:
        self.sparse: list[bool] = []
        self.masked: list[bool] = []

    def on_after_backward(self, trainer, pl_module) -> None:
        layer = pl_module.network[1]
        self.sparse.append(getattr(layer, "sparse", False))
        self.masked.append(int(layer.weight.grad.count_nonzero()) <= 0.1 * layer.weight.numel())
        copy.deepcopy(pl_module.network)


@pytest.mark.parametrize("make", METHODS.values(), ids=METHODS)
def test_sparse_compute_changes_nothing_but_rounding(make, make_mlp, make_trainer):
    plain, fast, look = make_mlp(), make_mlp(), Look()
    make_trainer(make(), max_steps=10).fit(plain)
    sparsity = make()
    make_trainer(sparsity, SparseCompute(below=0.5, smallest=0), look, max_steps=10).fit(fast)
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(fast.state_dict()[name], value, rtol=1e-4, atol=1e-5)
    assert look.sparse[-1]
    if sparsity.grads == "masked":
        due = [step for step in range(1, 11) if sparsity.reads_gradients(step)]
        start = 1 if isinstance(sparsity, SnipSparsity) else 0
        assert [step for step in range(start + 1, 11) if not look.masked[step - 1]] == [s for s in due if s > start]
    assert type(fast.network[1]) is nn.Linear
    assert fast.network[1].__dict__.keys() == plain.network[1].__dict__.keys()


def test_a_run_that_breaks_leaves_ordinary_layers(make_mlp, make_trainer):
    module = make_mlp()

    class Break(Callback):
        def on_train_batch_end(self, *_):
            assert type(module.network[1]) is SparseLinear
            raise RuntimeError("broken")

    with pytest.raises(RuntimeError, match="broken"):
        make_trainer(AnnealedSparsity(0.1), SparseCompute(smallest=0), Break(), max_steps=3).fit(module)
    assert type(module.network[1]) is nn.Linear


def test_values_out_of_range_are_refused():
    with pytest.raises(SparselitError, match=r"below must lie in \(0, 1\], got 0"):
        SparseCompute(below=0)
    with pytest.raises(SparselitError, match="smallest must be at least 0, got -1"):
        SparseCompute(smallest=-1)
