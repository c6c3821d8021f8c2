"""Which bracket closes: words of a Dyck language of bounded depth."""

from __future__ import annotations

import random
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import check_whole

_CLOSES = {"(": ")", "[": "]", "{": "}"}


class BracketType(Task):
    """The partner of the innermost open bracket: ``[](()[]`` → ``)``, and ``[][()[]`` → ``]``.

    Two brackets are open, of which the outer one is mostly of another kind, so that counting does not give the answer;
    closed pairs stand before, between and after them. The corrupted prompt has another kind of innermost open bracket.

    Args:
        kinds: kinds of brackets, 2 or 3.
        depth: most brackets open at once, at least 2; at 2 no closed pair holds another where two are open.
        pairs: most closed pairs in a prompt that is trained on, at least 2; up to twice as many out of distribution.
        kwargs: arguments of every task.
    """

    def __init__(self, kinds: int = 2, depth: int = 3, pairs: int = 6, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        for key, value, low, high in (("kinds", kinds, 2, 3), ("depth", depth, 2, 99), ("pairs", pairs, 2, 99)):
            check_whole(f"data.{key}", value, low, high)
        self.depth, self.pairs, self.opening = depth, pairs, "([{"[:kinds]
        self.vocabulary = [*self.opening, *(_CLOSES[bracket] for bracket in self.opening)]
        self.max_length = 2 + 4 * pairs

    def sample(self, rng: random.Random) -> Example:
        """Two open brackets among closed pairs, at least one of them after the second."""
        return self._example(rng, rng.randint(2, self.pairs))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """More closed pairs."""
        return self._example(rng, rng.randint(self.pairs + 1, 2 * self.pairs))

    def solve(self, prompt: str) -> str:
        """A stack."""
        stack: list[str] = []
        for bracket in prompt:
            stack = [*stack, bracket] if bracket in _CLOSES else stack[:-1]
        return _CLOSES[stack[-1]]

    def _example(self, rng: random.Random, pairs: int) -> Example:
        after = max(rng.randint(1, pairs), rng.randint(1, pairs))  # few are short: none is given away by its distance
        between = rng.randint(0, pairs - after)
        inner, other = rng.sample(self.opening, 2)
        outer = other if rng.random() < 0.7 else inner
        room = self.depth - 2
        tail = self._closed(rng, after, room) if room else self._closed(rng, after, 1)
        start = self._closed(rng, pairs - after - between, self.depth) + outer + self._closed(rng, between, room + 1)
        return Example(f"{start}{inner}{tail}", _CLOSES[inner], _CLOSES[other], f"{start}{other}{tail}")

    def _closed(self, rng: random.Random, pairs: int, depth: int) -> str:
        """So many pairs, at most ``depth`` open at once."""
        if pairs == 0:
            return ""
        inside = rng.randint(0, pairs - 1) if depth > 1 else 0
        opening = rng.choice(self.opening)
        return f"{opening}{self._closed(rng, inside, depth - 1)}{_CLOSES[opening]}" + self._closed(
            rng, pairs - 1 - inside, depth
        )
