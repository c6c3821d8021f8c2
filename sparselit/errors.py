"""The error whose message is meant for the person at the terminal, and the checks of arguments that raise it.

An argument is a finite number in a range; what is not is refused in one line that names argument and value.
"""

from __future__ import annotations

import errno
import math
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

#: Largest seed that torch, numpy and Lightning all take.
LARGEST_SEED = 2**32 - 1
#: Limit of numbers of steps, prompts and entries that have no other: a run that long has no end.
LARGEST_COUNT = 10**9
#: Limit of the length of a made-up prompt, tokens.
LONGEST = 1000
#: Limit of the steps of one search.
MOST_STEPS = 10**6
#: Limit of learning rates, penalties and the like; what is larger overflows in the first steps.
LARGEST_RATE = 1000.0

#: Words that people write for a key of ours whose letters are others.
_SYNONYMS = {"stop": "end", "finish": "end", "until": "end", "target": "to", "final": "to", "first": "begin"}

#: What a disk answers that is full, read-only, broken or another's.
_DISK_FAULTS = {
    getattr(errno, name)
    for name in ("ENOSPC", "EDQUOT", "EFBIG", "EROFS", "EIO", "EACCES", "EPERM", "ENOTDIR", "EISDIR", "ENAMETOOLONG")
    if hasattr(errno, name)
}


class SparselitError(Exception):
    """A mistake that the user can mend; the command line prints its message in one or two lines and exits with code 2.

    The message says what is wrong, where, and what would be right.
    """


def disk_fault(error: BaseException) -> str | None:
    """What a disk has refused, as ``FILE: No space left on device``; None where the error is another.

    Args:
        error: what was raised.
    """
    if isinstance(error, FileNotFoundError) and str(error.strerror).startswith("No usable temporary"):
        return f"the disk is full, or read-only: {error.strerror}"
    if not isinstance(error, OSError) or error.errno not in _DISK_FAULTS:
        return None
    return f"{error.filename or 'a file of this run'}: {error.strerror}"


def suggestion(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'fit'?``, or nothing where no known word is close.

    Args:
        word: what was typed.
        known: the words that are right.
    """
    if other := _SYNONYMS.get(word.lower()):
        word = other if other in known else word
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def check_range(
    key: str,
    value: object,
    low: float,
    high: float = math.inf,
    *,
    above: bool = False,
    below: bool = False,
    most: float = math.inf,
) -> None:
    """Refuse what is not a finite number in a range.

    Args:
        key: name of the value in the message.
        value: what should be a number.
        low: smallest value allowed.
        high: largest value allowed.
        above: ``low`` itself is refused.
        below: ``high`` itself is refused.
        most: a limit of what a machine can do, where the value has no natural ``high``; named only when it is passed.

    Raises:
        SparselitError: it is no number, not finite, or out of range; the message names key and value.
    """
    wanted = _range(low, high, above, below)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise SparselitError(f"{key} must {wanted}, got {_shown(value)}")
    if high == math.inf and (value != value or value == math.inf):
        raise SparselitError(f"{key} must be a finite number, got {value}")
    if value != value or value < low or value > high or (above and value == low) or (below and value == high):
        raise SparselitError(f"{key} must {wanted}, got {_shown(value)}")
    if value > most:
        raise SparselitError(f"{key} must be at most {_short(most)}, got {_shown(value)}")


def check_whole(key: str, value: object, low: int, high: float = math.inf, *, most: float = LARGEST_COUNT) -> None:
    """Refuse what is not a whole number in a range; see :func:`check_range`.

    Args:
        key: name of the value in the message.
        value: what should be a whole number.
        low: smallest value allowed.
        high: largest value allowed.
        most: a limit of what a machine can do, named only when it is passed.

    Raises:
        SparselitError: it is no whole number or out of range.
    """
    if isinstance(value, float):
        raise SparselitError(f"{key} must be a whole number, got {_shown(value)}")
    check_range(key, value, low, high, most=most)


def check_seed(key: str, value: object) -> None:
    """Refuse what is no seed: a whole number that torch, numpy and Lightning all take.

    Args:
        key: name of the value in the message.
        value: what should be a seed.

    Raises:
        SparselitError: it is none.
    """
    check_whole(key, value, 0, most=LARGEST_SEED)


def check_moment(key: str, value: object) -> None:
    """Refuse what is no moment of a run: a fraction of it up to 1, or a number of optimizer steps.

    Args:
        key: name of the value in the message.
        value: what should be a moment.

    Raises:
        SparselitError: it is none.
    """
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < math.inf:
        raise SparselitError(f"{key} must be a fraction in [0, 1] or a number of steps, got {_shown(value)}")
    if value > LARGEST_COUNT:
        raise SparselitError(f"{key} must be at most {LARGEST_COUNT} steps, got {_shown(value)}")


def check_choice(key: str, value: object, choices: Iterable[str]) -> None:
    """Refuse what is none of these texts.

    Args:
        key: name of the value in the message.
        value: what should be one of the choices.
        choices: the texts allowed.

    Raises:
        SparselitError: it is none of them; the message names them all.
    """
    choices = list(choices)
    if not isinstance(value, str) or value not in choices:
        raise SparselitError(f"{key} must be one of {', '.join(choices)}, got {_shown(value)}")


def _range(low: float, high: float, above: bool, below: bool) -> str:
    """What a number must do, as in ``lie in (0, 1]``."""
    if low == -math.inf:
        return "be a number"
    if high == math.inf:
        return f"be above {low:g}" if above else f"be at least {low:g}"
    return f"lie in {'(' if above else '['}{_short(low)}, {_short(high)}{')' if below else ']'}"


def _short(limit: float) -> str:
    return str(int(limit)) if float(limit).is_integer() else f"{limit:g}"


def _shown(value: object) -> str:
    text = "null" if value is None else repr(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
