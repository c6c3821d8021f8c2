"""Optimizer steps of a run: how many there are, and in which of them something is logged."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer


def length_in_epochs(trainer: Trainer, module: LightningModule) -> int:
    """Optimizer steps of a run that is limited by ``max_epochs`` over a dataloader of known length.

    Args:
        trainer: its epochs and batches are counted.
        module: it must step its optimizer once per (accumulated) batch.

    Returns:
        Their number; -1 where it cannot be computed.
    """
    batches = trainer.num_training_batches
    if not module.automatic_optimization or math.isinf(batches) or trainer.max_epochs in (None, -1):
        return -1
    return math.ceil(batches / trainer.accumulate_grad_batches) * int(trainer.max_epochs or 0)


def is_logging_step(trainer: Trainer) -> bool:
    """Whether the trainer writes what is logged in this step; the last step of the run counts too."""
    every = bool(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return every and (trainer._logger_connector.should_update_logs or trainer.global_step == trainer.max_steps)
