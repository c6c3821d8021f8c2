"""Addition modulo a number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from sparselit.errors import SparselitError
from sparselit.task import Example, Task

_RESIDUES = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ModularAddition(Task):
    """The sum of two residues, one character each: modulo 23, ``f+b=`` → ``3`` (15 + 11 = 26 = 3).

    Residues are written 0…9, a…z, A…Z and from 62 on as further letters. The domain is the whole table; a + b and b + a
    are in the same split, so that a held-out sum was never seen in either order. The counterpart has another b.

    Args:
        modulus: number of residues, in [3, 1000].
        train_share: share of the table that is trained on, in (0, 1).
        kwargs: arguments of every task.
    """

    max_length = 4

    def __init__(self, modulus: int = 23, train_share: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 3 <= modulus <= 1000:
            raise SparselitError(f"data.modulus must lie in [3, 1000], got {modulus}")
        self.modulus, self.train_share = modulus, train_share
        residues = [*_RESIDUES, *map(chr, range(0x4E00, 0x4E00 + modulus))][:modulus]
        self.vocabulary = [*residues, "+", "="]

    def examples(self) -> Iterator[Example]:
        """The table; every sum comes with several counterparts, of which one in the same split is used."""
        m, symbol = self.modulus, self.vocabulary
        for a in range(m):
            for b in range(m):
                for other in random.Random(f"{a} {b}").sample(range(m), min(m, 48)):
                    if other != b:
                        answer, wrong = symbol[(a + b) % m], symbol[(a + other) % m]
                        yield Example(f"{symbol[a]}+{symbol[b]}=", answer, wrong, f"{symbol[a]}+{symbol[other]}=")

    def family(self, prompt: str) -> str:
        """The sum, whatever the order of its operands."""
        return "".join(sorted(prompt[::2]))
