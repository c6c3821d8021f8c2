"""Reversing a string."""

from __future__ import annotations

from .copying import Copying


class Reversing(Copying):
    """The next letter of the string read backwards: ``cabbd|db`` → ``b``, and with ``cbabd|db`` → ``a``.

    As ``Copying`` in all else.
    """

    def copy(self, text: str) -> str:
        """What is written after the bar; twice reversed is the original."""
        return text[::-1]
