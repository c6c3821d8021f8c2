"""The smallest number."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole

_DIGITS = "0123456789abcdef"


class Minimum(Task):
    """The smallest hexadecimal digit: ``7c4e=`` → ``4``, and corrupted ``7cae=`` → ``7``.

    Each of 0 to 6 is equally often the smallest, each above it up to 7 the second smallest. In the corrupted prompt the
    smallest digit is not below the second smallest, which becomes the answer. Out of distribution there are more.

    Args:
        length: digits in the longest prompt that is trained on, at least 4; the shortest has 4.
        kwargs: arguments of every task.
    """

    vocabulary = (*_DIGITS, "=")
    by_definition: ClassVar[Mapping[str, str]] = {
        "bag of characters": "the smallest digit does not depend on the order"
    }

    def __init__(self, length: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 4, most=LONGEST)
        self.length, self.max_length = length, length + 5

    def sample(self, rng: random.Random) -> Example:
        """The two smallest digits first, then the others."""
        return _example(rng, rng.randint(4, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """One to four digits more than ever in training."""
        return _example(rng, self.length + rng.randint(1, 4))

    def solve(self, prompt: str) -> str:
        """The first in order."""
        return min(prompt[:-1])


def _example(rng: random.Random, length: int) -> Example:
    answer = rng.choice(_DIGITS[:7])
    wrong = rng.choice(_DIGITS[int(answer) + 1 : 8])
    digits = [answer, wrong, *rng.choices(_DIGITS[int(wrong) :], k=length - 2)]
    rng.shuffle(digits)
    other = digits.copy()
    other[digits.index(answer)] = rng.choice(_DIGITS[int(wrong) :])
    return Example("".join(digits) + "=", answer, wrong, "".join(other) + "=")
