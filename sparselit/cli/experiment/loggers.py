"""Loggers of the user's own: their files lie in the run folder, where Lightning's logger writes files at all."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger, WandbLogger

#: Loggers that write files below a folder, and the attributes that hold it.
_FOLDERS: dict[type, tuple[str, ...]] = {
    CSVLogger: ("_root_dir", "_save_dir"),
    TensorBoardLogger: ("_root_dir",),
    WandbLogger: ("_save_dir",),
}


def place(loggers: Iterable[Any], folder: Path) -> None:
    """Read a relative ``save_dir`` as one inside the run folder; an absolute one stays.

    Args:
        loggers: of the trainer, before anything is logged.
        folder: of the run.
    """
    for logger in loggers:
        attributes = next((names for kind, names in _FOLDERS.items() if isinstance(logger, kind)), ())
        if not attributes or Path(logger.save_dir or ".").is_absolute():
            continue
        inside = folder / (logger.save_dir or ".")
        for attribute in attributes:
            setattr(logger, attribute, str(inside))
        if isinstance(logger, WandbLogger):
            inside.mkdir(parents=True, exist_ok=True)  # wandb takes another folder where it is missing
            logger._wandb_init["dir"] = str(inside)
