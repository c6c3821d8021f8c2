"""Checkpoints of a running fit: written atomically, thinned out, and enough to go on bit for bit after any kill."""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from lightning.fabric.plugins import TorchCheckpointIO
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from sparselit.errors import SparselitError, check_choice, check_whole
from sparselit.runs.atomic import remove_leftovers, write_atomically
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import CHECKPOINTS, checkpoint_files, checkpoint_name, step_of
from sparselit.training.steps import is_last_step

#: Newest checkpoints that stay beside those that are kept for good; two survive a damaged file.
_NEWEST = 2


class AtomicCheckpointIO(TorchCheckpointIO):
    """Writes a checkpoint beside its target, then renames it; reads one without executing anything in it."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: str | Path, storage_options: Any = None) -> None:
        """Write ``checkpoint`` to ``path``; a process killed meanwhile leaves the old file, or none."""
        write_atomically(Path(path), lambda file: torch.save(checkpoint, file))

    def load_checkpoint(self, path: str | Path, *_: Any, **__: Any) -> dict[str, Any]:
        """Read ``path`` onto the CPU, tensors and plain values only."""
        return load_checkpoint(path)


class RunCheckpoint(Checkpoint):
    """Saves ``checkpoints/step=N.ckpt`` every so many optimizer steps and at the end, and keeps the newest or all.

    It runs after every other callback of a step, so a checkpoint holds the projected weights and the state in which
    the next step begins. It removes only files that it wrote itself: where another callback has written
    ``step=N.ckpt`` before, it writes ``step=N-v1.ckpt``, as Lightning's own does.

    Args:
        every_n_steps: optimizer steps between two checkpoints, at least 1.
        keep: newest checkpoints that stay on disk, at least 1 (two survive a damaged file); or ``all``, so that a run
            can be looked at from its beginning.
        dirpath: folder of the checkpoints; default ``checkpoints`` in the run folder.
        at: steps that are saved: ``linear``, the multiples of ``every_n_steps``; or ``log``, also 1, 2, 4, 8 and so on,
            which are then the ones that ``keep: all`` keeps.
    """

    def __init__(
        self,
        every_n_steps: int = 100,
        keep: int | Literal["all"] = 2,
        dirpath: str | None = None,
        at: Literal["linear", "log"] = "linear",
    ) -> None:
        super().__init__()
        check_whole("RunCheckpoint.every_n_steps", every_n_steps, 1)
        if isinstance(keep, str) and keep != "all":
            raise SparselitError(f"RunCheckpoint.keep must be a number of checkpoints, or all, got {keep!r}")
        if keep != "all":
            check_whole("RunCheckpoint.keep", keep, 1)
        check_choice("RunCheckpoint.at", at, ("linear", "log"))
        self.every_n_steps = every_n_steps
        self.keep = keep
        self.at = at
        self.dirpath = None if dirpath is None else Path(dirpath)
        self.last_path: Path | None = None
        self.last_step = 0
        self._seconds = 0.0  # before this process
        self._began: float | None = None
        self._ahead = False  # the checkpoint of this step was written before its end
        self._seen = 0  # global step at the end of the previous batch; accumulation leaves it unchanged
        self._own: dict[str, list[int]] = {}  # what identifies the files that this callback wrote, by name
        self._writing = ""  # name of the file that is being written
        self._damaged: list[Path] = []  # files of later steps that give way when the run comes past

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
        self.last_path = self._take_over(trainer)
        self._damaged = []
        if self.last_path is not None:  # damaged files of later steps are why the run is resumed from this one
            later = checkpoint_files(self.last_path.parent)
            self._damaged = [path for path in later if step_of(path) > self.last_step and _is_damaged(path)]

    def _take_over(self, trainer: Trainer) -> Path | None:
        """The checkpoint that the run resumes from, if it stands in this folder; the run that wrote it is this one."""
        path = None if trainer.ckpt_path is None else Path(trainer.ckpt_path).absolute()
        if path is None or self.dirpath is None or path.parent != self.dirpath.absolute():
            path = None
        elif self._writing == path.name:
            self._own[path.name] = _identity(path)  # it could not stand in that file itself
        self._writing = ""
        return path

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Save where the cadence says so, and after the last step."""
        stepped, self._seen = trainer.global_step != self._seen, trainer.global_step
        due = self._seen % self.every_n_steps == 0 or is_last_step(trainer) or self._ahead
        due = due or (self.at == "log" and _is_power_of_two(self._seen))
        if stepped and due:
            self.save(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the final state of a run that ended for another reason than its number of steps.

        Also where a callback has changed the weights since, or a better one was found by the last validation: what is
        saved is what is reported and evaluated.
        """
        saved = self.last_path if self.last_step == trainer.global_step else None
        best = {c.state_key: c.best_model_path for c in trainer.checkpoint_callbacks if isinstance(c, ModelCheckpoint)}
        changed = trainer.is_global_zero and not (saved and _holds(saved, pl_module.state_dict(), best))
        if trainer.strategy.broadcast(changed):
            self.save(trainer)
        self._seconds, self._began = self.seconds, None

    @property
    def seconds(self) -> float:
        """Wall time of the training so far, seconds; what was spent after the checkpoint resumed from is not in it."""
        return self._seconds + (0.0 if self._began is None else time.monotonic() - self._began)

    def state_dict(self) -> dict[str, Any]:
        """The time spent, and which files are this callback's own."""
        return {"seconds": self.seconds, "own": dict(self._own), "writing": self._writing}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from there."""
        self._seconds = state_dict["seconds"]
        self._own, self._writing = dict(state_dict["own"]), state_dict["writing"]

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
        self._take_over(trainer)  # also where the run had no step left
        free = self._free_path(self.dirpath, step) if trainer.is_global_zero else self.dirpath
        path = trainer.strategy.broadcast(free)
        self._writing = path.name
        trainer.save_checkpoint(path)
        self._writing = ""
        self.last_step, self.last_path = step, path
        if trainer.is_global_zero:
            self._own[path.name] = _identity(path)
            self._thin(self.dirpath, step)

    def _free_path(self, folder: Path, step: int) -> Path:
        """Where the checkpoint of a step goes: no file that something else wrote is replaced, unless it is damaged."""
        for version in itertools.count():
            path = folder / checkpoint_name(step, version)
            if not path.exists() or self._is_own(path) or _is_damaged(path):
                return path
        raise AssertionError("unreachable")

    def _is_own(self, path: Path) -> bool:
        return self._own.get(path.name) == _identity(path)

    def _thin(self, folder: Path, step: int) -> None:
        """Remove own files that are not kept, those of later steps included: the run comes past them again."""
        own = [path for path in checkpoint_files(folder) if self._is_own(path)]
        kept = [path for path in own if step_of(path) <= step]
        if self.keep != "all":
            kept = kept[: self.keep]
        elif self.at == "log":
            kept = [path for i, path in enumerate(kept) if i < _NEWEST or _is_power_of_two(step_of(path))]
        for path in {*own, *self._damaged} - {*kept}:
            path.unlink(missing_ok=True)
        self._own, self._damaged = {path.name: self._own[path.name] for path in kept}, []


def _is_power_of_two(step: int) -> bool:
    return step > 0 and step & (step - 1) == 0


def _identity(path: Path) -> list[int]:
    """What tells a file from another that was written over it: size and time; nothing where there is none."""
    try:
        found = path.stat()
    except OSError:
        return []
    return [found.st_size, found.st_mtime_ns]


def _is_damaged(path: Path) -> bool:
    """Whether a file cannot be read as a checkpoint."""
    try:
        load_checkpoint(path)
    except SparselitError:
        return True
    return False


def _holds(path: Path, tensors: Mapping[str, torch.Tensor], best: Mapping[str, str]) -> bool:
    """Whether a checkpoint holds exactly these tensors, and what other callbacks note as their best files."""
    try:
        content = load_checkpoint(path)
    except SparselitError:
        return False
    saved, states = content["state_dict"], content.get("callbacks", {})
    if any(states.get(key, {}).get("best_model_path") != file for key, file in best.items()):
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
