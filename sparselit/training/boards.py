"""Loggers that take more than numbers: pages of TensorBoard, pictures of circuits."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sparselit.circuits.circuit import Circuit


def boards(trainer: Trainer) -> list[TensorBoardLogger]:
    """The loggers that take figures and pages; none in processes that do not log."""
    return [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero]


def show_circuit(trainer: Trainer, circuit: Circuit, name: str, step: int) -> None:
    """Hand the picture of a circuit to every logger that takes pictures: TensorBoard's, and those with ``log_image``.

    Args:
        trainer: has the loggers.
        circuit: what is drawn.
        name: under which the logger keeps it.
        step: optimizer steps.
    """
    others: list[Any] = [logger for logger in trainer.loggers if hasattr(logger, "log_image")]
    for logger in [*boards(trainer), *others]:
        from sparselit.report.picture import draw  # matplotlib is slow to import

        if isinstance(logger, TensorBoardLogger):
            logger.experiment.add_figure(name, draw(circuit), global_step=step)
        else:
            logger.log_image(key=name, images=[draw(circuit)], step=step)
