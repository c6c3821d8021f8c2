"""Ctrl-C, SIGTERM or a closed terminal during training: finish the step, keep a checkpoint of exactly it, and stop."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from sparselit.training.run_checkpoint import RunCheckpoint


class Interrupted(Exception):
    """Training was stopped from outside after a complete step.

    Attributes:
        signum: the signal that arrived.
        step: optimizer steps taken.
    """

    def __init__(self, signum: int, step: int) -> None:
        super().__init__(f"{signal.Signals(signum).name} at step {step}")
        self.signum = signum
        self.step = step


class Interruption(Checkpoint):
    """Stops at the end of a step when a signal has arrived; a second one ends the process at once.

    It derives from Checkpoint to run last of all callbacks, after the one that it has save the step.

    Args:
        checkpoint: saves the step; None where the run keeps no checkpoints.
    """

    def __init__(self, checkpoint: RunCheckpoint | None) -> None:
        self.checkpoint = checkpoint
        self.signum: int | None = None
        self._listening = self._training = False
        self._seen = 0  # global step at the end of the previous batch; accumulation leaves it unchanged
        self._process = os.getpid()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Handle the signals inside a ``with`` block; outside the main thread this does nothing.

        A hang-up that was ignored from the start, as under ``nohup``, stays ignored.
        """
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        signals = [signal.SIGINT, signal.SIGTERM]
        if hasattr(signal, "SIGHUP") and signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
            signals.append(signal.SIGHUP)
        previous = {signum: signal.signal(signum, self._arrived) for signum in signals}
        self._listening = True
        try:
            yield
        finally:
            self._listening = False
            for signum, handler in previous.items():
                signal.signal(signum, handler)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on a step is finished first.

        Lightning's own handler for SIGTERM would end the run between two steps, without a checkpoint.
        """
        if self._listening:
            signal.signal(signal.SIGTERM, self._arrived)
        self._seen, self._training = trainer.global_step, True

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Stop here if a signal has arrived and the optimizer has stepped; all processes stop at the same step."""
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        arrived = self.signum is not None
        if trainer.world_size > 1:
            arrived = trainer.strategy.reduce_boolean_decision(arrived, all=False)
        if arrived and stepped:
            if self.checkpoint is not None and self.checkpoint.last_step != trainer.global_step:
                self.checkpoint.save(trainer)
            raise Interrupted(self.signum or signal.SIGINT, trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """From here on there is no step to finish."""
        self._training = False

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """From here on there is no step to finish."""
        self._training = False

    def _arrived(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # a worker that loads data: the main process decides
            if signum == signal.SIGTERM:
                os._exit(128 + signum)
        elif self.signum is not None:
            os._exit(128 + signum)
        elif self._training:
            self.signum = signum
            # Not sys.stderr: a handler may interrupt a write to it.
            with suppress(OSError):  # a terminal that was closed
                os.write(2, b"\nfinishing the step to keep a checkpoint; the same signal again stops at once\n")
        else:  # not KeyboardInterrupt, which ends a search with what it has
            sys.exit(128 + signum)
