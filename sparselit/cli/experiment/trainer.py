"""Lightning's Trainer and logger with what the command line changes in them."""

from __future__ import annotations

import os
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.accelerators import CPUAccelerator
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.strategies.launchers import _MultiProcessingLauncher

from sparselit.circuits.discover import NoCircuitError
from sparselit.cli.experiment.discover_command import Discovered, search_checkpoint
from sparselit.errors import SparselitError
from sparselit.model.precision import load_exactly
from sparselit.runs.checkpoint_file import load_checkpoint


class Answer(NamedTuple):
    """What a model says after a prompt.

    Attributes:
        prompt: the prompt.
        answer: the most probable next token.
        probability: of that token, in [0, 1].
        right: the right answer; None where it is not known.
    """

    prompt: str
    answer: str
    probability: float
    right: str | None = None

    def __str__(self) -> str:
        verdict = "" if self.right is None else "  right" if self.right == self.answer else f"  wrong: {self.right!r}"
        return f"{self.prompt} → {self.answer!r}  (p = {self.probability:.3f}){verdict}"


class Events(TensorBoardLogger):
    """TensorBoard's events without the hparams.yaml beside them: config.yaml says the same, and can be run."""

    def save(self) -> None:
        """Leave the file out."""


#: Set to the number of the process that the user started, for those that DDP starts.
_FIRST_PROCESS = "SPARSELIT_FIRST_PROCESS"
#: Processes that train on any machine, however slowly.
_FEW_PROCESSES = 8


def refuse_processes(trainer: Trainer) -> None:
    """Refuse ways of training in several processes whose steps, circuits or run folder would not come together.

    Args:
        trainer: its strategy is looked at.

    Raises:
        SparselitError: names the setting.
    """
    first, strategy = os.environ.setdefault(_FIRST_PROCESS, str(os.getpid())), trainer.strategy
    if isinstance(strategy.launcher, _MultiProcessingLauncher):
        raise SparselitError(
            f"trainer.strategy: {type(strategy).__name__} with the start method {strategy.launcher._start_method!r} "
            "trains in copies of this process,\nwhose circuits and result are lost with them; use strategy: ddp"
        )
    if trainer.num_nodes > 1:
        raise SparselitError(
            f"trainer.num_nodes must be 1, got {trainer.num_nodes}: a run has one folder on one machine"
        )
    cores = max(os.cpu_count() or 1, _FEW_PROCESSES)
    if isinstance(trainer.accelerator, CPUAccelerator) and trainer.world_size > cores:
        raise SparselitError(f"trainer.devices must be at most {cores} on this machine, got {trainer.world_size}")
    environment = trainer._accelerator_connector.cluster_environment
    if trainer.world_size > 1 and environment.creates_processes_externally and first == str(os.getpid()):
        raise SparselitError(
            f"{type(environment).__name__} has started several processes; start one: with trainer.devices it starts "
            "the others itself"
        )


class ExperimentTrainer(Trainer):
    """A Trainer whose ``predict`` answers prompts in words, and that finds the circuit of a checkpoint."""

    def predict(  # type: ignore[override]
        self,
        model: LightningModule,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        prompt: str | None = None,
        n: int = 10,
    ) -> list[Answer]:
        """Show what a checkpoint answers to one prompt, or to some prompts of the report split.

        Args:
            model: the model to predict with.
            dataloaders: not used.
            datamodule: the task; it has the vocabulary.
            ckpt_path: checkpoint file, or "last" for the newest of the run that --config names.
            prompt: the text to complete by one token; default: prompts of the report split.
            n: number of prompts from the report split, at least 1.
        """
        if not all(hasattr(datamodule, name) for name in ("encode", "decode")):
            raise SparselitError(f"predict needs a sparselit.Task as data, not {type(datamodule).__name__}")
        if prompt is None and not hasattr(datamodule, "split"):
            raise SparselitError(f"{type(datamodule).__name__} has no prompts of its own; give --prompt TEXT")
        task: Any = datamodule
        if ckpt_path is not None:
            content = load_checkpoint(ckpt_path)
            load_exactly(model, content["state_dict"])
            if (data := content.get(type(datamodule).__qualname__)) is not None:
                task.load_state_dict(data)  # the vocabulary that the model was trained with
        model.eval()
        if prompt is not None:
            if not prompt:
                raise SparselitError("--prompt is empty; give the text that comes before the answer")
            return [_answer(model, task, prompt)]
        if n < 1:
            raise SparselitError(f"--n must be at least 1, got {n}")
        report = task.split("report")
        report = report.select(slice(0, n))
        prompts = [task.decode(row[:length]) for row, length in zip(report.tokens, report.length, strict=True)]
        answers = [task.decode([answer]) for answer in report.answer]
        return [_answer(model, task, text)._replace(right=right) for text, right in zip(prompts, answers, strict=True)]

    def discover(
        self,
        model: LightningModule,
        datamodule: LightningDataModule | None = None,
        ckpt_path: str | None = None,
        output: str | None = None,
        jobs: int = 1,
    ) -> list[Discovered | NoCircuitError]:
        """Find the circuit of a checkpoint and write it.

        Args:
            model: an instance of the checkpoint's model.
            datamodule: the task.
            ckpt_path: checkpoint file, or "last" for the newest of the run that --config names.
            output: file of the circuit; default ``circuits/step=N.json`` in the run folder.
            jobs: processes that search several tasks at once, at least 1.
        """
        if ckpt_path is None:
            raise SparselitError("discover needs --ckpt_path")
        return search_checkpoint(self, model, datamodule, ckpt_path, output, jobs)


@torch.no_grad()
def _answer(model: LightningModule, task: Any, prompt: str) -> Answer:
    tokens = torch.tensor([task.encode(prompt)])
    probability, token = model(tokens)[0, -1].softmax(-1).max(-1)
    return Answer(prompt, task.decode([int(token)]), float(probability))
