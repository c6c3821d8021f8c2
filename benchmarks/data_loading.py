"""Share of a training step that goes into making its batch, for every shipped task that needs no argument.

    python benchmarks/data_loading.py

One thread, a model of the size that the shipped configurations train (2 layers, 32 channels), batches of 128 prompts.
Medians of 200 steps, so that other programs on the machine do not matter; exit code 1 where a share is above 5 %.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from importlib import import_module
from inspect import signature
from statistics import median
from time import perf_counter

import torch
from torch.nn import functional

from sparselit.data.examples import Examples
from sparselit.data.task import Task
from sparselit.model.transformer import Transformer

LIMIT = 0.05


def main() -> int:
    torch.set_num_threads(1)
    plugins = import_module("sparselit.tasks")
    worst = 0.0
    for name in plugins.__all__:
        kind = getattr(plugins, name)
        if issubclass(kind, Task) and all(
            p.default is not p.empty or p.kind >= p.VAR_POSITIONAL for p in signature(kind).parameters.values()
        ):
            task = kind(pool=4096)
            loading, step = times(task)
            worst = max(worst, loading / (loading + step))
            text = f"{1e6 * loading:>8.0f} µs a batch {1e3 * step:>8.2f} ms a step {loading / (loading + step):>8.2%}"
            sys.stdout.write(f"{name:<24}{text}\n")
    return int(worst > LIMIT)


def times(task: Task, steps: int = 200) -> tuple[float, float]:
    """Median seconds that a batch and the training on it take.

    Args:
        task: where batches come from.
        steps: how many are timed, after ten that are not.
    """
    model = Transformer(vocab_size=task.vocab_size, max_length=task.max_length, d_model=32, n_layers=2, n_heads=4)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    stream: Iterator[Examples] = iter(task.train_dataloader())
    loading, training = [], []
    for _ in range(steps + 10):
        began = perf_counter()
        batch = next(stream)
        loaded = perf_counter()
        optimizer.zero_grad()
        functional.cross_entropy(model(batch.tokens, batch.length - 1), batch.answer).backward()
        optimizer.step()
        loading.append(loaded - began)
        training.append(perf_counter() - loaded)
    return median(loading[10:]), median(training[10:])


if __name__ == "__main__":
    sys.exit(main())
