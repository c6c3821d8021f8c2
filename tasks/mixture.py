"""Several tasks for one model."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from sparselit.data.batches import PoolBatch
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.data.task import Task
from sparselit.errors import SparselitError, suggestion


class Mixture(Task):
    """Several tasks that one model learns together, over one vocabulary; each is a stratum and gives a circuit.

    Every batch holds equally many prompts of each task. The tasks keep their own splits, whose sizes and seeds are
    theirs to set; of the arguments of every task, ``batch_size``, ``seed`` and ``num_workers`` matter here.

    Args:
        tasks: two or more tasks.
        marked: begin each prompt with a token that names its task, as in ``<Parity>0110=``; needed where a prompt
            belongs to two of them.
        kwargs: arguments of every task.

    Raises:
        SparselitError: fewer than two tasks, or a prompt that belongs to two.
    """

    def __init__(self, tasks: list[Task], marked: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if len(tasks) < 2:
            raise SparselitError(f"data.tasks must hold two or more tasks, got {len(tasks)}")
        self.tasks, self.marked, self._apart = tasks, marked, False
        seen: Counter[str] = Counter()
        names = []
        for task in tasks:
            seen[name := type(task).__name__] += 1
            names.append(name if seen[name] == 1 else f"{name}_{seen[name]}")
        self.strata = tuple(names)
        marks = [f"<{name}>" for name in names] if marked else []
        self.vocabulary = list(dict.fromkeys([*(word for task in tasks for word in task.vocabulary), *marks]))
        self.max_length = max(task.max_length for task in tasks) + marked
        self.hparams["tasks"] = [task.origin for task in tasks]  # checkpoints and circuits hold values, no objects

    def split(self, name: str) -> Examples | None:  # type: ignore[override]
        """The tasks' splits one after the other; None where none has such a split."""
        self._refuse_shared_prompts()
        if name not in self._tensors:
            parts = [part for i in range(len(self.tasks)) if (part := self._part(i, name)) is not None]
            self._tensors[name] = _joined(parts) if parts else None
        return self._tensors[name]

    def batches(self) -> Callable[[int], Examples]:
        """Batch k as a function of k: as many prompts of each task, or one more where it does not divide."""
        self._refuse_shared_prompts()
        most = -(-self.batch_size // len(self.tasks))
        parts = [self._part(i, "train") for i in range(len(self.tasks))]
        return _Mixed([PoolBatch(part, most, self.seed) for part in parts if part is not None], self.batch_size)

    def behaviours(self, only: Sequence[str] = ()) -> dict[str, Behaviour]:
        """The behaviour of each task, in the vocabulary of all.

        Args:
            only: names of those that are wanted; all where it is empty.

        Raises:
            SparselitError: there is none of that name.
        """
        unknown = [name for name in only if name not in self.strata]
        if unknown:
            raise SparselitError(f"no behaviour is called {unknown[0]!r}{suggestion(unknown[0], self.strata)}")
        self._refuse_shared_prompts()
        found = {}
        for i, (name, task) in enumerate(zip(self.strata, self.tasks, strict=True)):
            if only and name not in only:
                continue
            own = task.behaviour()
            parts = {split: self._part(i, split) for split in own.splits}
            splits = {
                split: part._replace(stratum=own.splits[split].stratum)
                for split, part in parts.items()
                if part is not None
            }
            found[name] = replace(own, splits=splits, vocabulary=list(self.vocabulary))
        return found

    def solve(self, prompt: str) -> str | None:
        """The answer of the task that the mark names; None without marks."""
        name, mark, rest = prompt.removeprefix("<").partition(">")
        return self.tasks[self.strata.index(name)].solve(rest) if self.marked and mark and name in self.strata else None

    def _part(self, i: int, name: str) -> Examples | None:
        """A split of task ``i`` in the tokens of the mixture."""
        examples = self.tasks[i].split(name)
        if examples is None:
            return None
        token = torch.tensor([self.vocabulary.index(word) for word in self.tasks[i].vocabulary])
        tokens, corrupted = (token[field] * examples.real for field in (examples.tokens, examples.corrupted))
        if self.marked:
            mark = torch.full((len(tokens), 1), self.vocabulary.index(f"<{self.strata[i]}>"))
            tokens, corrupted = (torch.cat([mark, field], 1) for field in (tokens, corrupted))
        return Examples(
            tokens,
            examples.length + int(self.marked),
            token[examples.answer],
            token[examples.wrong],
            corrupted,
            torch.full_like(examples.stratum, i),
        )

    def _refuse_shared_prompts(self) -> None:
        """A prompt of two tasks may have two answers, or be held out by one and trained on by the other."""
        if self.marked or self._apart:
            return
        owner: dict[bytes, int] = {}
        for i, task in enumerate(self.tasks):
            for split in ("train", "discovery", "selection", "report"):
                part = self._part(i, split)
                for row, length in zip(part.tokens.numpy(), part.length.tolist(), strict=True) if part else ():
                    if owner.setdefault(row[:length].tobytes(), i) != i:
                        other = self.strata[owner[row[:length].tobytes()]]
                        prompt = self.decode(row[:length])
                        raise SparselitError(
                            f"the prompt {prompt!r} belongs to {other} and to {type(task).__name__}; set marked: true"
                        )
        self._apart = True


class _Mixed:
    """Batch k: the beginnings of the k-th batches of several pools."""

    def __init__(self, pools: list[PoolBatch], batch_size: int) -> None:
        self.pools, self.batch_size = pools, batch_size

    def __call__(self, k: int) -> Examples:
        n = len(self.pools)
        shares = [(self.batch_size + (k + i) % n) // n for i in range(n)]
        return _joined([pool(k).select(slice(0, share)) for pool, share in zip(self.pools, shares, strict=True)])


def _joined(parts: list[Examples]) -> Examples:
    """Examples one after the other, padded with token 0 to one width."""
    width = max(part.tokens.shape[1] for part in parts)

    def wide(tokens: Tensor) -> Tensor:
        return functional.pad(tokens, (0, width - tokens.shape[1]))

    padded = [part._replace(tokens=wide(part.tokens), corrupted=wide(part.corrupted)) for part in parts]
    return Examples(*(torch.cat(fields) for fields in zip(*padded, strict=True)))
