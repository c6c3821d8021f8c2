"""The most frequent token."""

from __future__ import annotations

import random
import string
from collections import Counter
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole


class MajorityToken(Task):
    """The letter that occurs most often: ``cabba=`` has no answer, ``cabbab=`` → ``b``.

    Strings without a single most frequent letter are left out. The corrupted prompt exchanges that letter and another
    one everywhere. Out of distribution the string is longer.

    Args:
        length: letters in the longest string that is trained on, at least 5; the shortest has 5.
        letters: size of the alphabet, in [2, 26].
        kwargs: arguments of every task.
    """

    mirrored = True
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": "only the counts matter"}

    def __init__(self, length: int = 11, letters: int = 3, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 5, most=LONGEST)
        check_whole("data.letters", letters, 2, 26)
        self.length, self.letters, self.max_length = length, string.ascii_lowercase[:letters], 2 * length + 1
        self.vocabulary = [*self.letters, "="]

    def sample(self, rng: random.Random) -> Example:
        """A random string with one most frequent letter."""
        return self._example(rng, rng.randint(5, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """A longer string."""
        return self._example(rng, rng.randint(self.length + 1, 2 * self.length))

    def solve(self, prompt: str) -> str:
        """Count."""
        return Counter(prompt).most_common(1)[0][0]

    def _example(self, rng: random.Random, length: int) -> Example:
        while True:
            text = "".join(rng.choices(self.letters, k=length))
            ranked = sorted(self.letters, key=text.count)
            answer = ranked[-1]
            if text.count(answer) > text.count(ranked[-2]):
                break
        wrong = rng.choice([letter for letter in text if letter != answer] or [ranked[0]])
        swap = str.maketrans(answer + wrong, wrong + answer)
        return Example(text + "=", answer, wrong, text.translate(swap) + "=")
