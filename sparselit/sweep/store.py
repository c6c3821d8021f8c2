"""What has become of each point of a sweep: plain files in its folder, one record for each run.

``sweep.json`` says what the sweep is based on, ``points/ID/point.json`` how one run has ended, and ``runs/ID/`` holds
the run itself. A run in flight holds the lock of ``points/ID``, which the operating system releases when its process
ends, however that happens: so nothing is lost, and nothing runs twice at a time.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_text
from sparselit.runs.folder import RUNS, RunFolder, shown
from sparselit.runs.lock import is_locked
from sparselit.runs.plain_file import read_json
from sparselit.sweep.points import Point

PLAN, POINTS, RECORD, LOG = "sweep.json", "points", "point.json", "log.txt"
FORMAT, VERSION = "sparselit-sweep", 1
#: What a point can be: ended well, ended badly, in some process now, or none of these.
State = Literal["complete", "failed", "running", "missing"]


@dataclass(frozen=True)
class Record:
    """How a run has ended.

    Attributes:
        settings: of the point.
        code: exit code of the run.
        reason: what it said last, where it failed.
        run: its folder, relative to the sweep's.
        seconds: wall time of the last process that ran it.
    """

    settings: Mapping[str, Any]
    code: int
    reason: str
    run: str
    seconds: float

    @property
    def state(self) -> State:
        """Whether the run has ended well."""
        return "failed" if self.code else "complete"


@dataclass(frozen=True)
class Store:
    """The folder of a sweep.

    Attributes:
        folder: it.
    """

    folder: Path

    @property
    def runs(self) -> Path:
        """The folder of all its runs."""
        return self.folder / RUNS

    def of(self, point: Point) -> Path:
        """The folder of a point's record, log and lock."""
        return self.folder / POINTS / point.id

    def record(self, point: Point) -> Record | None:
        """How a point's run has ended; None where it has not.

        Raises:
            SparselitError: the record is damaged.
        """
        path = self.of(point) / RECORD
        if not path.is_file():
            return None
        try:
            return Record(**read_json(path))
        except (ValueError, TypeError) as error:
            raise SparselitError(f"{shown(path)} is damaged; delete it to run this point again ({error})") from None

    def write(self, point: Point, record: Record) -> None:
        """Keep how a point's run has ended."""
        write_text(self.of(point) / RECORD, json.dumps(asdict(record), indent=1, default=str) + "\n")

    def state(self, point: Point) -> State:
        """What has become of a point."""
        return "running" if is_locked(self.of(point)) else self.state_apart(point)

    def state_apart(self, point: Point) -> State:
        """The same without a look at who runs it."""
        record = self.record(point)
        return "missing" if record is None else record.state

    def unfinished(self, point: Point) -> RunFolder | None:
        """The run of a point that can go on from a checkpoint; None where there is none."""
        versions = [folder for folder in RunFolder.versions(self.runs, point.id) if folder.checkpoints()]
        return versions[-1] if versions else None

    def claim(self, base: Mapping[str, Any], accept: bool = False) -> None:
        """Make the folder that of a sweep with this base.

        Args:
            base: settings that all runs share, by key.
            accept: whether another base than before may take its place.

        Raises:
            SparselitError: the folder has another base; the message names the keys.
        """
        path = self.folder / PLAN
        plan = {"format": FORMAT, "version": VERSION, "base": json.loads(json.dumps(base, default=str))}
        if path.is_file():
            try:
                before = read_json(path)
                changed = _changed(before["base"], plan["base"])
            except (ValueError, TypeError, LookupError, AttributeError) as error:
                raise SparselitError(f"{shown(path)} is damaged: {error}") from None
            if changed and not accept:
                raise SparselitError(
                    f"{shown(self.folder)} is of another experiment, by {_named(changed)}; give another --folder,\n"
                    "or --accept to go on with the new one (runs of the old one stay, under other names)"
                )
        write_text(path, json.dumps(plan, indent=1) + "\n")


def _changed(before: Mapping[str, Any], after: Mapping[str, Any]) -> list[str]:
    return sorted(key for key in before.keys() | after.keys() if before.get(key) != after.get(key))


def _named(keys: Sequence[str]) -> str:
    return ", ".join(keys[:3]) + (f" and {len(keys) - 3} more" if len(keys) > 3 else "")
