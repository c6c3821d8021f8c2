"""The first token."""

from __future__ import annotations

import random
import string
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole


class FirstToken(Task):
    """The letter that a string begins with: ``bcaab=`` → ``b``, and corrupted ``acabb=`` → ``a``.

    The corrupted prompt exchanges the first letter and another one. Out of distribution the string is longer.

    Args:
        length: letters in the longest string that is trained on, at least 3; the shortest has 3.
        letters: size of the alphabet, in [2, 26].
        kwargs: arguments of every task.
    """

    index = 0
    by_definition: ClassVar[Mapping[str, str]] = {"fixed position": "the answer stands at a fixed position"}

    def __init__(self, length: int = 10, letters: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 3, most=LONGEST)
        check_whole("data.letters", letters, 2, 26)
        self.length, self.letters, self.max_length = length, string.ascii_lowercase[:letters], 2 * length + 1
        self.vocabulary = [*self.letters, "="]

    def sample(self, rng: random.Random) -> Example:
        """A random string of at least two different letters."""
        return self._example(rng, rng.randint(3, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """A longer string."""
        return self._example(rng, rng.randint(self.length + 1, 2 * self.length))

    def solve(self, prompt: str) -> str:
        """Read it."""
        return prompt.rstrip("=")[self.index]

    def _example(self, rng: random.Random, length: int) -> Example:
        while len(set(letters := rng.choices(self.letters, k=length))) == 1:
            pass
        answer = letters[self.index]
        other = rng.choice([i for i, letter in enumerate(letters) if letter != answer])
        swapped = list(letters)
        swapped[self.index], swapped[other] = letters[other], answer
        return Example("".join(letters) + "=", answer, letters[other], "".join(swapped) + "=")
