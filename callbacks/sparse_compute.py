"""Sparse compute while training: linear layers multiply by their non-zeros only, once that is faster."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from torch import nn

from sparselit.errors import check_range, check_whole
from sparselit.sparsity.compute import CROSSOVER, SMALLEST, SparseLinear
from sparselit.training.sparsifier import sparsifiers_of


class SparseCompute(Callback):
    """Lets linear layers skip the zeros in forward and backward, below a density at which that pays.

    The weight's gradient stays dense under methods that revive dead weights by it (projection; RigL where an exchange
    is due), and is computed for the living entries only where the sparsity callback masks it (``grads: masked``). Up
    to rounding nothing else changes. On the CPU, in float32 and float64; elsewhere layers stay as they are.

    Args:
        below: density under which a layer multiplies sparsely, in (0, 1]; the default is the measured crossover.
        smallest: number of entries below which a matrix is multiplied densely all the same.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, below: float = CROSSOVER, smallest: int = SMALLEST) -> None:
        check_range("below", below, 0, 1, above=True)
        check_whole("smallest", smallest, 0)
        self.below, self.smallest = below, smallest
        self._layers: dict[str, SparseLinear] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Find the layers; those on other devices than the CPU stay as they are."""
        self._layers = {}
        for name, layer in pl_module.named_modules():
            if type(layer) is nn.Linear and layer.weight.numel() >= self.smallest and layer.weight.device.type == "cpu":
                layer.__class__ = SparseLinear
                self._layers[f"{name}.weight"] = layer  # type: ignore[assignment]

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Decide layer by layer for this step, on the budgets of the sparsity callbacks."""
        for layer in self._layers.values():
            layer.sparse = False
        for sparsifier in sparsifiers_of(trainer):
            kept = sparsifier.targets(sparsifier.step)
            dense_gradient = not sparsifier.masks_gradients or sparsifier.reads_gradients(sparsifier.step + 1)
            for name, k in kept.items():
                if name not in self._layers:
                    continue
                layer = self._layers[name]
                layer.sparse = k < self.below * layer.weight.numel()
                layer.masked_gradient = not dense_gradient
                layer.live = sparsifier.masks.get(name)

    def on_train_batch_end(self, *_: Any) -> None:
        """Between two steps (validation, a search for circuits) everything is dense."""
        for layer in self._layers.values():
            layer.sparse = False

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave ordinary layers behind."""
        for layer in self._layers.values():
            for attribute in ("sparse", "masked_gradient", "live", "_pattern"):
                layer.__dict__.pop(attribute, None)
            layer.__class__ = nn.Linear  # type: ignore[assignment]
        self._layers = {}

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Leave ordinary layers behind."""
        self.teardown(trainer, pl_module, "fit")
