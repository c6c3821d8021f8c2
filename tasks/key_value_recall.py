"""Recalling the value of a key."""

from __future__ import annotations

import random
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import check_whole


class KeyValueRecall(Task):
    """The value that a key was given: ``a3c7f1?c`` → ``7``, and corrupted ``a3c7f1?a`` → ``3``.

    Keys and values are different from one another. The corrupted prompt ends with another key. Out of distribution
    there are more pairs.

    Args:
        pairs: most pairs in a prompt that is trained on, in [2, 8]; the fewest are 2.
        kwargs: arguments of every task.
    """

    vocabulary = "abcdefghij0123456789?"

    def __init__(self, pairs: int = 4, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.pairs", pairs, 2, 8)
        self.pairs, self.max_length = pairs, 2 * pairs + 6

    def sample(self, rng: random.Random) -> Example:
        """Some pairs and a question."""
        return _example(rng, rng.randint(2, self.pairs))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """One or two pairs more than ever in training."""
        return _example(rng, self.pairs + rng.randint(1, 2))

    def family(self, prompt: str) -> str:
        """The pairs, whichever is in question: a prompt and its corrupted one are in the same split."""
        return prompt.partition("?")[0]

    def solve(self, prompt: str) -> str:
        """Look it up."""
        pairs, key = prompt.split("?")
        return dict(zip(pairs[::2], pairs[1::2], strict=True))[key]


def _example(rng: random.Random, pairs: int) -> Example:
    keys, values = rng.sample("abcdefghij", pairs), rng.sample("0123456789", pairs)
    text = "".join(key + value for key, value in zip(keys, values, strict=True))
    chosen, other = rng.sample(range(pairs), 2)
    return Example(f"{text}?{keys[chosen]}", values[chosen], values[other], f"{text}?{keys[other]}")
