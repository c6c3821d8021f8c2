"""Tracking the type of a variable."""

from __future__ import annotations

import random
from typing import Any, Literal

from sparselit.data.task import Example, Task
from sparselit.errors import SparselitError, check_whole

_METHOD = {"set()": ".add", '""': "+="}


class VariableType(Task):
    """What comes after a variable: ``a=set();c=1;b="";a`` → ``.add``, and ``a="";c=1;b=set();a`` → ``+=``.

    After Gao et al. 2025, ``set_or_string``. One variable is a set and one a string, so that only the binding of name
    and type decides; others are numbers. ``set()``, ``""``, ``.add`` and ``+=`` are one token each. The corrupted
    prompt exchanges the two types. Out of distribution there are more numbers.

    Args:
        names: free (the two names are drawn anew for each prompt) or fixed (``a`` is in question, ``b`` the other).
        numbers: most variables that are numbers, in [0, 3].
        kwargs: arguments of every task.
    """

    vocabulary = (*"abcdefgh", *"0123456789", "=", ";", *_METHOD, *_METHOD.values())
    mirrored = True

    def __init__(self, names: Literal["free", "fixed"] = "free", numbers: int = 2, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if names not in ("free", "fixed"):
            raise SparselitError(f"data.names must be free or fixed, got {names!r}")
        check_whole("data.numbers", numbers, 0, 3)
        self.names, self.numbers, self.max_length = names, numbers, 4 * (numbers + 5) + 1

    def sample(self, rng: random.Random) -> Example:
        """Assignments in random order, and the name of the set or of the string."""
        return self._example(rng, rng.randint(0, self.numbers))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """One to three more numbers than ever in training."""
        return self._example(rng, self.numbers + rng.randint(1, 3))

    def solve(self, prompt: str) -> str:
        """The type in the assignment to the last name."""
        *assignments, name = prompt.split(";")
        return _METHOD[dict(text.split("=") for text in assignments)[name]]

    def _example(self, rng: random.Random, numbers: int) -> Example:
        names = rng.sample("abcdefgh", 2 + numbers) if self.names == "free" else [*"ab", *rng.sample("cdefgh", numbers)]
        types = rng.sample(list(_METHOD), 2)
        values = [*types, *rng.choices("0123456789", k=numbers)]
        lines = [f"{name}={value};" for name, value in zip(names, values, strict=True)]
        rng.shuffle(lines)
        prompt = "".join(lines) + names[0]
        swapped = prompt.replace("set()", "?").replace('""', "set()").replace("?", '""')
        return Example(prompt, _METHOD[types[0]], _METHOD[types[1]], swapped)
