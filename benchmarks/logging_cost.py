"""What the figures of sparsity cost: their share of a training step, by Lightning's profiler.

    python benchmarks/logging_cost.py

Trains small transformers as the command line does, with ``SparsityMonitor``, a rule, TensorBoard and a line every 10
steps. *Monitor* is the callback that measures each tensor and writes the figures, *sparsifier* what the sparsity
callback does at a batch's end (total density and target), *logger* the writing of everything else, the loss included.
CPU time of one thread in shares of the whole training loop, so that other programs on the machine count little; exit
code 1 where the sum is above 2 %.
"""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections import Counter
from tempfile import TemporaryDirectory
from typing import Any

import torch
from lightning.pytorch import Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.profilers import Profiler
from sparselit.callbacks import AnnealedSparsity, SparsityMonitor
from sparselit.tasks import Quotes

from sparselit.modules import SparseTransformer
from sparselit.sparsity import Rule, Schedule

LIMIT = 0.02
#: Width and batch size, as in the shipped configurations.
SIZES = ((32, 128), (64, 128), (256, 32))


class CpuTime(Profiler):
    """CPU time by action, seconds."""

    def __init__(self) -> None:
        super().__init__()
        self.began: dict[str, float] = {}
        self.spent: Counter[str] = Counter()

    def start(self, action_name: str) -> None:
        """An action begins."""
        self.began[action_name] = time.process_time()

    def stop(self, action_name: str) -> None:
        """An action ends."""
        self.spent[action_name] += time.process_time() - self.began.pop(action_name)

    def of(self, *parts: str) -> float:
        """Seconds of the actions whose names hold all of some words."""
        return sum(spent for name, spent in self.spent.items() if all(part in name for part in parts))


class TimedLogger(TensorBoardLogger):
    """Tells a profiler what it costs."""

    profiler: CpuTime

    def log_metrics(self, *args: Any, **kwargs: Any) -> None:
        """Write, timed; what the monitor writes counts as the monitor's."""
        inside = any("SparsityMonitor" in action for action in self.profiler.began)
        with self.profiler.profile("inside" if inside else "logger"):
            super().log_metrics(*args, **kwargs)


def shares(d_model: int, batch_size: int, steps: int = 200) -> dict[str, float]:
    """Milliseconds of a step, and shares of it.

    Args:
        d_model: width of the model.
        batch_size: prompts of a batch.
        steps: optimizer steps, a multiple of 10.
    """
    torch.manual_seed(0)
    data = Quotes(source="synthetic", length=24, batch_size=batch_size, pool=2000, report=100, selection=100)
    model = SparseTransformer(
        vocab_size=data.vocab_size, max_length=data.max_length, d_model=d_model, n_heads=4, positions="none"
    )
    sparsity = AnnealedSparsity(
        Schedule(to=0.02, end=0.6), [Rule("*.mlp.*.weight", density=Schedule(to=0.01, end=0.6))]
    )
    profiler = CpuTime()
    with TemporaryDirectory() as folder:
        logger = TimedLogger(folder)
        logger.profiler = profiler
        trainer = Trainer(
            max_steps=steps,
            accelerator="cpu",
            gradient_clip_val=1.0,
            limit_val_batches=0,
            log_every_n_steps=10,
            logger=logger,
            callbacks=[sparsity, SparsityMonitor()],
            profiler=profiler,
            enable_progress_bar=False,
            enable_model_summary=False,
            enable_checkpointing=False,
        )
        trainer.fit(model, data)
    loop = profiler.of("run_training_epoch")
    found = {
        "monitor": profiler.of("SparsityMonitor", "on_train_batch_end"),
        "sparsifier": profiler.of("AnnealedSparsity", "on_train_batch_end"),
        "logger": profiler.of("logger"),
    }
    return {"step": 1000 * loop / steps, **{name: spent / loop for name, spent in found.items()}}


def main() -> int:
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    shares(32, 32, 10)  # what is imported late is not a cost of logging
    sys.stdout.write("| d_model | batch | step, ms | monitor | sparsifier | logger | together |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    worst = 0.0
    for d_model, batch_size in SIZES:
        step, *parts = shares(d_model, batch_size).values()
        worst = max(worst, sum(parts))
        cells = " | ".join(f"{part:.2%}" for part in (*parts, sum(parts)))
        sys.stdout.write(f"| {d_model} | {batch_size} | {step:.1f} | {cells} |\n")
        sys.stdout.flush()
    return int(worst > LIMIT)


if __name__ == "__main__":
    sys.exit(main())
