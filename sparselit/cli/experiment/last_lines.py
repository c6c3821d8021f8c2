"""What there is to say when a command has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from sparselit.report.summary import score_lines
from sparselit.training.run_result import accuracies
from sparselit.training.sparsifier import sparsifiers_of


def measure(trainer: Trainer, model: LightningModule, data: LightningDataModule | None) -> dict[str, float]:
    """Test a trained model where model and data have what a test needs.

    Args:
        trainer: ends where it stands.
        model: the trained module.
        data: its data; None for none.

    Returns:
        Logged values by name: those of the last validation, and those of the test.
    """
    metrics = last_validation(trainer)
    if data is not None and is_overridden("test_step", model) and is_overridden("test_dataloader", data):
        for found in trainer.test(model, datamodule=data, verbose=False):
            metrics.update(found)
    return metrics


def last_validation(trainer: Trainer) -> dict[str, float]:
    """Values that the last validation logged, by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def problems(trainer: Trainer) -> list[str]:
    """What the sparsity callbacks have found to be denser than it should be, one line each."""
    return [text for sparsifier in sparsifiers_of(trainer) for text in sparsifier.promise.problems]


def result_lines(results: Sequence[Mapping[str, float]]) -> str:
    """A table of accuracies, or the bare values where a model logs others."""
    metrics = {name: value for found in results for name, value in found.items()}
    found = accuracies(metrics)
    lines = score_lines(found) if found else [f"{name}  {value:.6g}" for name, value in metrics.items()]
    return "".join(f"{line}\n" for line in lines)
