"""Batches of examples or texts: those of training, endless, batch k a function of (seed, k), and plain chunks."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, IterableDataset, get_worker_info

from sparselit.data.examples import Examples, Sequences
from sparselit.errors import SparselitError

Batch = Examples | Sequences


def rows_in(batch: Batch) -> int:
    """Examples or windows in a batch; for ``batch_size_fn`` of Lightning's ``ThroughputMonitor``."""
    return len(batch.tokens)


def tokens_in(batch: Batch) -> int:
    """Tokens in a batch, padding included; for ``length_fn`` of Lightning's ``ThroughputMonitor``."""
    return batch.tokens.numel()


class PoolBatch:
    """Batch k of a pool of examples, drawn with replacement.

    Args:
        pool: the examples to draw from.
        batch_size: examples per batch.
        seed: batch k is a function of (seed, k).
    """

    def __init__(self, pool: Examples, batch_size: int, seed: int) -> None:
        # Arrays, because torch wakes its thread pool for a gather of this size: milliseconds on a busy machine.
        self.pool = [field.numpy() for field in pool]
        self.batch_size, self.seed = batch_size, seed

    def __call__(self, k: int) -> Examples:
        """Batch ``k``."""
        index = np.random.default_rng((self.seed, k)).integers(len(self.pool[0]), size=self.batch_size)
        return Examples(*(torch.from_numpy(field[index]) for field in self.pool))


class _Shard(IterableDataset[Batch]):
    """Batches first, first + step, …; inside a loader with W workers, worker w takes every W-th of them.

    The loader takes from its workers in turn, so that the batches arrive in the same order for any number of workers.
    """

    def __init__(self, batch_at: Callable[[int], Batch], first: int, step: int, period: int | None) -> None:
        self.batch_at, self.first, self.step, self.period = batch_at, first, step, period

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        w, workers = (worker.id, worker.num_workers) if worker is not None else (0, 1)
        k = self.first + w * self.step
        while True:
            yield self.batch_at(k if self.period is None else k % self.period)
            k += workers * self.step


class TrainingBatches:
    """An endless training loader: iterating gives batches ``start``, ``start + 1``, … of this rank.

    It wraps a DataLoader and is none itself: Lightning would warn about the few workers that a loader of ready-made
    tensors needs, and the first batch has to be known when an iteration begins, after a checkpoint was restored.
    Rank r of R takes batches k·R + r.

    Args:
        batch_at: gives batch k.
        num_workers: worker processes; 0 makes the batches in the main process.
        progress: an object whose ``ready`` counts the batches this rank has trained on (Lightning's); None is 0.
        rank: this process, in [0, world_size).
        world_size: number of processes.
        repeat: number of batches after which they come again, to overfit them; None for never.
    """

    def __init__(
        self,
        batch_at: Callable[[int], Batch],
        num_workers: int = 0,
        progress: Any = None,
        rank: int = 0,
        world_size: int = 1,
        repeat: int | None = None,
    ) -> None:
        self.batch_at, self.num_workers, self.progress = batch_at, num_workers, progress
        self.rank, self.world_size, self.repeat = rank, world_size, repeat

    def __iter__(self) -> Iterator[Batch]:
        """Begin at the batch that comes after the ones already trained on."""
        start = 0 if self.progress is None else self.progress.ready
        period = None if self.repeat is None else self.repeat * self.world_size
        shard = _Shard(self.batch_at, start * self.world_size + self.rank, self.world_size, period)
        if self.num_workers == 0:
            return iter(shard)
        return iter(DataLoader(shard, batch_size=None, num_workers=self.num_workers))


def batches_of(trainer: Any, batch_at: Callable[[int], Batch], num_workers: int) -> TrainingBatches:
    """The training batches of one process of a run.

    Args:
        trainer: Lightning's, which counts the batches and may want the first ones again and again; None for none.
        batch_at: gives batch k.
        num_workers: worker processes.

    Raises:
        SparselitError: the share of an endless stream is wanted.
    """
    if trainer is None:
        return TrainingBatches(batch_at, num_workers)
    repeat, progress = trainer.overfit_batches, trainer.fit_loop.epoch_loop.batch_progress.total
    if isinstance(repeat, float) and repeat > 0:
        raise SparselitError(
            f"trainer.overfit_batches must be a whole number of batches, got {repeat}: the training stream has no "
            "length to take a share of"
        )
    rank, size = trainer.global_rank, trainer.world_size
    return TrainingBatches(batch_at, num_workers, progress, rank, size, int(repeat) or None)


class Chunks:
    """A whole split, in order, a number of examples at a time.

    Args:
        examples: the split, prompts or texts.
        size: of them per chunk; the last one may be smaller.
    """

    def __init__(self, examples: Batch, size: int) -> None:
        self.examples, self.size = examples, size

    def __len__(self) -> int:
        """Number of chunks."""
        return math.ceil(len(self.examples.length) / self.size)

    def __iter__(self) -> Iterator[Batch]:
        """The chunks in order."""
        for begin in range(0, len(self.examples.length), self.size):
            yield self.examples.select(slice(begin, begin + self.size))
