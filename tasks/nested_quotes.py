"""Closing quotes inside of quotes."""

from __future__ import annotations

import random
import string
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole

_SWAP = str.maketrans("'\"", "\"'")
_LETTERS = " " + string.ascii_lowercase[:12] + ",=()"


class NestedQuotes(Task):
    """Which quote closes next: ``f'ab{c("d`` → ``"``, and ``f'ab{c("d"}e`` → ``'``.

    Strings with a field, as in Python's f-strings, in which another string may stand. Stratum ``inner``: that string is
    open; ``outer``: it and its field are closed. The corrupted prompt exchanges both kinds of quotes everywhere. Out of
    distribution a first field is closed before.

    Args:
        length: tokens in the longest prompt, at least 20.
        kwargs: arguments of every task.
    """

    vocabulary = (*_LETTERS, "'", '"', "{", "}")
    strata = ("inner", "outer")
    mirrored = True

    def __init__(self, length: int = 24, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 20, most=LONGEST)
        self.max_length = length

    def sample(self, rng: random.Random) -> Example:
        """One field."""
        return self._example(rng, 1)

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """Two fields."""
        return self._example(rng, 2)

    def solve(self, prompt: str) -> str:
        """A stack of open strings; only the innermost one closes."""
        stack: list[str] = []
        for quote in (character for character in prompt if character in "'\""):
            stack = stack[:-1] if stack and stack[-1] == quote else [*stack, quote]
        return stack[-1]

    def _example(self, rng: random.Random, fields: int) -> Example:
        most = (self.max_length - 1 - 4 * fields) // (2 + 3 * fields)
        outer, inner = rng.sample("'\"", 2)
        texts = ["{".join((_text(rng, most), _text(rng, most))) + inner + _text(rng, most) for _ in range(fields)]
        prompt = _text(rng, most) + outer + f"{inner}}}".join(texts)
        answer, wrong, stratum = inner, outer, "inner"
        if rng.random() < 0.4:  # fewer, because there counting gives the answer
            prompt += f"{inner}}}" + _text(rng, most)
            answer, wrong, stratum = outer, inner, "outer"
        return Example(prompt, answer, wrong, prompt.translate(_SWAP), stratum)


def _text(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(0, most)))
