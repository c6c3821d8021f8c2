"""A short training without logs, bars or files, as several benchmarks need it."""

from __future__ import annotations

import time
from typing import Any

from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer


def trained(model: LightningModule, data: LightningDataModule, callback: Callback, steps: int) -> float:
    """Train on the CPU, without validation.

    Args:
        model: changed in place.
        data: what it learns.
        callback: the sparsity method.
        steps: optimizer steps.

    Returns:
        CPU time of the process, seconds.
    """
    quiet: dict[str, Any] = dict.fromkeys(
        ("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False
    )
    trainer = Trainer(
        max_steps=steps, accelerator="cpu", gradient_clip_val=1.0, limit_val_batches=0, callbacks=[callback], **quiet
    )
    start = time.process_time()
    trainer.fit(model, data)
    return time.process_time() - start
