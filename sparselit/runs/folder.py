"""The folder of one run: where it lies, which is the newest, and which checkpoints stand in it.

``runs/quotes/version_0/`` holds ``config.yaml``, ``checkpoints/step=N.ckpt``, ``circuits/step=N.json``,
``result.json``, ``summary.md`` and TensorBoard's events.
"""

from __future__ import annotations

import os
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from sparselit.errors import SparselitError
from sparselit.runs.lock import LOCK, OWNER

RUNS, CHECKPOINTS, CIRCUITS, PROMPTS = "runs", "checkpoints", "circuits", "prompts"
CONFIG, SUMMARY, RESULT = "config.yaml", "summary.md", "result.json"
#: TensorBoard's files.
EVENTS = "events.out.tfevents.*"
#: Files of a run that no step was made in.
_BEFORE_FIRST_STEP = (CONFIG, RESULT, SUMMARY, LOCK, OWNER, EVENTS)
_VERSION = re.compile(r"version_(\d+)")
_STEP = re.compile(r"step=(\d+)(?:-v(\d+))?\.ckpt")
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
    def newest(cls, root: Path, name: str, asked: str = "last") -> RunFolder:
        """The newest version. An older one is never entered unasked: what it holds may be relied on.

        Args:
            root: folder of all runs.
            name: of the run.
            asked: the value of ``--ckpt_path`` that means it, for the message.

        Raises:
            SparselitError: there is none, or it has no checkpoint yet.
        """
        versions = cls.versions(root, name)
        with_checkpoints = [folder for folder in versions if folder.checkpoints()]
        if not with_checkpoints:
            raise SparselitError(
                f"--ckpt_path {asked}: no checkpoint in {shown(root / name)}; leave the option out to start from step 0"
            )
        if versions[-1] != with_checkpoints[-1]:
            raise SparselitError(
                f"--ckpt_path {asked}: the newest run, {shown(versions[-1].path)}, has no checkpoint yet; leave the "
                "option out to start again,\n"
                f"or go on in an older run with --ckpt_path {shown(with_checkpoints[-1].path)}"
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

    def records(self) -> list[Path]:
        """The files that say what the run is and what it has come to; they need not exist."""
        return [self.path / name for name in (CONFIG, RESULT, SUMMARY)]

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
        """Remove what a run writes before its first step, and the folders that are empty then, up to the root.

        What somebody else has put there stays; where a checkpoint stands, everything does.
        """
        if self.checkpoints():
            return
        for pattern in _BEFORE_FIRST_STEP:
            for path in self.path.glob(pattern):
                path.unlink()
        for path in (self.checkpoint_folder, self.path / CIRCUITS, self.path, self.path.parent, self.root):
            with suppress(OSError):  # not there, or not empty
                path.rmdir()

    def checkpoints(self) -> dict[int, Path]:
        """The checkpoints by optimizer step, in ascending order."""
        return checkpoints_in(self.checkpoint_folder)


def checkpoint_files(folder: Path) -> list[Path]:
    """The files ``step=N.ckpt`` of a folder, and ``step=N-v1.ckpt`` and so on where several were written at a step.

    Args:
        folder: of the checkpoints; half-written ones have another name.

    Returns:
        The newest step first, and of one step in the order of their versions.
    """
    found = [(match, path) for path in folder.glob("step=*.ckpt") if (match := _STEP.fullmatch(path.name))]
    return [path for _, path in sorted(found, key=lambda row: (-int(row[0][1]), int(row[0][2] or 0)))]


def step_of(path: Path) -> int:
    """Optimizer steps in the name of a checkpoint; -1 for a file of another name."""
    match = _STEP.fullmatch(path.name)
    return int(match[1]) if match else -1


def checkpoints_in(folder: Path) -> dict[int, Path]:
    """The checkpoints of a folder by optimizer step, in ascending order; of each step the first one written."""
    return {step_of(path): path for path in reversed(checkpoint_files(folder))}


def circuits_in(folder: Path) -> dict[int, Path]:
    """The circuits ``step=N.json`` of a folder by ``N``, in ascending order; unfinished ones have another name."""
    found = {int(match[1]): path for path in folder.glob("step=*.json") if (match := _CIRCUIT.fullmatch(path.name))}
    return dict(sorted(found.items()))


def checkpoint_name(step: int, version: int = 0) -> str:
    """File name of a checkpoint.

    Args:
        step: optimizer steps.
        version: number in the name where another file has the plain one, as Lightning counts them.
    """
    return f"step={step}-v{version}.ckpt" if version else f"step={step}.ckpt"


def shown(path: Path | str) -> str:
    """The path as a person types it: relative to the current folder where it lies inside."""
    try:
        return str(Path(path).absolute().relative_to(Path.cwd()))
    except ValueError:
        return os.fspath(path)
