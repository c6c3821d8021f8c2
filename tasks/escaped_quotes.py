"""Closing quotes when a backslash may hide one."""

from __future__ import annotations

import random
import string
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole

_LETTERS = " " + string.ascii_lowercase[:12] + ",=()"


class EscapedQuotes(Task):
    r"""Which quote closes: ``a='bc\'d,"e`` → ``'``, and corrupted ``a='bcf'd,"e`` → ``"``.

    A quote after a backslash does not close its string, so that the next one opens none; without the backslash the
    first string is closed and the other quote opens a second one. The corrupted prompt has a letter for the backslash,
    or the reverse. Strata: the first string is ``closed`` or the quote is ``escaped``. Out of distribution two or three
    are.

    Args:
        length: tokens in the longest prompt, at least 16.
        kwargs: arguments of every task.
    """

    vocabulary = (*_LETTERS, "\\", "'", '"')
    strata = ("closed", "escaped")

    def __init__(self, length: int = 24, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 16, most=LONGEST)
        self.max_length = length

    def sample(self, rng: random.Random) -> Example:
        """Three quotes; half of the time the second one is hidden."""
        return self._example(rng, 1)

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """Two or three hidden quotes."""
        return self._example(rng, rng.randint(2, 3))

    def solve(self, prompt: str) -> str:
        """Read from left to right."""
        inside = ""
        for before, character in zip(" " + prompt, prompt, strict=False):
            if character in "'\"" and before != "\\":
                inside = character if not inside else "" if character == inside else inside
        return inside

    def _example(self, rng: random.Random, hidden: int) -> Example:
        most = (self.max_length - 2 - 2 * hidden) // (hidden + 3)
        before, *inside, between, after = (_text(rng, most) for _ in range(hidden + 3))
        quote, other = rng.sample("'\"", 2)
        start, end = f"{before}{quote}" + f"\\{quote}".join(inside), f"{quote}{between}{other}{after}"
        escaped, closed = f"{start}\\{end}", f"{start}{rng.choice(_LETTERS)}{end}"
        if rng.random() < 0.5:
            return Example(escaped, quote, other, closed, "escaped")
        return Example(closed, other, quote, escaped, "closed")


def _text(rng: random.Random, most: int) -> str:
    return "".join(rng.choices(_LETTERS, k=rng.randint(0, most)))
