"""Parity of a bit string."""

from __future__ import annotations

import random
from typing import Any

from sparselit.errors import SparselitError
from sparselit.task import Example, Task


class Parity(Task):
    """Whether the number of ones is odd: ``01101000=`` → ``1``.

    The counterpart has one bit flipped, at a random place. All strings have the same length, and half of them are held
    out: a model that answers those has learned the rule and not the table.

    Args:
        length: bits in the string, at least 4.
        train_share: share of the strings that may be trained on, in (0, 1).
        kwargs: arguments of every task.
    """

    vocabulary = "01="

    def __init__(self, length: int = 8, train_share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if length < 4:
            raise SparselitError(f"data.length must be at least 4, got {length}")
        self.length, self.train_share, self.max_length = length, train_share, length + 1

    def sample(self, rng: random.Random) -> Example:
        """A random string."""
        bits = "".join(rng.choices("01", k=self.length))
        answer = bits.count("1") % 2
        i = rng.randrange(self.length)
        flipped = bits[:i] + "10"[int(bits[i])] + bits[i + 1 :]
        return Example(bits + "=", str(answer), str(1 - answer), flipped + "=")
