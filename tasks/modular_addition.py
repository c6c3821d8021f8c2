"""Addition modulo a number."""

from __future__ import annotations

import random
from collections.abc import Iterator
from functools import reduce
from itertools import product
from typing import Any

from sparselit.data.task import Example, Task
from sparselit.errors import check_range, check_whole

_SYMBOLS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"


class ModularAddition(Task):
    """The sum of two residues, one character each: modulo 23, ``f+b=`` → ``3`` (15 + 11 = 26 = 3).

    Residues are written 0…9, a…z, A…Z and from 62 on as further letters. The domain is the whole table; a + b and b + a
    are in the same split, so that a held-out sum was never seen in either order. The corrupted prompt has another b.
    Out of distribution there are three terms.

    Args:
        modulus: number of residues, in [3, 1000].
        train_share: share of the table that is trained on, in (0, 1).
        kwargs: arguments of every task.
    """

    max_length = 6
    operator = "+"

    def __init__(self, modulus: int = 23, train_share: float = 0.75, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        check_whole("data.modulus", modulus, 3, 1000)
        check_range("data.train_share", train_share, 0, 1, above=True, below=True)
        self.modulus, self.train_share = modulus, train_share
        symbols = [*_SYMBOLS, *map(chr, range(0x4E00, 0x4E00 + modulus))]
        self.symbols = {number: symbols[number] for number in self.operands()}
        self.vocabulary = [*self.symbols.values(), self.operator, "="]

    def operands(self) -> range:
        """The residues that are added."""
        return range(self.modulus)

    def combine(self, a: int, b: int) -> int:
        """The result."""
        return (a + b) % self.modulus

    def examples(self) -> Iterator[Example]:
        """The table; every prompt comes with several corrupted prompts, of which one in the same split is used."""
        numbers, symbol = self.operands(), self.symbols
        for a, b in product(numbers, repeat=2):
            for c in random.Random(f"{a} {b}").sample(numbers, min(len(numbers), 48)):
                if c != b:
                    answer, wrong = symbol[self.combine(a, b)], symbol[self.combine(a, c)]
                    yield Example(self._prompt(a, b), answer, wrong, self._prompt(a, c))

    def sample_out_of_distribution(self, rng: random.Random) -> Example:
        """Three terms, the last of them another one in the corrupted prompt."""
        a, b = rng.choices(self.operands(), k=2)
        c, d = rng.sample(self.operands(), 2)
        answer, wrong = (self.symbols[self.combine(self.combine(a, b), last)] for last in (c, d))
        return Example(self._prompt(a, b, c), answer, wrong, self._prompt(a, b, d))

    def family(self, prompt: str) -> str:
        """The operands, whatever their order."""
        return "".join(sorted(prompt[::2]))

    def solve(self, prompt: str) -> str:
        """Arithmetic on the numbers that the symbols stand for."""
        number = {symbol: value for value, symbol in self.symbols.items()}
        return self.symbols[reduce(self.combine, (number[symbol] for symbol in prompt[:-1].split(self.operator)))]

    def _prompt(self, *numbers: int) -> str:
        return self.operator.join(self.symbols[number] for number in numbers) + "="
