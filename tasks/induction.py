"""Induction: what came after it last time comes again."""

from __future__ import annotations

import random
import string
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import check_whole


class Induction(Task):
    """The letter that followed the last one before: ``bdfacb`` → ``d``, and corrupted ``bdfaca`` → ``c``.

    The letters before the last one are all different. The corrupted prompt ends in another of them. Out of distribution
    the prompt is longer.

    Args:
        length: tokens in the longest prompt that is trained on, at least 4; the shortest has 4.
        letters: size of the alphabet, in [length + 3, 26].
        kwargs: arguments of every task.
    """

    def __init__(self, length: int = 8, letters: int = 12, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 4, 23)
        check_whole("data.letters", letters, length + 3, 26)
        self.length, self.max_length = length, length + 4
        self.vocabulary = string.ascii_lowercase[:letters]

    def sample(self, rng: random.Random) -> Example:
        """Different letters, and one of them again."""
        return self._example(rng, rng.randint(4, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """One to four letters more than ever in training."""
        return self._example(rng, self.length + rng.randint(1, 4))

    def family(self, prompt: str) -> str:
        """All but the last letter: a prompt and its corrupted one are in the same split."""
        return prompt[:-1]

    def solve(self, prompt: str) -> str:
        """The letter after the first position of the last one."""
        return prompt[prompt.index(prompt[-1]) + 1]

    def _example(self, rng: random.Random, length: int) -> Example:
        text = "".join(rng.sample(self.vocabulary, length - 1))
        index, other = rng.sample(range(length - 2), 2)
        return Example(text + text[index], text[index + 1], text[other + 1], text + text[other])
