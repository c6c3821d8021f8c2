"""What Lightning and its parser print in every run, silenced."""

from __future__ import annotations

import logging
import warnings


def quieten() -> None:
    """Silence it for the rest of the process."""
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    warnings.filterwarnings("ignore", ".*does not have many workers.*")
    # Callbacks do not act outside fit, so their state in the checkpoint is not needed there.
    warnings.filterwarnings("ignore", "Be aware that when using `ckpt_path`, callbacks used to create.*")
    # jsonargparse deprecates the methods that Lightning calls; pinned below its version 5.
    warnings.filterwarnings("ignore", r"(?s)\s*(.*was deprecated in v4|By default only one Jsonargparse)")
    warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated.*")
    warnings.filterwarnings("ignore", ".*Trying to infer the `batch_size` from an ambiguous collection.*")
