"""What there is to say when a command has ended."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.utilities.model_helpers import is_overridden

from sparselit.cli.experiment.callback_list import without_finders
from sparselit.cli.experiment.escaped import TRACEBACK, sentence
from sparselit.cli.terminal import say
from sparselit.report.facts import counted
from sparselit.report.summary import score_lines
from sparselit.training.run_result import accuracies
from sparselit.training.sparsifier import sparsifiers_of


def measure(trainer: Trainer, model: LightningModule, data: LightningDataModule | None) -> tuple[dict[str, float], str]:
    """Test a trained model where model and data have what a test needs.

    Args:
        trainer: ends where it stands.
        model: the trained module.
        data: its data; None for none.

    Returns:
        Logged values by name, those of the last validation and those of the test; and why there is no test, where it
        failed: whatever a callback does there, the training is done.
    """
    metrics, problem = last_validation(trainer), ""
    if data is not None and is_overridden("test_step", model) and is_overridden("test_dataloader", data):
        try:
            with without_finders(trainer):
                for found in trainer.test(model, datamodule=data, verbose=False):
                    metrics.update(found)
        except Exception as error:
            if os.environ.get(TRACEBACK):
                raise
            problem = f"the report split was not measured: {type(error).__name__}: {sentence(error)}"
            say(f"problem: {problem}")
    return metrics, problem


def dry_run_text(trainer: Trainer) -> str:
    """What ``fast_dev_run`` has done, in one line."""
    steps = counted(trainer.global_step, "optimizer step")
    batches = counted(sum(map(int, trainer.num_val_batches)), "validation batch", "validation batches")
    return f"fast_dev_run: {steps} and {batches} without an error; nothing was written"


def last_validation(trainer: Trainer) -> dict[str, float]:
    """Values that the last validation logged, by name."""
    return {name: float(value) for name, value in trainer.callback_metrics.items() if name.startswith("val/")}


def problems(trainer: Trainer) -> list[str]:
    """Where the run has not kept or not reached the density that was configured, one line each."""
    found = []
    for sparsifier in sparsifiers_of(trainer):
        promise = sparsifier.promise
        found += promise.problems
        if promise.shortfall and sparsifier.arrival.missed:
            found.append(promise.shortfall)
    return found


def result_lines(results: Sequence[Mapping[str, float]]) -> str:
    """A table of accuracies, or the bare values where a model logs others."""
    metrics = {name: value for found in results for name, value in found.items()}
    found = accuracies(metrics)
    lines = score_lines(found) if found else [f"{name}  {value:.6g}" for name, value in metrics.items()]
    return "".join(f"{line}\n" for line in lines)
