"""Checkpoints of a running fit: written atomically, thinned out, and enough to go on bit for bit after any kill."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint

from sparselit.errors import SparselitError, check_whole
from sparselit.runs.atomic import remove_leftovers, write_atomically
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import CHECKPOINTS, checkpoint_name, checkpoints_in


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, then renames it; reads one without executing anything in it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; a process killed meanwhile leaves the old file, or none."""
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read ``path`` onto the CPU, tensors and plain values only."""
        return load_checkpoint(path)


class RunCheckpoint(Checkpoint):
    """Saves ``checkpoints/step=N.ckpt`` every so many optimizer steps and at the end, and keeps the newest ones.

    It runs after every other callback of a step, so a checkpoint holds the projected weights and the state in which
    the next step begins.

    Args:
        every_n_steps: optimizer steps between two checkpoints, at least 1.
        keep: newest checkpoints that stay on disk, at least 1; two survive a damaged file.
        dirpath: folder of the checkpoints; default ``checkpoints`` in the run folder.
    """

    def __init__(self, every_n_steps: int = 100, keep: int = 2, dirpath: str | None = None) -> None:
        super().__init__()
        for key, value in (("every_n_steps", every_n_steps), ("keep", keep)):
            check_whole(f"RunCheckpoint.{key}", value, 1)
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.last_path: Path | None = None
        self.last_step = 0
        self._seconds = 0.0  # before this process
        self._began: float | None = None
        self._ahead = False  # the checkpoint of this step was written before its end
        self._seen = 0  # global step at the end of the previous batch; accumulation leaves it unchanged

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Find the folder and remove what a killed process left half written."""
        if self.dirpath is None:
            self.dirpath = Path(trainer.log_dir or trainer.default_root_dir) / CHECKPOINTS
        if stage == "fit" and trainer.is_global_zero:
            remove_leftovers(self.dirpath)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the step that the run resumes from as saved, if its checkpoint stands in this folder."""
        self._began = time.monotonic()
        self.last_step = self._seen = trainer.global_step
        resumed = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).absolute()
        self.last_path = resumed if resumed and self.dirpath and resumed.parent == self.dirpath.absolute() else None

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the cadence says so, and after the last step."""
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        due = self._seen % self.every_n_steps == 0 or self._seen == trainer.max_steps or self._ahead
        if stepped and due:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state of a run that ended for another reason than its number of steps.

        Also where a callback has changed the weights since: what is saved is what is reported and evaluated.
        """
        saved = self.last_path if self.last_step == trainer.global_step else None
        changed = trainer.is_global_zero and not (saved and _holds(saved, pl_module.state_dict()))
        if trainer.strategy.broadcast(changed):
            self.save(trainer)
        self._seconds, self._began = self.seconds, None

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, seconds; what was spent after the checkpoint resumed from is not in it."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    def state_dict(self) -> dict[str, Any]:
        """The time spent."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self._seconds = state_dict["seconds"]

    def save(self, trainer: Trainer, ahead: bool = False) -> None:
        """Write the checkpoint of the current step and remove the ones that are not kept.

        Args:
            trainer: the trainer.
            ahead: another callback has work to do in this step that should not cost it; the checkpoint is written
                again at the end of the step.
        """
        step = trainer.global_step
        self._ahead = ahead
        if self.dirpath is None or getattr(trainer, "fast_dev_run", False):
            return
        path = self.dirpath / checkpoint_name(step)
        trainer.save_checkpoint(path)
        self.last_step, self.last_path = step, path
        if trainer.is_global_zero:
            on_disk = checkpoints_in(self.dirpath)
            # A file of a later step is one that could not be read when the run was resumed.
            kept = sorted(other for other in on_disk if other <= step)[-self.keep :]
            for other, stale in on_disk.items():
                if other not in kept:
                    stale.unlink(missing_ok=True)


def _holds(path: Path, tensors: Mapping[str, torch.Tensor]) -> bool:
    """Whether a checkpoint holds exactly these tensors."""
    try:
        saved = load_checkpoint(path)["state_dict"]
    except SparselitError:
        return False
    return saved.keys() == tensors.keys() and all(torch.equal(saved[n], t.cpu()) for n, t in tensors.items())


class RandomState(Callback):
    """Gives training a random stream of its own and keeps it in the checkpoint, so that dropout resumes bit for bit.

    The generator's state at the end of a step is put back at the start of the next one. What happens between the two
    (validation, a search for circuits, a new iterator over the data) may draw random numbers; training does not see it.
    The first step has the state in which the fit began, so that the number of workers does not matter either.
    """

    def __init__(self) -> None:
        self._state: dict[str, torch.Tensor] = {}

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Remember the state in which the fit begins, unless it is resumed."""
        if not self._state:
            self._remember(pl_module)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Put back the state in which the previous step ended."""
        if "cpu" in self._state:
            torch.set_rng_state(self._state["cpu"])
        if "cuda" in self._state and pl_module.device.type == "cuda":
            torch.cuda.set_rng_state(self._state["cuda"], pl_module.device)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Remember the state in which the step ended."""
        self._remember(pl_module)

    def _remember(self, pl_module: LightningModule) -> None:
        self._state["cpu"] = torch.get_rng_state()
        if pl_module.device.type == "cuda":
            self._state["cuda"] = torch.cuda.get_rng_state(pl_module.device)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state; with several processes, that of the first one."""
        return dict(self._state)

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a saved state."""
        self._state = {device: state.cpu().to(torch.uint8) for device, state in state_dict.items()}
