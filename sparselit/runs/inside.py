"""Files that another file names: they lie in its folder, are plain files, and are not larger than expected."""

from __future__ import annotations

from pathlib import Path

from sparselit.errors import SparselitError


def inside(folder: Path, name: str, what: str, largest: int) -> Path:
    """The path of a file that somebody's file names, checked before it is opened.

    Args:
        folder: where it has to lie, links followed.
        name: its path relative to the folder, as the file says.
        what: what it is, for the message, as in ``the circuit's weights``.
        largest: bytes that it may have.

    Raises:
        SparselitError: it lies elsewhere, is missing, is a device, a pipe or a folder, or is larger.
    """
    try:
        path = folder / name
        if not path.resolve().is_relative_to(folder.resolve()):
            raise SparselitError(f"{what} {path} lie outside of the circuit's folder")
        if not path.exists():
            raise SparselitError(f"cannot read {what} {path}: No such file or directory")
        if not path.is_file():
            raise SparselitError(f"cannot read {what} {path}: not a file")
        if path.stat().st_size > largest:
            raise SparselitError(f"cannot read {what} {path}: larger than {largest >> 20} MiB")
    except (OSError, ValueError, RuntimeError) as error:  # names with NUL or surrogates, endless links
        raise SparselitError(f"cannot read {what} {name!r}: {error}") from error
    return path
