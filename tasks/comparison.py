"""Comparing two numbers."""

from __future__ import annotations

import random
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import check_whole


class Comparison(Task):
    """Which sign stands between two numbers: ``372,391=`` → ``<``, and corrupted ``391,372=`` → ``>``.

    The first digit in which they differ is equally often at any position. The corrupted prompt exchanges the
    numbers. Out of distribution the tails agree as well, so that a single digit decides.

    Args:
        digits: digits of each number, in [1, 6].
        kwargs: arguments of every task.
    """

    vocabulary = "0123456789,=<>"
    mirrored = True

    def __init__(self, digits: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.digits", digits, 1, 6)
        self.digits, self.max_length = digits, 2 * digits + 2

    def sample(self, rng: random.Random) -> Example:
        """Two numbers that begin alike."""
        same = rng.randrange(self.digits)
        start, (first, second) = _number(rng, same), rng.sample("0123456789", 2)
        return self._example(*(start + digit + _number(rng, self.digits - same - 1) for digit in (first, second)))

    def sample_out_of_distribution(self, rng: random.Random) -> Example | None:
        """Two numbers that differ in one digit; None where they have no second one."""
        if self.digits == 1:
            return None
        index, (one, other) = rng.randrange(self.digits), rng.sample("0123456789", 2)
        start, end = _number(rng, index), _number(rng, self.digits - index - 1)
        return self._example(start + one + end, start + other + end)

    def family(self, prompt: str) -> str:
        """The numbers, whatever their order: a prompt and its corrupted one are in the same split."""
        return ",".join(sorted(prompt[:-1].split(",")))

    def solve(self, prompt: str) -> str:
        """Compare the integers."""
        one, other = map(int, prompt[:-1].split(","))
        return "<" if one < other else ">"

    def _example(self, one: str, other: str) -> Example:
        answer, wrong = "<>" if one < other else "><"
        return Example(f"{one},{other}=", answer, wrong, f"{other},{one}=")


def _number(rng: random.Random, digits: int) -> str:
    return "".join(rng.choices("0123456789", k=digits))
