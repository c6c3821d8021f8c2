"""Hyper-parameters and final figures side by side, which is what TensorBoard compares runs by."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger


def log_hyper_parameters(
    trainer: Trainer, module: LightningModule, more: Mapping[str, Any], figures: Mapping[str, float]
) -> None:
    """Log ``model/…`` and ``data/…``, the arguments of both, and what they led to.

    Args:
        trainer: has the loggers and the data.
        module: the model.
        more: further hyper-parameters, by name.
        figures: final values, which TensorBoard shows beside them; other loggers take them as values of the last step.
    """
    settings = {"model": module.hparams, "data": getattr(getattr(trainer, "datamodule", None), "hparams", {})}
    flat = {f"{key}/{name}": v for key, values in settings.items() for name, v in values.items() if name[0] != "_"}
    flat |= more
    for logger in trainer.loggers:
        if isinstance(logger, TensorBoardLogger):
            logger.log_hyperparams(flat, dict(figures), trainer.global_step)
            logger.experiment.flush()  # nothing comes after it that would
        else:
            logger.log_hyperparams(flat)
            logger.log_metrics(dict(figures), trainer.global_step)
            logger.save()
