"""How far a command is, on standard error where that is a terminal."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def counting(text: str) -> Iterator[Callable[[int, int], None]]:
    """Show a text with (done, of how many) and the seconds on one line that is wiped at the end.

    Args:
        text: what is being done.
    """
    stream, start = sys.stderr, time.monotonic()
    if not stream.isatty():
        yield lambda done, total: None
        return
    shown = 0.0

    def show(done: int, total: int) -> None:
        nonlocal shown
        now = time.monotonic()
        if now - shown > 0.1:
            shown = now
            stream.write(f"\r\x1b[K{text}: {done:,} of {total:,}, {now - start:.0f} s")
            stream.flush()

    try:
        stream.write(f"{text} …")
        stream.flush()
        yield show
    finally:
        stream.write("\r\x1b[K")
        stream.flush()
