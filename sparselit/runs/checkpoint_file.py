"""Reading checkpoint files: nothing in them is executed, and a damaged one is named."""

from __future__ import annotations

import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from torch import Tensor

from sparselit.errors import LARGEST_COUNT, SparselitError


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
    for name, (kind, inner) in _PARTS.items():
        part = checkpoint.get(name)
        if name in checkpoint and not (isinstance(part, kind) and not isinstance(part, bool) and inner(part)):
            raise SparselitError(
                f"checkpoint {str(path)!r} is damaged, or was not written by sparselit fit: its part {name!r} is not"
                " what it has to be"
            )
    return checkpoint


def _is_named(part: Mapping[Any, Any]) -> bool:
    return all(isinstance(name, str) and name for name in part)


def _is_state_dict(part: Mapping[Any, Any]) -> bool:
    """Whether there is a tensor by each name; ``get_extra_state`` of a module may have given anything."""
    tensors = (isinstance(value, Tensor) or str(name).endswith("_extra_state") for name, value in part.items())
    return _is_named(part) and all(tensors)


def _is_count(part: int) -> bool:
    return 0 <= part <= LARGEST_COUNT


#: What the parts of a checkpoint are where it has them.
_PARTS: dict[str, tuple[type, Callable[[Any], bool]]] = {
    "state_dict": (dict, _is_state_dict),
    "global_step": (int, _is_count),
    "epoch": (int, _is_count),
    "hyper_parameters": (dict, _is_named),
    "datamodule_hyper_parameters": (dict, _is_named),
    "callbacks": (dict, lambda part: _is_named(part) and all(isinstance(state, dict) for state in part.values())),
    "optimizer_states": (list, lambda part: all(isinstance(state, dict) for state in part)),
    "lr_schedulers": (list, lambda part: all(isinstance(state, dict) for state in part)),
    "loops": (dict, _is_named),
}


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
                # torch compresses nothing and does not look at the checksums
                packed = any(member.compress_type != zipfile.ZIP_STORED for member in archive.infolist())
                if packed or archive.testzip() is not None:
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


def holds_training(content: Mapping[str, Any]) -> bool:
    """Whether a checkpoint holds what training goes on from, and not the weights alone."""
    return {"optimizer_states", "loops"} <= content.keys()


def newest_loadable(files: Iterable[Path], training: bool = False) -> tuple[Path, dict[str, Any], list[Path]]:
    """The newest checkpoint that can be read.

    Args:
        files: the newest first.
        training: pass over files of weights alone, as long as one holds the state of training.

    Returns:
        Its path, its content, and the newer files that cannot be read.

    Raises:
        SparselitError: none of them can be read.
    """
    damaged: list[Path] = []
    weights: tuple[Path, dict[str, Any], list[Path]] | None = None
    for path in files:
        try:
            content = load_checkpoint(path)
        except SparselitError:
            damaged.append(path)
            continue
        if not training or holds_training(content):
            return path, content, damaged
        weights = weights or (path, content, list(damaged))
    if weights is not None:
        return weights
    names = ", ".join(str(path) for path in damaged) or "there is none"
    raise SparselitError(f"no checkpoint can be read: {names}")
