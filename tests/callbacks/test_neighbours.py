"""Sparsifiers beside everything else that touches weights: optimizers, averaging, compilation, copies, checkpoints."""

from __future__ import annotations

import copy
import itertools
import re
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EMAWeightAveraging, ModelCheckpoint, WeightAveraging
from sparselit.callbacks import AnnealedSparsity, RiglSparsity, StaticSparsity
from torch import nn

from sparselit.errors import SparselitError
from sparselit.sparsity import Schedule, top_k_mask
from sparselit.sparsity.top_k import SMALL
from sparselit.sparsity.updates import refuse_non_finite


class Exact(Callback):
    """Every tensor has its budget when a batch has ended."""

    def __init__(self, sparsifier: Any) -> None:
        self.sparsifier, self.steps = sparsifier, 0

    def on_train_batch_end(self, trainer, pl_module, *args) -> None:
        for name, k in self.sparsifier.targets(self.sparsifier.step).items():
            assert int(pl_module.get_parameter(name).count_nonzero()) == k
        self.steps += 1


def falling() -> AnnealedSparsity:
    return AnnealedSparsity(Schedule(to=0.1, end=6))


@pytest.mark.parametrize("kind", [{"fused": True}, {"foreach": True}, {"foreach": False, "fused": False}])
def test_every_implementation_of_adamw_leaves_exact_budgets(kind, make_mlp, make_trainer):
    module, sparsifier = make_mlp(), falling()
    module.configure_optimizers = lambda: torch.optim.AdamW(module.parameters(), lr=0.01, weight_decay=0.1, **kind)
    exact = Exact(sparsifier)
    make_trainer(sparsifier, exact, max_steps=8).fit(module)
    assert exact.steps == 8


@pytest.mark.parametrize("order", list(itertools.permutations(range(3))))
@pytest.mark.parametrize("average", [EMAWeightAveraging, WeightAveraging])
def test_averaging_callbacks_in_any_order_leave_training_exact(average, order, make_mlp, make_trainer):
    sparsifier = falling()
    exact = Exact(sparsifier)
    callbacks = [sparsifier, average(), exact]
    module = make_mlp()
    make_trainer(*(callbacks[i] for i in order), max_epochs=2, limit_train_batches=4).fit(module)
    assert exact.steps == 8


def test_a_compiled_network_is_one_graph_compiled_once_while_masks_move(make_mlp, make_trainer):
    graphs = []

    def backend(graph: Any, inputs: Any) -> Any:
        graphs.append(graph)
        return graph.forward

    module = make_mlp()
    module.network = torch.compile(module.network, backend=backend, dynamic=False)
    sparsifier = RiglSparsity(0.2, every_n_steps=2)
    make_trainer(sparsifier, max_steps=8).fit(module)
    assert len(graphs) == 1


def test_a_copy_of_a_used_callback_is_independent_of_it(make_mlp, make_trainer):
    sparsifier = RiglSparsity(0.2, every_n_steps=2)
    make_trainer(sparsifier, max_steps=4).fit(make_mlp())
    other = copy.deepcopy(sparsifier)
    assert all(torch.equal(mask, other.masks[name]) for name, mask in sparsifier.masks.items())
    make_trainer(other, max_steps=2).fit(make_mlp())
    assert (sparsifier.step, other.step) == (4, 2)


@pytest.mark.parametrize("bad", [float("inf"), float("nan")])
@pytest.mark.parametrize("name", ["network.1.weight", "network.1.bias"], ids=["sparse", "dense"])
def test_weights_that_are_not_finite_stop_the_run_before_a_checkpoint_is_written(
    name, bad, make_mlp, make_trainer, tmp_path
):
    class Diverging(Callback):
        def on_before_optimizer_step(self, trainer, pl_module, optimizer):
            if trainer.global_step == 2:
                pl_module.get_parameter(name).grad[0] = bad

    saved = ModelCheckpoint(tmp_path / "saved", "{step}", save_top_k=-1, every_n_train_steps=1)
    with pytest.raises(SparselitError, match=f"{re.escape(name)} holds NaN or infinity after optimizer step 3"):
        make_trainer(falling(), saved, Diverging(), max_steps=6, enable_checkpointing=True).fit(make_mlp())
    assert {path.name for path in (tmp_path / "saved").iterdir()} == {"step=1.ckpt", "step=2.ckpt"}


def test_large_finite_weights_whose_sum_overflows_are_no_reason_to_stop():
    half = torch.full((400, 400), 3.0, dtype=torch.float16)
    assert not torch.isfinite(half.sum())
    refuse_non_finite({"half": half, "single": torch.full((9,), 3e38)}, 1)
    half[7, 7] = float("-inf")
    with pytest.raises(SparselitError, match="half holds NaN or infinity after optimizer step 4"):
        refuse_non_finite({"single": torch.full((9,), 3e38), "half": half}, 4)


@pytest.mark.parametrize("moments", ["keep", "mask", "reset"])
def test_the_fast_projection_of_large_tensors_is_the_slow_one(moments, make_mlp, make_trainer):
    module = make_mlp()
    module.network[1], module.network[3] = nn.Linear(64, 101), nn.Linear(101, 2)
    assert module.network[1].weight.numel() > SMALL

    class Compare(AnnealedSparsity):
        def cut(self, tensors, step):
            expected = {n: top_k_mask(w, self.targets(step)[n]) for n, w in tensors.items()}
            masks = super().cut(tensors, step)
            assert (masks is None) == (moments == "keep")
            for name, weight in tensors.items():
                assert torch.equal(weight != 0, expected[name])
            return masks

    sparsifier = Compare(Schedule(to=0.01, end=8), moments=moments)
    make_trainer(sparsifier, max_steps=10).fit(module)
    assert sparsifier.thresholds.keys() == {"network.1.weight"}


def test_projection_at_one_percent_beats_random_masks_of_as_many_weights(make_mlp, make_trainer):
    def loss(sparsifier: Any) -> float:
        module = make_mlp(lr=0.02)
        torch.manual_seed(0)
        module.network[1], module.network[3] = nn.Linear(64, 101), nn.Linear(101, 2)
        make_trainer(sparsifier, max_steps=240, max_epochs=-1).fit(module)
        images, labels = module.train_dataloader().dataset.tensors
        assert int(module.network[1].weight.count_nonzero()) == 65
        return nn.functional.cross_entropy(module.network(images), labels).item()

    density = 0.01
    projection = loss(AnnealedSparsity(Schedule(to=density, end=0.6)))
    random = min(loss(StaticSparsity(density, seed=seed)) for seed in (0, 1, 2))
    assert projection < 0.75 * random
