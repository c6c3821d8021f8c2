"""One command inside the test process, with a limit of time, and what is a bad answer."""

from __future__ import annotations

import contextlib
import io
import resource
import signal
import traceback
import unicodedata
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from sparselit.cli import main

#: Seconds of the processor that a command may take which is refused, or which trains two steps.
LIMIT = 10.0
#: Seconds of the clock for each of the processor's, which others use as well; a command that only waits ends here.
_PATIENCE = 10
#: Lines of an answer.
_LINES = 2
#: Bytes that a command may take beside what the process has already.
_MEMORY = 2**32


def _mapped() -> int:
    """Bytes of address space that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()


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
    memory = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (_mapped() + _MEMORY, memory[1]))
    for _, timer, limit in timers:
        signal.setitimer(timer, limit)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, memory)
        for (which, timer, _), old in zip(timers, before, strict=True):
            signal.setitimer(timer, 0)
            signal.signal(which, old)


class Answer(NamedTuple):
    """How a command has ended: its exit code, and what is wrong with that; None for nothing."""

    code: int | None
    wrong: str | None


def complaint(argv: Sequence[str], seconds: float = LIMIT) -> str | None:
    """What is wrong with the answer to a command line; None where it was done, or refused in one or two lines."""
    return answer(argv, seconds).wrong


def answer(argv: Sequence[str], seconds: float = LIMIT) -> Answer:
    """Run a command line, and judge its answer: it was done, or refused in one or two lines."""
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
        return Answer(None, f"hang: more than {seconds:g} s")
    except BaseException as error:
        where = traceback.extract_tb(error.__traceback__)
        places = " < ".join(f"{frame.filename.rpartition('/')[2]}:{frame.lineno}" for frame in where[-1:-4:-1])
        return Answer(None, f"traceback: {type(error).__name__}: {str(error)[:200]} ({places})")
    return Answer(code, _wrong(code, err.getvalue(), out.getvalue()))


def _wrong(code: Any, err: str, out: str) -> str | None:
    if hidden := {
        c for c in out + err if c not in "\n\r\t" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    }:
        return f"control characters: {hidden}"
    if code == 2:
        text = err.partition("error: ")[2]
        if not text:
            return f"no answer: exit code 2 and {err[-200:]!r}"
        if len(text.strip().splitlines()) > _LINES or len(text) > 1000:
            return f"long answer: {text[:300]!r}"
        if "out of memory" in text:
            return f"out of memory: {text[:300]!r}"
    elif code not in (0, 1, 3, 4):
        return f"exit code {code}"
    return None
