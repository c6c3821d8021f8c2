"""What the exact projection costs: against ``torch.topk``, and against the training step of the layer it belongs to.

    python benchmarks/projection.py

CPU time of one thread (so that other processes count little), medians. Between two measurements the weights move as
under AdamW, so that the threshold has to be found anew each time. *step* is forward, backward and AdamW of one linear
layer at 1,024 tokens.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor, nn

from sparselit.sparsity.top_k import keep_largest_

SHAPES = ((256, 1024), (768, 3072), (2048, 8192))
DENSITIES = (0.1, 0.01, 0.001)
TOKENS = 1024


def milliseconds(run: Callable[[], object], before: Callable[[], object], repeats: int) -> float:
    """Median time of ``run``, each time after ``before``."""
    times = []
    for _ in range(repeats + 1):
        before()
        start = time.process_time()
        run()
        times.append(1000 * (time.process_time() - start))
    return statistics.median(times[1:])


class Projected:
    """A matrix that is projected again and again, as in training."""

    def __init__(self, shape: tuple[int, int], density: float) -> None:
        generator = torch.Generator().manual_seed(0)
        self.weight = torch.randn(shape, generator=generator)
        self.noise = torch.randn(shape, generator=generator)
        self.k = max(1, int(density * self.weight.numel()))
        self.hint: float | None = None
        self.sign = 1.0

    def move(self) -> None:
        """Change every weight a little, dead ones too."""
        self.sign = -self.sign
        self.weight.add_(self.noise, alpha=0.003 * self.sign)

    def ours(self) -> None:
        """The exact projection."""
        self.hint = keep_largest_(self.weight, self.k, self.hint)

    def usual(self) -> None:
        """Top-k, a mask, a multiplication."""
        index = self.weight.abs().flatten().topk(self.k, sorted=False).indices
        mask = torch.zeros(self.weight.numel(), dtype=torch.bool).index_fill_(0, index, True)
        self.weight.mul_(mask.view_as(self.weight))

    def topk(self) -> Tensor:
        """The selection alone."""
        return self.weight.abs().flatten().topk(self.k, sorted=False).indices


def step_time(shape: tuple[int, int], repeats: int) -> float:
    """Forward, backward and AdamW of a linear layer."""
    layer = nn.Linear(shape[1], shape[0])
    optimizer = torch.optim.AdamW(layer.parameters())
    x = torch.randn(TOKENS, shape[1], requires_grad=True)

    def step() -> None:
        optimizer.zero_grad()
        layer(x).square().mean().backward()
        optimizer.step()

    return milliseconds(step, lambda: None, repeats)


def main() -> None:
    parser = argparse.ArgumentParser(description="Time the exact projection.")
    parser.add_argument("--repeats", type=int, default=9, help="measurements of each kind, at least 1")
    repeats = parser.parse_args().repeats
    torch.set_num_threads(1)
    torch.manual_seed(0)
    sys.stdout.write("| shape | density | projection, ms | torch.topk, ms | ratio | top-k + mask, ms | of the step |\n")
    sys.stdout.write("|---|---|---|---|---|---|---|\n")
    for shape in SHAPES:
        step = step_time(shape, max(1, repeats // 3))
        for density in DENSITIES:
            made = Projected(shape, density)
            made.ours()
            ours = milliseconds(made.ours, made.move, repeats)
            topk = milliseconds(made.topk, made.move, repeats)
            made.ours()
            usual = milliseconds(made.usual, made.move, repeats)
            sys.stdout.write(
                f"| {shape[0]} x {shape[1]} | {density} | {ours:.2f} | {topk:.1f} | {topk / ours:.1f} | {usual:.1f} "
                f"| {ours / step:.1%} |\n"
            )
            sys.stdout.flush()


if __name__ == "__main__":
    main()
