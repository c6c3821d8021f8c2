"""A sweep whose runs only sleep; ``python -m tests.sweep.pretended FOLDER SECONDS JOBS`` runs it."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from sparselit.sweep.engine import run_all
from sparselit.sweep.points import points
from sparselit.sweep.store import Store


def main(argv: Sequence[str]) -> None:
    """One run: says by files that it has begun and ended, and which process it was."""
    name, folder, seconds = argv[0], Path(argv[1]), float(argv[2])
    for part in ("begun", "ended"):
        (folder / part).mkdir(exist_ok=True)
    (folder / "begun" / name).write_text(str(os.getpid()))
    if (folder / "broken").exists() and (folder / "broken").read_text() == name:
        sys.stderr.write("error: it is broken\n")
        sys.exit(2)
    time.sleep(seconds)
    (folder / "ended" / f"{name}.{os.getpid()}").touch()


def is_alive(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


if __name__ == "__main__":
    folder, seconds, jobs = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    every = points({"grid": {"n": [0, 1, 2, 3, 4, 5]}}, {})
    whole = run_all(
        Store(folder),
        every,
        lambda point: [point.id, str(folder), seconds],
        main,
        jobs,
        lambda progress, point: None,
        preloaded=(),
    )
    sys.exit(0 if whole else 130)
