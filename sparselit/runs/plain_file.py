"""The one way in which files of texts and JSON are read: plain ones, not larger than expected, whatever they hold."""

from __future__ import annotations

import errno
import json
import os
import stat
from pathlib import Path
from typing import Any

#: Largest file that is read as a whole where nothing else is said, bytes.
LARGEST = 2**28


def read_bytes(path: Path, largest: int = LARGEST) -> bytes:
    """The content of a plain file.

    A pipe would be waited for and a device read without end; both are refused, as a folder is.

    Args:
        path: the file; links are followed.
        largest: bytes that it may have.

    Raises:
        OSError: it is missing, is no plain file, is larger, or cannot be read; ``strerror`` says which.
    """
    try:
        found = path.stat()
    except ValueError:  # a name with NUL
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), str(path))
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "it is a device or a pipe", str(path))
    if found.st_size > largest:
        raise OSError(errno.EFBIG, f"it is larger than {largest >> 20} MiB", str(path))
    return path.read_bytes()


def holds(path: Path, content: bytes) -> bool:
    """Whether a plain file has exactly this content.

    Args:
        path: the file, which need not exist.
        content: bytes.
    """
    try:
        return read_bytes(path, len(content)) == content
    except OSError:
        return False


def read_text(path: Path, encoding: str = "utf-8", largest: int = LARGEST) -> str:
    """The content of a plain file as a text; line ends stay as they are.

    Args:
        path: the file.
        encoding: of the text.
        largest: bytes that it may have.

    Raises:
        OSError: see :func:`read_bytes`.
        UnicodeDecodeError: it is no text of this encoding.
    """
    return read_bytes(path, largest).decode(encoding)


def parse_json(text: str) -> Any:
    """The value of a JSON text.

    Args:
        text: JSON.

    Raises:
        ValueError: it is not JSON, or is nested without end.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def read_json(path: Path, largest: int = LARGEST) -> Any:
    """The value of a JSON file.

    Args:
        path: the file.
        largest: bytes that it may have.

    Raises:
        OSError: see :func:`read_bytes`.
        ValueError: it is not JSON in UTF-8, or is nested without end.
    """
    return parse_json(read_text(path, largest=largest))
