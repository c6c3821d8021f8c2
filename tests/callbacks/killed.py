"""Run as a program: every method trains in a process of its own that kills itself, and goes on in another one."""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback
from torch import nn

from sparselit.training.run_checkpoint import AtomicCheckpointIO
from tests.callbacks.methods import STEPS, Member, Regression, fit, members

#: The step in whose middle the process dies; exchanges and prunings are due after it.
FATAL = 8


class Save(Callback):
    """Keeps a checkpoint of every step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *args: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


class Die(Callback):
    """Kills the process between the backward pass and the update."""

    def on_before_optimizer_step(self, trainer: Any, pl_module: Any, optimizer: Any) -> None:
        if trainer.global_step == FATAL:
            os.kill(os.getpid(), signal.SIGKILL)


def train(member: Member, folder: Path, *callbacks: Callback, ckpt_path: Path | None = None) -> None:
    module = Regression()
    if ckpt_path:  # nothing of the first run but the checkpoint is used
        nn.init.zeros_(module.first.weight)
    io = [AtomicCheckpointIO()]
    fit(module, member.usual(), Save(folder), *callbacks, ckpt_path=ckpt_path, max_steps=STEPS, plugins=io)


def in_child(work: Callable[[], None]) -> int:
    """Do it in a forked process; its exit code, or minus the signal that ended it."""
    child = os.fork()
    if child == 0:
        try:
            work()
        except BaseException as error:
            sys.stderr.write(f"{error!r}\n")
            os._exit(1)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def main(root: Path) -> None:
    torch.set_num_threads(1)
    report = {}
    for name, member in members().items():
        whole, dead, moved, resumed = (root / name / part for part in ("whole", "dead", "moved", "resumed"))
        codes = [in_child(lambda: train(member, whole)), in_child(lambda: train(member, dead, Die()))]  # noqa: B023
        newest = max(dead.glob("*.ckpt"), key=lambda path: int(path.stem))
        moved.mkdir()
        newest.rename(moved / "elsewhere.ckpt")
        codes.append(in_child(lambda: train(member, resumed, ckpt_path=moved / "elsewhere.ckpt")))  # noqa: B023
        report[name] = {"codes": codes, "newest": int(newest.stem)}
    (root / "report.json").write_text(json.dumps(report), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
