"""Many tiny trainings through the command line, in this process, each with one thing changed."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
import sys
import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from sparselit.cli import main
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import checkpoint_files

from .conftest import QUICK

#: Code of the user's own, importable from the current folder.
OWN = """\
import torch
from lightning.pytorch import Callback, LightningModule
from lightning.pytorch.callbacks import BaseFinetuning, BasePredictionWriter, ProgressBar
from lightning.pytorch.loggers.logger import Logger


class Backboned(LightningModule):
    def __init__(self):
        super().__init__()
        self.backbone = torch.nn.Sequential(torch.nn.Linear(9, 8), torch.nn.ReLU())
        self.head = torch.nn.Linear(8, 2)

    def training_step(self, batch, batch_idx):
        return self.head(self.backbone(batch.tokens.float())).square().mean()

    def configure_optimizers(self):
        return torch.optim.SGD(self.head.parameters(), 0.01)


class Batches(Callback):
    seen = []

    def on_train_start(self, *args):
        Batches.seen = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        Batches.seen.append(batch.tokens.tolist())


class Validations(Callback):
    at = []

    def on_fit_start(self, *args):
        Validations.at = []

    def on_validation_end(self, trainer, pl_module):
        Validations.at.append(trainer.global_step)


class Failing(Callback):
    def on_test_start(self, *args):
        raise ValueError("not today")


class Frozen(BaseFinetuning):
    def freeze_before_training(self, pl_module):
        self.freeze(pl_module.transformer.embed)

    def finetune_function(self, pl_module, epoch, optimizer):
        pass


class Writer(BasePredictionWriter):
    pass


class Bar(ProgressBar):
    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx):
        print(f"bar at {trainer.global_step}")


def begun(trainer, pl_module):
    print("begun by a function")


def size(batch):
    return len(batch.answer)



class Album(Logger):
    name, version, save_dir = "album", 0, None
    images, values, flat = [], [], {}

    def __init__(self):
        super().__init__()
        Album.images, Album.values, Album.flat = [], [], {}

    def log_metrics(self, metrics, step=None):
        Album.values.append((step, dict(metrics)))

    def log_hyperparams(self, params, *args):
        Album.flat = dict(params)

    def log_image(self, key, images, step=None):
        Album.images.append((key, step, [type(image).__name__ for image in images]))
"""


@dataclass(frozen=True)
class Fit:
    """What a command has said and left."""

    code: Any
    out: str
    err: str
    run: Path

    @property
    def lines(self) -> list[str]:
        return self.err.strip().splitlines()

    def weights(self) -> dict[str, torch.Tensor]:
        state: dict[str, torch.Tensor] = self.checkpoint()["state_dict"]
        return state

    def checkpoint(self) -> dict[str, Any]:
        return load_checkpoint(checkpoint_files(self.run / "checkpoints")[0])

    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.run / "result.json").read_text())
        return found


def command(*argv: str) -> Fit:
    """One command in this process, in the current folder."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        warnings.simplefilter("ignore")
        try:
            main(list(argv))
        except SystemExit as stop:
            code = stop.code or 0  # type: ignore[assignment]
    return Fit(code, out.getvalue(), err.getvalue(), Path("runs/run/version_0").absolute())


def fit(
    callbacks: Iterable[tuple[str, Mapping[str, Any]]] = (),
    argv: Iterable[str] = (),
    more: Mapping[str, Any] | None = None,
    **trainer: Any,
) -> Fit:
    """A training of six steps with these callbacks and settings, in the current folder, whose runs are removed before.

    Args:
        callbacks: class and arguments of each, beside the run's own.
        argv: further options.
        more: other keys of the configuration; None takes a key away.
        trainer: keys of the trainer.
    """
    shutil.rmtree("runs", ignore_errors=True)
    config = yaml.safe_load(QUICK)
    config["trainer"] |= trainer
    config["trainer"]["callbacks"] += [{"class_path": name, "init_args": dict(given)} for name, given in callbacks]
    config = {key: value for key, value in {**config, **(more or {})}.items() if value is not None}
    Path("run.yaml").write_text(yaml.safe_dump(config))
    return command("fit", "--config", "run.yaml", *argv)


@contextlib.contextmanager
def folder_of_fits(folder: Path) -> Iterator[None]:
    """A current folder with the user's own code in it."""
    before, path, flags = Path.cwd(), list(sys.path), torch.backends.cudnn.benchmark
    (folder / "own.py").write_text(OWN)
    os.chdir(folder)
    try:
        yield
    finally:
        os.chdir(before)
        sys.path[:] = path
        sys.modules.pop("own", None)
        torch.backends.cudnn.benchmark = flags
        torch.use_deterministic_algorithms(False)


def same(one: Mapping[str, torch.Tensor], other: Mapping[str, torch.Tensor]) -> bool:
    """Whether two models have the same weights, bit for bit."""
    return one.keys() == other.keys() and all(torch.equal(value, other[name]) for name, value in one.items())
