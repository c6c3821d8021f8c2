"""Lightning's Trainer and logger with what the command line changes in them."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger

from sparselit.circuits.discover import NoCircuitError
from sparselit.cli.experiment.discover_command import Discovered, search_checkpoint
from sparselit.errors import SparselitError
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
        if not all(hasattr(datamodule, name) for name in ("encode", "decode", "split")):
            raise SparselitError(f"predict needs a sparselit.Task as data, not {type(datamodule).__name__}")
        task: Any = datamodule
        if ckpt_path is not None:
            model.load_state_dict(load_checkpoint(ckpt_path)["state_dict"])
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
    ) -> list[Discovered | NoCircuitError]:
        """Find the circuit of a checkpoint and write it.

        Args:
            model: an instance of the checkpoint's model.
            datamodule: the task.
            ckpt_path: checkpoint file, or "last" for the newest of the run that --config names.
            output: file of the circuit; default ``circuits/step=N.json`` in the run folder.
        """
        if ckpt_path is None:
            raise SparselitError("discover needs --ckpt_path")
        return search_checkpoint(self, model, datamodule, ckpt_path, output)


@torch.no_grad()
def _answer(model: LightningModule, task: Any, prompt: str) -> Answer:
    tokens = torch.tensor([task.encode(prompt)])
    probability, token = model(tokens)[0, -1].softmax(-1).max(-1)
    return Answer(prompt, task.decode([int(token)]), float(probability))
