"""Reversing a string."""

from __future__ import annotations

from .copying import Copying


class Reversing(Copying):
    """The next letter of the string read backwards: ``cabbd|db`` → ``b``, and with ``cbabd|db`` → ``a``.

    As ``Copying`` in all else.

    Args:
        length: letters in the longest original that is trained on, at least 3; the shortest has 3.
        letters: size of the alphabet, in [2, 26].
        kwargs: arguments of every task.
    """

    def copy(self, text: str) -> str:
        """What is written after the bar; twice reversed is the original."""
        return text[::-1]
