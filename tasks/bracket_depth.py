"""Counting brackets: whether one list is open or two."""

from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any, ClassVar

from sparselit.data.task import Example, Task
from sparselit.errors import LONGEST, check_whole

_LETTERS = "abcdefgh"


class BracketDepth(Task):
    """How many brackets close the list: ``[a,[b,gc],[d,e`` → ``]]``, and ``[a,[b,gc],hd,e`` → ``]``.

    The bracket counting of Gao et al. 2025: ``]]`` is one token. The corrupted prompt has a letter for the last
    bracket. Out of distribution lists are up to twice as long, which dilutes an average over the prompt.

    Args:
        length: tokens in the longest prompt that is trained on, at least 10.
        kwargs: arguments of every task.
    """

    vocabulary = ("[", "]", "]]", ",", *_LETTERS)
    mirrored = True
    by_definition: ClassVar[Mapping[str, str]] = {"bag of characters": "the depth is the number of [ less that of ]"}

    def __init__(self, length: int = 16, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.length", length, 10, most=LONGEST)
        self.length, self.max_length = length, 2 * length

    def sample(self, rng: random.Random) -> Example:
        """A list whose last item is an open list."""
        return _example(rng, rng.randint(4, self.length))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """A longer list."""
        return _example(rng, rng.randint(self.length + 1, 2 * self.length), rng.random() < 0.5)

    def solve(self, prompt: str) -> str:
        """Open less closed brackets."""
        return "]" * (prompt.count("[") - prompt.count("]"))


def _example(rng: random.Random, length: int, closed: bool = False) -> Example:
    """Items up to ``length`` tokens, the last of them a list; ``closed``: its bracket is a letter instead."""
    before, last = "", rng.choice(_LETTERS) + rng.choice(("", "," + _names(rng)))
    while (room := length - len(last) - len(before) - 2) >= 2:
        before += rng.choice([item for item in (_names(rng), f"[{_names(rng)}]") if len(item) < room] or ["a"]) + ","
    two, one = f"[{before}[{last}", f"[{before}{rng.choice(_LETTERS)}{last}"
    return Example(one, "]", "]]", two) if closed else Example(two, "]]", "]", one)


def _names(rng: random.Random) -> str:
    """One or two names of one or two letters."""
    return ",".join("".join(rng.choices(_LETTERS, k=rng.randint(1, 2))) for _ in range(rng.randint(1, 2)))
