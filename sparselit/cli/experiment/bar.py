"""The progress bar of a run: one line of 80 columns on a terminal, a plain line a minute in a file."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import TQDMProgressBar
from lightning.pytorch.callbacks.progress.tqdm_progress import Tqdm

from sparselit.cli.terminal import say
from sparselit.training.steps import run_length

#: Logged names and what they are called in the bar, in its order.
_FIGURES = {
    "train/loss": "loss {:.3g}",
    "train/accuracy": "accuracy {:.1%}",
    "density/total": "density {:.3g}",
    "circuit/edges": "edges {:,.0f}",
}
#: Seconds between two lines of a file.
_EVERY = 60.0


class RunBar(TQDMProgressBar):
    """Step, time left, loss, accuracy, density, edges of the last circuit; on standard error.

    It counts optimizer steps of the whole run, so that a run that goes on has its total and its time left.
    """

    BAR_FORMAT = "{desc}{n:.0f}/{total_fmt}  {remaining} left{postfix}"

    def __init__(self) -> None:
        super().__init__(refresh_rate=1)
        self._said = 0.0

    def _bar(self, description: str, leave: bool = False, **more: Any) -> Tqdm:
        hidden = self.is_disabled or not sys.stderr.isatty()
        shape: dict[str, Any] = {"file": sys.stderr, "dynamic_ncols": True, "smoothing": 0, "mininterval": 0.2}
        return Tqdm(desc=description, leave=leave, disable=hidden, bar_format=self.BAR_FORMAT, **shape, **more)

    def init_train_tqdm(self) -> Tqdm:
        """The bar of training, from where the run stands to its end."""
        total = run_length(self.trainer, self.trainer.lightning_module)
        self._said = time.monotonic()
        return self._bar("step ", True, total=total if total > 0 else None, initial=self.trainer.global_step)

    def init_sanity_tqdm(self) -> Tqdm:
        """The bar of the check before training."""
        return self._bar("check ")

    def init_validation_tqdm(self) -> Tqdm:
        """The bar of a validation."""
        return self._bar("validation ")

    def init_test_tqdm(self) -> Tqdm:
        """The bar of a test."""
        return self._bar("test ")

    def init_predict_tqdm(self) -> Tqdm:
        """The bar of predictions."""
        return self._bar("prediction ")

    def on_train_epoch_start(self, trainer: Trainer, *_: Any) -> None:
        """Nothing: the bar is the run's, whatever its epochs are."""

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Nothing, as above."""

    def on_train_batch_end(self, trainer: Trainer, *_: Any) -> None:
        """Show the step, at most five times a second."""
        bar = self.train_progress_bar
        if bar.disable:
            self._say(trainer)
        elif time.monotonic() - self._said >= bar.mininterval or trainer.global_step == bar.total:
            self._said = time.monotonic()
            bar.n = trainer.global_step
            bar.set_postfix_str(figures(trainer.callback_metrics), refresh=False)
            bar.refresh()

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close its bar."""
        self.val_progress_bar.close()
        self.reset_dataloader_idx_tracker()

    def _say(self, trainer: Trainer) -> None:
        if self.is_disabled or time.monotonic() - self._said < _EVERY:
            return
        self._said = time.monotonic()
        total = self.train_progress_bar.total
        of = f" of {total}" if total else ""
        say(f"step {trainer.global_step}{of}, {figures(trainer.callback_metrics)}")


def figures(metrics: Mapping[str, Any]) -> str:
    """The figures of a run in the order of the bar, as ``loss 0.012, accuracy 99.8%, density 0.05, edges 42``.

    Args:
        metrics: what was logged, by name; what is not there, or is no number, is left out.
    """
    values = {name: float(metrics[name]) for name in _FIGURES if name in metrics}
    if not metrics.get("circuit/found"):  # the size of the whole model stands there then
        values.pop("circuit/edges", None)
    return ", ".join(_FIGURES[name].format(value) for name, value in values.items() if math.isfinite(value))
