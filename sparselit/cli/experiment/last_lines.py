"""What there is to say when a command has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from sparselit.report.summary import score_lines, scores
from sparselit.runs.folder import RunFolder, checkpoints_in, shown
from sparselit.training.run_checkpoint import RunCheckpoint


def measure(trainer: Trainer, model: LightningModule, data: LightningDataModule | None) -> dict[str, float]:
    """Test a trained model where model and data know how to.

    Returns:
        Logged values by name: those of the last validation, and those of the test.
    """
    logged = trainer.callback_metrics
    metrics = {name: float(value) for name, value in logged.items() if name.startswith("val/")}
    if data is not None and is_overridden("test_step", model) and is_overridden("test_dataloader", data):
        for found in trainer.test(model, datamodule=data, verbose=False):
            metrics.update(found)
    return metrics


def files(folder: RunFolder, checkpoint: RunCheckpoint | None) -> list[tuple[str, str]]:
    """The files that a person opens next, as (what, path)."""
    found = [("summary", shown(folder.summary))]
    saved = checkpoints_in(checkpoint.dirpath) if checkpoint and checkpoint.dirpath else {}
    return [("checkpoint", shown(saved[max(saved)])), *found] if saved else found


def result_lines(results: Sequence[Mapping[str, float]]) -> str:
    """A table of accuracies, or the bare values where a model logs others."""
    metrics = {name: value for found in results for name, value in found.items()}
    found = scores(metrics)
    lines = score_lines(found) if found else [f"{name}  {value:.6g}" for name, value in metrics.items()]
    return "".join(f"{line}\n" for line in lines)
