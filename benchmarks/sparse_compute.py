"""What sparse compute saves: one feed-forward block, and whole trainings.

    python benchmarks/sparse_compute.py
    python benchmarks/sparse_compute.py --fit

The block is 768 → 3072 → 768 at 1,024 tokens, forward and backward, CPU time of one thread; dense and sparse runs
alternate, and the medians are compared. ``dense gradient`` is what projection needs, ``masked gradient`` what static
masks, SET, RigL and gradual pruning need. The building of the pattern, once a step, is in the sparse times. ``--fit``
trains a transformer of d_model 512 at density 0.01 with and without sparse compute, and the same one dense, in turn;
medians of the wall time and of the CPU time of whole calls of ``fit``.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
import warnings
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sparselit.sparsity.compute import pattern_of, sparse_linear

TOKENS, WIDTH, HIDDEN = 1024, 768, 3072


def block(density: float) -> tuple[Tensor, Tensor, Tensor]:
    """Input and the two matrices."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(TOKENS, WIDTH, generator=generator).requires_grad_()
    made = []
    for shape in ((HIDDEN, WIDTH), (WIDTH, HIDDEN)):
        weight = torch.randn(shape, generator=generator) * (torch.rand(shape, generator=generator) < density)
        made.append((weight / (density * shape[1]) ** 0.5).requires_grad_())
    return x, made[0], made[1]


def run(x: Tensor, up: Tensor, down: Tensor, kind: str) -> tuple[Tensor, ...]:
    """Forward and backward."""
    if kind == "dense":
        y = F.linear(F.relu(F.linear(x, up)), down)
    else:
        masked = kind == "masked gradient"
        hidden = F.relu(sparse_linear(x, up, None, pattern_of(up), masked))
        y = sparse_linear(hidden, down, None, pattern_of(down), masked)
    return torch.autograd.grad(y.square().mean(), (x, up, down))


def compare_blocks(repeats: int) -> None:
    sys.stdout.write(
        "| density | dense, ms | dense gradient, ms | ratio | masked gradient, ms | ratio | largest error |\n"
    )
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for density in (0.3, 0.1, 0.03, 0.01):
        x, up, down = block(density)
        times: dict[str, list[float]] = {"dense": [], "dense gradient": [], "masked gradient": []}
        for _ in range(repeats + 1):
            for kind, found in times.items():
                start = time.process_time()
                run(x, up, down, kind)
                found.append(1000 * (time.process_time() - start))
        median = {kind: statistics.median(found[1:]) for kind, found in times.items()}
        pairs = zip(run(x, up, down, "dense"), run(x, up, down, "dense gradient"), strict=True)
        error = max(float((a - b).abs().max()) for a, b in pairs)
        dense = median["dense"]
        sparse, masked = median["dense gradient"], median["masked gradient"]
        sys.stdout.write(
            f"| {density} | {dense:.0f} | {sparse:.0f} | {dense / sparse:.1f} | {masked:.0f} | {dense / masked:.1f} "
            f"| {error:.1e} |\n"
        )
        sys.stdout.flush()


def compare_fits(steps: int, repeats: int) -> None:
    """Whole trainings, the callbacks and the optimizer included."""
    from lightning.pytorch import Trainer
    from sparselit.callbacks import AnnealedSparsity, SparseCompute, StaticSparsity
    from sparselit.tasks import Quotes

    from sparselit.modules import SparseTransformer

    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    torch.set_flush_denormal(True)

    def fit(*callbacks: Any) -> tuple[float, float]:
        """Wall and CPU time, seconds."""
        torch.manual_seed(0)
        data = Quotes(source="synthetic", length=24, batch_size=64, pool=2000)
        model: nn.Module = SparseTransformer(
            vocab_size=data.vocab_size, max_length=data.max_length, d_model=512, n_heads=8, decay="none"
        )
        quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
        trainer = Trainer(max_steps=steps, accelerator="cpu", limit_val_batches=0, callbacks=list(callbacks), **quiet)
        data.split("train")  # drawing the prompts is the same for all
        wall, cpu = time.perf_counter(), time.process_time()
        trainer.fit(model, data)
        return time.perf_counter() - wall, time.process_time() - cpu

    kinds: dict[str, Any] = {
        "dense training": lambda: (),
        "projection, dense compute": lambda: (AnnealedSparsity(0.01),),
        "projection, sparse compute": lambda: (AnnealedSparsity(0.01), SparseCompute()),
        "static mask, sparse compute": lambda: (StaticSparsity(0.01), SparseCompute()),
    }
    times: dict[str, list[tuple[float, float]]] = {kind: [] for kind in kinds}
    for _ in range(repeats):
        for kind, make in kinds.items():
            times[kind].append(fit(*make()))
    medians = {
        kind: [statistics.median(column) for column in zip(*found, strict=True)] for kind, found in times.items()
    }
    dense = medians["dense training"]
    sys.stdout.write(
        f"| d_model 512, density 0.01, {steps} steps | wall time, s | of the dense | CPU time, s | of the dense |\n"
        "|---|---|---|---|---|\n"
    )
    for kind, (wall, cpu) in medians.items():
        sys.stdout.write(f"| {kind} | {wall:.1f} | {wall / dense[0]:.0%} | {cpu:.1f} | {cpu / dense[1]:.0%} |\n")


def main() -> None:
    parser = argparse.ArgumentParser(description="Time sparse compute.")
    parser.add_argument("--repeats", type=int, default=5, help="measurements of each kind, at least 1")
    parser.add_argument("--fit", action="store_true", help="compare whole trainings instead")
    parser.add_argument("--steps", type=int, default=20, help="optimizer steps of each training, at least 1")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    if arguments.fit:
        compare_fits(arguments.steps, arguments.repeats)
    else:
        compare_blocks(arguments.repeats)


if __name__ == "__main__":
    main()
