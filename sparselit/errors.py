"""The error class whose message is meant for the person at the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches


class SparselitError(Exception):
    """A mistake that the user can mend; the command line prints its message in one or two lines and exits with code 2.

    The message says what is wrong, where, and what would be right.
    """


def suggestion(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'fit'?``, or nothing where no known word is close.

    Args:
        word: what was typed.
        known: the words that are right.
    """
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""
