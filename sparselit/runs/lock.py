"""One process at a time trains in a run's folder; the others are refused with its process number."""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from filelock import FileLock, Timeout

from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_text
from sparselit.runs.plain_file import read_json

LOCK, OWNER = ".lock", ".owner.json"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a run's folder inside a ``with`` block.

    The operating system releases it when its process ends, however that happens, so that none is ever stale.

    Args:
        folder: the run's folder, which exists.

    Raises:
        SparselitError: another process holds it; the message says which and since when.
    """
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise SparselitError(f"another process trains in {folder}{_owner(folder)}; wait for it, or end it") from None
    owner = {"host": socket.gethostname(), "process": os.getpid(), "since": time.strftime("%Y-%m-%d %H:%M:%S")}
    try:
        write_text(folder / OWNER, json.dumps(owner) + "\n")
        yield
    finally:
        (folder / OWNER).unlink(missing_ok=True)
        lock.release()  # the file stays: removing it would let two later processes lock two files of that name


def is_locked(folder: Path) -> bool:
    """Whether some process holds the lock of a folder now."""
    if not (folder / LOCK).exists():
        return False
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        return True
    lock.release()
    return False


def _owner(folder: Path) -> str:
    with suppress(OSError, ValueError, KeyError, TypeError):
        owner = read_json(folder / OWNER)
        return f" (process {int(owner['process'])} on {str(owner['host'])[:80]!r} since {str(owner['since'])[:19]!r})"
    return ""
