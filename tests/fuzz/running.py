"""One command inside the test process, with a limit of time, and what is a bad answer."""

from __future__ import annotations

import contextlib
import io
import signal
import traceback
import warnings
from collections.abc import Iterator, Sequence
from typing import Any

from sparselit.cli import main

#: Seconds of the processor that a command may take which is refused, or which trains two steps.
LIMIT = 10.0
#: Seconds of the clock for each of the processor's, which others use as well; a command that only waits ends here.
_PATIENCE = 10
#: Lines of an answer.
_LINES = 2


class Hang(BaseException):
    """Raised into a command that is still at work; no ``except Exception`` catches it."""


@contextlib.contextmanager
def limited(seconds: float) -> Iterator[None]:
    """Raise :class:`Hang` after so many seconds of the processor."""

    def ring(signum: int, frame: Any) -> None:
        raise Hang

    timers = (
        (signal.SIGALRM, signal.ITIMER_REAL, seconds * _PATIENCE),
        (signal.SIGPROF, signal.ITIMER_PROF, seconds),
    )
    before = [signal.signal(which, ring) for which, _, _ in timers]
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        for (which, timer, _), old in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(which, old)


def complaint(argv: Sequence[str], seconds: float = LIMIT) -> str | None:
    """What is wrong with the answer to a command line; None where it was done, or refused in one or two lines."""
    out, err = io.StringIO(), io.StringIO()
    code: Any = 0
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            warnings.simplefilter("ignore")
            with limited(seconds):
                main(list(argv))
    except SystemExit as stop:
        code = stop.code or 0
    except Hang:
        return f"hang: more than {seconds:g} s"
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in where[-1:-4:-1])
        return f"traceback: {type(error).__name__}: {str(error)[:200]} ({places})"
    if code == 2:
        answer = err.getvalue().partition("error: ")[2]
        if not answer:
            return f"no answer: exit code 2 and {err.getvalue()[-200:]!r}"
        if len(answer.strip().splitlines()) > _LINES or len(answer) > 1000:
            return f"long answer: {answer[:300]!r}"
    elif code not in (0, 1, 3):
        return f"exit code {code}"
    return None
