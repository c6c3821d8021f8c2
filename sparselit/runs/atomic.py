"""The one way in which this package writes a file: whole or not at all, also when the process or the machine dies."""

from __future__ import annotations

import errno
import glob
import os
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

_TEMPORARY = re.compile(r".+\.(\d+)\.tmp")


def write_atomically(path: Path, write: Callable[[BinaryIO], object]) -> None:
    """Write a file beside its target, flush it to the disk, and rename it: readers see the old file or the new one.

    The temporary file carries the number of the process, so that two processes that write the same file do not mix
    their bytes. What killed processes left of earlier writes of this file is removed.

    Args:
        path: target; its folder is made when missing.
        write: called with the open file.

    Raises:
        OSError: the file cannot be written; the old one stays as it was.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, FileNotFoundError):
        raise NotADirectoryError(errno.ENOTDIR, "no folder can be made there", str(path.parent)) from None
    _remove_abandoned(path.parent, f"{glob.escape(path.name)}.*.tmp")
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        refusal = error if isinstance(error, OSError) else error.__context__  # torch.save hides it behind its own
        if not isinstance(refusal, OSError):
            raise
        if refusal.errno is not None:
            refusal.filename = str(path)
        raise refusal from None
    _flush_folder(path.parent)


def write_bytes(path: Path, content: bytes) -> None:
    """Write these bytes by :func:`write_atomically`.

    Args:
        path: the file.
        content: its bytes.
    """
    write_atomically(path, lambda file: file.write(content))


def write_text(path: Path, text: str) -> None:
    """Write a text in UTF-8, with line feeds as they are, by :func:`write_atomically`.

    Args:
        path: the file.
        text: its content.
    """
    write_bytes(path, text.encode())


def remove_leftovers(folder: Path) -> None:
    """Remove what processes that no longer run left half written in ``folder``; nothing if there is no such folder."""
    _remove_abandoned(folder, "*.tmp")


def _remove_abandoned(folder: Path, pattern: str) -> None:
    for path in folder.glob(pattern):
        match = _TEMPORARY.fullmatch(path.name)
        if match and not _writes(int(match[1])):
            path.unlink(missing_ok=True)


def _writes(process: int) -> bool:
    """Whether another process of this number runs; a file of our own number is a predecessor's, as in a container."""
    if process == os.getpid():
        return False
    if os.name != "posix":  # there, signal 0 is no question
        return True
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:
        return True
    return True


def _flush_folder(folder: Path) -> None:
    """Flush the rename itself, which must outlive a power failure, where the file system can."""
    if os.name == "posix":
        with suppress(OSError):
            number = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(number)
            finally:
                os.close(number)
