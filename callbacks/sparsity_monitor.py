"""What the sparsity of each tensor really is, while a model trains."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer

from sparselit.errors import SparselitError
from sparselit.sparsifier import is_logging_step
from sparselit.sparsity.density import dead_lines, density_table


class SparsityMonitor(Callback):
    """Logs the density of every matrix and its rows and columns without a weight, with or without a sparsifier.

    Logged per parameter with at least two dimensions: ``density/<name>``, ``dead_rows/<name>`` (output neurons, dim 0)
    and ``dead_columns/<name>`` (input channels, dim 1).

    Args:
        every_n_steps: optimizer steps between two measurements, at least 1; null for the trainer's
            ``log_every_n_steps``.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, every_n_steps: int | None = None) -> None:
        if every_n_steps is not None and every_n_steps < 1:
            raise SparselitError(f"every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count and log at the cadence."""
        if self.every_n_steps and trainer.global_step % self.every_n_steps:
            return
        if not self.every_n_steps and not is_logging_step(trainer):
            return
        matrices = {name: p for name, p in pl_module.named_parameters() if p.ndim >= 2}
        for row in density_table(matrices):
            rows, columns = dead_lines(matrices[row.name])
            values = {"density": row.density, "dead_rows": float(rows), "dead_columns": float(columns)}
            for key, value in values.items():
                pl_module.log(f"{key}/{row.name}", value, batch_size=1)
