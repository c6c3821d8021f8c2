"""Reading checkpoint files: nothing in them is executed, and a damaged one is named."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch

from sparselit.errors import SparselitError


def load_checkpoint(path: str | Path) -> dict[str, Any]:
    """Read a checkpoint onto the CPU with ``weights_only=True``, so that a pickled object is refused, not executed.

    Args:
        path: file that ``sparselit fit`` wrote.

    Returns:
        Lightning's checkpoint dictionary, with ``state_dict`` and ``hyper_parameters`` among its keys.

    Raises:
        SparselitError: the file is missing, truncated or not such a checkpoint.
    """
    path = Path(path)
    checkpoint = read_tensors(path)
    if not isinstance(checkpoint, dict) or not isinstance(checkpoint.get("state_dict"), dict):
        raise SparselitError(f"checkpoint {str(path)!r} was not written by sparselit fit: it has no state_dict")
    return checkpoint


def read_tensors(path: Path) -> Any:
    """Read a file of tensors and plain values onto the CPU; a pickled object in it is refused, not executed.

    Args:
        path: file that ``torch.save`` wrote.

    Raises:
        SparselitError: the file is missing, truncated or holds something else.
    """
    if not path.exists():
        raise SparselitError(f"checkpoint {str(path)!r} does not exist")
    if not path.is_file():
        raise SparselitError(f"checkpoint {str(path)!r} is a folder; name a file such as checkpoints/step=100.ckpt")
    try:
        if zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                if archive.testzip() is not None:  # torch does not look at the checksums
                    raise SparselitError(_unreadable(path))
        with warnings.catch_warnings():  # about files that are no checkpoints anyway
            warnings.simplefilter("ignore", UserWarning)
            return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        if "Unsupported global" in str(error):
            raise SparselitError(
                f"checkpoint {str(path)!r} holds something other than tensors and plain values; it was not opened"
            ) from None
        raise SparselitError(_unreadable(path)) from None
    except (
        RuntimeError,
        EOFError,
        OSError,
        ValueError,
        LookupError,
        AttributeError,
        TypeError,
        ArithmeticError,
        zipfile.BadZipFile,
        zipfile.LargeZipFile,
        zlib.error,
    ):
        # What torch raises for a damaged archive depends on where the file breaks off.
        raise SparselitError(_unreadable(path)) from None


def _unreadable(path: Path) -> str:
    return f"{str(path)!r} cannot be read: it is truncated, damaged or not a checkpoint"


def newest_loadable(checkpoints: dict[int, Path]) -> tuple[Path, dict[str, Any], list[Path]]:
    """The checkpoint with the highest step that can be read.

    Args:
        checkpoints: files by optimizer step.

    Returns:
        Its path, its content, and the newer files that cannot be read.

    Raises:
        SparselitError: none of them can be read.
    """
    damaged: list[Path] = []
    for _, path in sorted(checkpoints.items(), reverse=True):
        try:
            return path, load_checkpoint(path), damaged
        except SparselitError:
            damaged.append(path)
    names = ", ".join(str(path) for path in damaged) or "there is none"
    raise SparselitError(f"no checkpoint can be read: {names}")
