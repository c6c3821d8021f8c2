"""The folder of one run: where it lies, which is the newest, and which checkpoints stand in it.

``runs/quotes/version_0/`` holds ``config.yaml``, ``checkpoints/step=N.ckpt``, ``circuits/step=N.json``,
``result.json``, ``summary.md`` and TensorBoard's events.
"""

from __future__ import annotations

import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path

from sparselit.errors import SparselitError

RUNS, CHECKPOINTS, CIRCUITS, PROMPTS = "runs", "checkpoints", "circuits", "prompts"
CONFIG, SUMMARY, RESULT = "config.yaml", "summary.md", "result.json"
_VERSION = re.compile(r"version_(\d+)")
_STEP = re.compile(r"step=(\d+)\.ckpt")
_CIRCUIT = re.compile(r"step=(\d+)\.json")


@dataclass(frozen=True)
class RunFolder:
    """One run's folder, usually one version of a named run such as ``runs/quotes/version_0``.

    Attributes:
        path: the folder itself.
    """

    path: Path

    @classmethod
    def next(cls, root: Path, name: str) -> RunFolder:
        """The version after the newest one; nothing is created.

        Args:
            root: folder of all runs.
            name: of the run.
        """
        versions = cls.versions(root, name)
        return cls(root / name / f"version_{versions[-1].version + 1 if versions else 0}")

    @classmethod
    def versions(cls, root: Path, name: str) -> list[RunFolder]:
        """The versions on disk, oldest first.

        Args:
            root: folder of all runs.
            name: of the run.
        """
        found = [_VERSION.fullmatch(path.name) for path in (root / name).glob("version_*") if path.is_dir()]
        return [
            cls(root / name / f"version_{version}") for version in sorted(int(match[1]) for match in found if match)
        ]

    @classmethod
    def newest(cls, root: Path, name: str) -> RunFolder:
        """The newest version. An older one is never entered unasked: what it holds may be relied on.

        Args:
            root: folder of all runs.
            name: of the run.

        Raises:
            SparselitError: there is none, or it has no checkpoint yet.
        """
        versions = cls.versions(root, name)
        with_checkpoints = [folder for folder in versions if folder.checkpoints()]
        if not with_checkpoints:
            raise SparselitError(
                f"--ckpt_path last: no checkpoint in {shown(root / name)}; leave the option out to start from step 0"
            )
        if versions[-1] != with_checkpoints[-1]:
            raise SparselitError(
                f"--ckpt_path last: the newest run, {shown(versions[-1].path)}, has no checkpoint yet; leave the option"
                f" out to start again,\nor go on in an older run with --ckpt_path {shown(with_checkpoints[-1].path)}"
            )
        return versions[-1]

    @classmethod
    def of(cls, path: Path) -> RunFolder | None:
        """The run that a file in it belongs to, or that a folder is; None for what stands elsewhere.

        Links and ``..`` are followed. A run that was renamed or moved is known by its ``config.yaml``.
        """
        path = path.resolve()
        folder = path if path.is_dir() else path.parent
        folder = folder.parent if folder.name == CHECKPOINTS else folder
        return cls(folder) if _VERSION.fullmatch(folder.name) or (folder / CONFIG).is_file() else None

    @property
    def version(self) -> int:
        """Number of the version, at least 0; -1 for a folder that was renamed."""
        match = _VERSION.fullmatch(self.path.name)
        return int(match[1]) if match else -1

    @property
    def root(self) -> Path:
        """Folder that holds all runs, usually ``runs`` in the current folder."""
        return self.path.parents[1]

    @property
    def name(self) -> str:
        """Name of the run, e.g. ``quotes``; of a folder that was renamed, the name it has now."""
        return self.path.parent.name if self.version >= 0 else self.path.name

    @property
    def label(self) -> str:
        """Name and version for people, e.g. ``quotes/version_0``."""
        return f"{self.name}/{self.path.name}" if self.version >= 0 else self.name

    @property
    def config(self) -> Path:
        """The configuration of the run, complete."""
        return self.path / CONFIG

    @property
    def result(self) -> Path:
        """What the run has come to, as data."""
        return self.path / RESULT

    @property
    def summary(self) -> Path:
        """What a person reads after the run."""
        return self.path / SUMMARY

    @property
    def checkpoint_folder(self) -> Path:
        """Where the checkpoints stand."""
        return self.path / CHECKPOINTS

    def create(self) -> RunFolder:
        """Make the folder on disk; when another run has taken the version meanwhile, the next free one."""
        folder = self
        while True:
            try:
                folder.path.mkdir(parents=True)
            except FileExistsError:
                folder = RunFolder(folder.path.with_name(f"version_{folder.version + 1}"))
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


def circuits_in(folder: Path) -> dict[int, Path]:
    """The circuits ``step=N.json`` of a folder by ``N``, in ascending order; unfinished ones have another name."""
    found = {int(match[1]): path for path in folder.glob("step=*.json") if (match := _CIRCUIT.fullmatch(path.name))}
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
