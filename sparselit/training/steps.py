"""Optimizer steps of a run: how many there are, and in which of them something is logged."""

from __future__ import annotations

import math

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import GradientAccumulationScheduler


def run_length(trainer: Trainer, module: LightningModule) -> int:
    """Optimizer steps after which the trainer ends by itself: ``max_steps``, or ``max_epochs`` where that comes first.

    To be called when training or an epoch starts. A limit of time and a callback that stops the run are not foreseen.

    Args:
        trainer: its epochs, batches and accumulated gradients are counted from where it stands.
        module: must step its optimizer once per (accumulated) batch for epochs to be counted.

    Returns:
        Their number; -1 where it cannot be computed.
    """
    limits = [trainer.max_steps] if trainer.max_steps > 0 else []
    epochs, batches = trainer.max_epochs, trainer.num_training_batches
    if module.automatic_optimization and epochs is not None and epochs >= 0 and not math.isinf(batches):
        loop, first = trainer.fit_loop, trainer.current_epoch
        begun = loop.epoch_loop.batch_progress.current.ready if loop.restarted_mid_epoch else 0
        left = [_steps(int(batches), _accumulated(trainer, epoch)) for epoch in range(first, epochs)]
        taken = begun // _accumulated(trainer, first) if begun < batches else 0  # of the epoch that goes on
        limits.append(max(trainer.global_step, trainer.global_step + sum(left) - taken))
    return min(limits, default=-1)


def length_before_data(trainer: Trainer) -> int | None:
    """``max_steps`` before there is a dataloader; None where epochs are to be counted, -1 where nothing is known."""
    in_epochs = trainer.max_epochs is not None and trainer.max_epochs >= 0
    return trainer.max_steps if trainer.max_steps > 0 else None if in_epochs else -1


def _steps(batches: int, accumulated: int) -> int:
    return math.ceil(batches / accumulated)  # what is left at the end of an epoch is a step too


def _accumulated(trainer: Trainer, epoch: int) -> int:
    """Batches for one optimizer step in an epoch."""
    schedulers = [c for c in trainer.callbacks if isinstance(c, GradientAccumulationScheduler)]  # type: ignore[attr-defined]
    return schedulers[0].get_accumulate_grad_batches(epoch) if schedulers else trainer.accumulate_grad_batches


def is_last_step(trainer: Trainer) -> bool:
    """Whether the trainer ends by itself after this step: ``max_steps`` or the end of ``max_epochs``."""
    of_epochs = trainer.is_last_batch and trainer.current_epoch + 1 == trainer.max_epochs
    return of_epochs or trainer.global_step == trainer.max_steps


def is_logging_step(trainer: Trainer) -> bool:
    """Whether the trainer writes what is logged in this step; the last step of the run counts too."""
    every = bool(trainer.log_every_n_steps)  # type: ignore[attr-defined]
    return every and (trainer._logger_connector.should_update_logs or is_last_step(trainer))
