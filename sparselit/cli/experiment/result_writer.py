"""Leaves ``result.json`` in a run folder, and the summary that is made from it."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule, Trainer

from sparselit.cli.experiment.last_lines import last_validation
from sparselit.report.advice import advice
from sparselit.report.facts import visible
from sparselit.report.summary import summary
from sparselit.runs.atomic import write_text
from sparselit.runs.folder import CIRCUITS, RunFolder, checkpoint_files
from sparselit.runs.result import Result, Seconds, Steps, digest
from sparselit.training.discovery import Discovery
from sparselit.training.run_checkpoint import RunCheckpoint
from sparselit.training.run_result import (
    accuracies,
    circuits,
    density,
    losses,
    machine,
    problems_of,
    versions,
)


class ResultWriter:
    """Writes what one run has come to: when it begins, so that a killed run is known, and when it ends.

    Args:
        folder: of the run.
        configuration: the content of its ``config.yaml``.
        seed: None where nothing was seeded.
        first: the optimizer step that this process starts from.
    """

    def __init__(self, folder: RunFolder, configuration: Mapping[str, Any], seed: int | None, first: int) -> None:
        self.folder, self.seed, self.first = folder, seed, first
        self.digest = digest(configuration)
        self._began = time.monotonic()

    def write(
        self,
        ended: str,
        trainer: Trainer,
        model: LightningModule,
        data: LightningDataModule | None,
        metrics: Mapping[str, float] | None = None,
        problem: str = "",
    ) -> Result:
        """Write ``result.json``, and ``summary.md`` unless the run has only begun.

        Args:
            ended: why, a key of :data:`sparselit.runs.result.ENDED`.
            trainer: the run's.
            model: the trained module.
            data: the task.
            metrics: logged values; default those of the last validation.
            problem: what ended the run, where something did.
        """
        callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
        discovery = next((callback for callback in callbacks if isinstance(callback, Discovery)), None)
        checkpoint = next((callback for callback in callbacks if isinstance(callback, RunCheckpoint)), None)
        done = max(trainer.global_step, self.first)
        metrics = last_validation(trainer) if metrics is None else metrics
        found, unreadable = circuits(self.folder.path / CIRCUITS, self.folder.path, done, discovery)
        result = Result(
            name=self.folder.label,
            task=type(data).__name__,
            model=type(model).__name__,
            seed=self.seed,
            digest=self.digest,
            ended=ended,
            steps=Steps(trainer.max_steps if trainer.max_steps > 0 else None, done),
            seconds=Seconds(
                round(checkpoint.seconds if checkpoint else time.monotonic() - self._began, 3),
                round(discovery.seconds if discovery else 0.0, 3),
            ),
            accuracies=accuracies(metrics),
            losses=losses(metrics),
            density=None if ended == "running" else density(model, trainer),
            circuits=found,
            checkpoint=self._newest(checkpoint),
            problems=(*([problem] if problem else []), *problems_of(trainer), *unreadable),
            advice=(),
            versions=versions(),
            machine=machine(trainer),
        )
        trained = trainer.callback_metrics.get("train/accuracy")
        optimum = getattr(data, "optimum", 1.0)
        result = replace(result, advice=advice(result, optimum, None if trained is None else float(trained)))
        write_text(self.folder.result, result.text())
        if ended != "running":
            write_text(self.folder.summary, visible(summary(result, self.folder.path)))
        return result

    def _newest(self, checkpoint: RunCheckpoint | None) -> str | None:
        """The last checkpoint, relative to the run folder where it lies inside."""
        if checkpoint is None or checkpoint.dirpath is None:
            return None
        saved = [checkpoint.last_path] if checkpoint.last_path else checkpoint_files(checkpoint.dirpath)
        if not saved:
            return None
        path, folder = saved[0].absolute(), self.folder.path.absolute()
        return path.relative_to(folder).as_posix() if path.is_relative_to(folder) else str(path)


def settings_of(result: Result) -> dict[str, Any]:
    """What a result adds to the hyper-parameters of model and data."""
    target = None if result.density is None else result.density.target
    found = {"seed": result.seed, "steps": result.steps.asked, "density/target": target}
    return {name: value for name, value in found.items() if value is not None}


def figures_of(result: Result) -> dict[str, float]:
    """What stands beside the hyper-parameters: steps taken, accuracies, density (of the sparsified tensors)."""
    found = {f"{split}/accuracy": result.accuracy(split) for split in ("val", "report")}
    if result.density is not None:
        reached = result.density.reached
        found["density/total"] = result.density.total if reached is None else reached
    found["steps"] = float(result.steps.done)
    return {name: value for name, value in found.items() if value is not None}
