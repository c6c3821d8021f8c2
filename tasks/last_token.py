"""The last token."""

from __future__ import annotations

from .first_token import FirstToken


class LastToken(FirstToken):
    """The letter that a string ends with: ``bcaab=`` → ``b``, and corrupted ``bcbaa=`` → ``a``.

    As ``FirstToken`` in all else.

    Args:
        length: letters in the longest string that is trained on, at least 3; the shortest has 3.
        letters: size of the alphabet, in [2, 26].
        kwargs: arguments of every task.
    """

    place = -1
