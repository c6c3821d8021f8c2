"""A search in the middle of a run: it leaves no trace in the model, and can be stopped."""

from __future__ import annotations

import os
import random
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from types import FrameType

import torch
from lightning.pytorch.utilities.seed import isolate_rng
from torch import nn

from sparselit.circuits.search import Progress
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode and a random state that is always the same; everything is put back afterwards."""
    modes = {module: module.training for module in model.modules()}
    device = next(model.parameters()).device
    with isolate_rng(include_cuda=device.type == "cuda"), torch.enable_grad():
        torch.default_generator.manual_seed(0)  # torch.manual_seed would reach devices whose state is not kept
        if device.type == "cuda":
            torch.cuda.manual_seed(0)
        random.seed(0)
        model.eval()
        failure: BaseException | None = None
        try:
            yield
        except BaseException as error:  # Lightning's isolate_rng puts nothing back after an error
            failure = error
        for module, mode in modes.items():
            module.training = mode
    if failure is not None:
        raise failure


def on_device(behaviour: Behaviour, device: torch.device) -> Behaviour:
    """The same examples on a device.

    Args:
        behaviour: the examples by split.
        device: the device.
    """
    splits = {name: Examples(*(field.to(device) for field in split)) for name, split in behaviour.splits.items()}
    return replace(behaviour, splits=splits)


@dataclass
class Stop:
    """Whether the user has stopped a search.

    Attributes:
        requested: Ctrl-C was pressed.
        elsewhere: whether it was pressed in another process.
    """

    requested: bool = False
    elsewhere: Callable[[], bool] | None = None

    def heeded_by(self, progress: Progress) -> Progress:
        """The same callback, which raises KeyboardInterrupt after Ctrl-C; a search then gives what it has."""

        def heeding(stage: str, edges: int) -> None:
            progress(stage, edges)
            self.requested = self.requested or (self.elsewhere is not None and self.elsewhere())
            if self.requested:
                raise KeyboardInterrupt

        return heeding


@contextmanager
def stoppable(elsewhere: Callable[[], bool] | None = None) -> Iterator[Stop]:
    """Let the first Ctrl-C end a search with what it has, and the second one end the program.

    Where somebody else handles the signal (``sparselit fit`` finishes the step), or outside the main thread, nothing
    changes.

    Args:
        elsewhere: whether Ctrl-C was pressed in another process.
    """
    stop = Stop(elsewhere=elsewhere)
    mine = threading.current_thread() is threading.main_thread()
    if not mine or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield stop
        return

    def arrived(signum: int, frame: FrameType | None) -> None:
        if stop.requested:
            raise KeyboardInterrupt
        stop.requested = True
        os.write(2, b"\nending the search with what it has; Ctrl-C again stops at once\n")

    signal.signal(signal.SIGINT, arrived)
    try:
        yield stop
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
