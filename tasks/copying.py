"""Copying a string."""

from __future__ import annotations

import random
import string
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole


class Copying(Task):
    """The next letter of the copy: ``dbbac|db`` → ``b``, and corrupted ``dbabc|db`` → ``a``.

    The corrupted prompt exchanges that letter and a later one of the original, so that both candidates are always in
    the prompt. Out of distribution the original is longer.

    Args:
        length: letters in the longest original that is trained on, at least 3; the shortest has 3.
        letters: size of the alphabet, in [2, 26].
        kwargs: arguments of every task.
    """

    def __init__(self, length: int = 6, letters: int = 8, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 3, most=LONGEST)
        check_whole("data.letters", letters, 2, 26)
        self.length, self.letters, self.max_length = length, string.ascii_lowercase[:letters], 2 * (length + 3)
        self.vocabulary = [*self.letters, "|"]

    def sample(self, rng: random.Random) -> Example:
        """A string, and the beginning of its copy."""
        return self._example(rng, rng.randint(3, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """One to three letters more than ever in training."""
        return self._example(rng, self.length + rng.randint(1, 3))

    def family(self, prompt: str) -> str:
        """The letters, and the copy so far: a prompt and its corrupted one are in the same split."""
        text, _, begun = prompt.partition("|")
        return "".join(sorted(text)) + "|" + begun

    def copy(self, text: str) -> str:
        """What is written after the bar."""
        return text

    def solve(self, prompt: str) -> str:
        """The letter that the copy lacks next."""
        text, _, begun = prompt.partition("|")
        return self.copy(text)[len(begun)]

    def _example(self, rng: random.Random, length: int) -> Example:
        while True:
            copy, done = rng.choices(self.letters, k=length), rng.randrange(length - 1)
            later = rng.randrange(done + 1, length)
            if copy[done] != copy[later]:
                break
        swapped = list(copy)
        swapped[done], swapped[later] = copy[later], copy[done]
        prompt, other = (f"{self.copy(''.join(text))}|{''.join(text[:done])}" for text in (copy, swapped))
        return Example(prompt, copy[done], swapped[done], other)
