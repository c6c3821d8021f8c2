"""The last token."""

from __future__ import annotations

from .first_token import FirstToken


class LastToken(FirstToken):
    """The letter that a string ends with: ``bcaab=`` → ``b``, and corrupted ``bcbaa=`` → ``a``.

    As ``FirstToken`` in all else.
    """

    index = -1
