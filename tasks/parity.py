"""Parity of a bit string."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_range, check_whole


class Parity(Task):
    """Whether the number of ones is odd: ``01101000=`` → ``1``.

    The corrupted prompt has one bit flipped, at a random position. All strings have the same length, and half of them
    are held out: a model that answers those has learned the rule and not the table. Out of distribution they are
    longer.

    Args:
        length: bits in the string, at least 4.
        train_share: share of the strings that may be trained on, in (0, 1).
        kwargs: arguments of every task.
    """

    vocabulary = "01="
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": "the parity is a function of the number of ones"}

    def __init__(self, length: int = 8, train_share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 4, most=LONGEST)
        check_range("data.train_share", train_share, 0, 1, above=True, below=True)
        self.length, self.train_share, self.max_length = length, train_share, length + 5

    def sample(self, rng: random.Random) -> Example:
        """A random string."""
        return _example(rng, self.length)

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """A string that is one to four bits longer."""
        return _example(rng, self.length + rng.randint(1, 4))

    def solve(self, prompt: str) -> str:
        """Bits added modulo two."""
        return str(sum(map(int, prompt[:-1])) % 2)


def _example(rng: random.Random, length: int) -> Example:
    bits = "".join(rng.choices("01", k=length))
    answer = bits.count("1") % 2
    i = rng.randrange(length)
    flipped = bits[:i] + "10"[int(bits[i])] + bits[i + 1 :]
    return Example(bits + "=", str(answer), str(1 - answer), flipped + "=")
