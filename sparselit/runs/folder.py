"""The folder of one run: where it lies, which is the newest, and which checkpoints stand in it.

``runs/quotes/version_0/`` holds ``config.yaml``, ``checkpoints/step=N.ckpt``, ``summary.md`` and TensorBoard's events.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sparselit.errors import SparselitError

RUNS = "runs"
_VERSION = re.compile(r"version_(\d+)")
_STEP = re.compile(r"step=(\d+)\.ckpt")


@dataclass(frozen=True)
class RunFolder:
    """One version of a named run.

    Attributes:
        root: folder that holds all runs, usually ``runs`` in the current folder.
        name: name of the run, e.g. ``quotes``.
        version: number of the version, at least 0.
    """

    root: Path
    name: str
    version: int

    @classmethod
    def next(cls, root: Path, name: str) -> RunFolder:
        """The version after the newest one; nothing is created."""
        versions = cls.versions(root, name)
        return cls(root, name, versions[-1].version + 1 if versions else 0)

    @classmethod
    def versions(cls, root: Path, name: str) -> list[RunFolder]:
        """The versions on disk, oldest first."""
        found = [_VERSION.fullmatch(path.name) for path in (root / name).glob("version_*") if path.is_dir()]
        return [cls(root, name, version) for version in sorted(int(match[1]) for match in found if match)]

    @classmethod
    def newest(cls, root: Path, name: str) -> RunFolder:
        """The newest version that has a checkpoint.

        Raises:
            SparselitError: there is none.
        """
        for folder in reversed(cls.versions(root, name)):
            if folder.checkpoints():
                return folder
        raise SparselitError(
            f"--ckpt_path last: no checkpoint in {shown(root / name)}; leave the option out to start from step 0"
        )

    @classmethod
    def of(cls, path: Path) -> RunFolder | None:
        """The run folder that a checkpoint or a ``config.yaml`` belongs to; None for a file that stands elsewhere."""
        path = path.absolute()
        folder = path.parent.parent if path.parent.name == "checkpoints" else path.parent
        match = _VERSION.fullmatch(folder.name)
        return cls(folder.parents[1], folder.parent.name, int(match[1])) if match else None

    @property
    def path(self) -> Path:
        """The folder itself."""
        return self.root / self.name / f"version_{self.version}"

    @property
    def config(self) -> Path:
        """The configuration of the run, complete."""
        return self.path / "config.yaml"

    @property
    def summary(self) -> Path:
        """What a person reads after the run."""
        return self.path / "summary.md"

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints stand."""
        return self.path / "checkpoints"

    def create(self) -> RunFolder:
        """Make the folder on disk; when another run has taken the version meanwhile, the next free one."""
        folder = self
        while True:
            try:
                folder.path.mkdir(parents=True)
            except FileExistsError:
                folder = RunFolder(folder.root, folder.name, folder.version + 1)
            else:
                return folder

    def discard(self) -> None:
        """Remove the folder with what is in it, and its parents up to the root as far as they hold nothing else."""
        shutil.rmtree(self.path, ignore_errors=True)
        for path in (self.path.parent, self.root):
            try:
                path.rmdir()
            except OSError:  # not empty
                return

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by optimizer step, in ascending order."""
        return checkpoints_in(self.checkpoint_folder)


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The files ``step=N.ckpt`` of a folder by ``N``, in ascending order; half-written ones have another name."""
    found = {int(match[1]): path for path in folder.glob("step=*.ckpt") if (match := _STEP.fullmatch(path.name))}
    return dict(sorted(found.items()))


def checkpoint_name(step: int) -> str:
    """File name of the checkpoint after optimizer step ``step``."""
    return f"step={step}.ckpt"


def shown(path: Path | str) -> str:
    """The path as a person types it: relative to the current folder where it lies inside."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
