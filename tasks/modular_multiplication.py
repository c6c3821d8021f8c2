"""Multiplication modulo a prime."""

from __future__ import annotations

from typing import Any

from sparselit.errors import SparselitError, check_whole

from .modular_addition import ModularAddition


class ModularMultiplication(ModularAddition):
    """The product of two residues other than 0: modulo 23, ``f*b=`` → ``4`` (15 · 11 = 165 = 4).

    Written and held out as in ``ModularAddition``. Without 0 every product is equally frequent.

    Args:
        modulus: a prime in [5, 997].
        train_share: share of the table that is trained on, in (0, 1).
        kwargs: arguments of every task.
    """

    operator = "*"

    def __init__(self, modulus: int = 23, train_share: float = 0.75, **kwargs: Any) -> None:
        check_whole("data.modulus", modulus, 5, 997)
        if any(modulus % factor == 0 for factor in range(2, int(modulus**0.5) + 1)):
            raise SparselitError(f"data.modulus must be a prime in [5, 997], got {modulus}")
        super().__init__(modulus=modulus, train_share=train_share, **kwargs)

    def operands(self) -> range:
        """The residues that are multiplied."""
        return range(1, self.modulus)

    def combine(self, a: int, b: int) -> int:
        """The result."""
        return a * b % self.modulus
