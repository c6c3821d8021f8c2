"""What reaches the terminal: text only. No string of a file can move the cursor, set a title or forge a line."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparselit.report.facts import visible


class Visible:
    """A stream that shows control characters instead of sending them.

    Args:
        stream: a text stream, such as ``sys.stdout``; everything but ``write`` is its own.
    """

    def __init__(self, stream: Any) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text, with whatever is not text in it spelled out."""
        self._stream.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextmanager
def text_only() -> Iterator[None]:
    """Make standard output a :class:`Visible` stream inside a ``with`` block.

    A character that the terminal's encoding lacks is shown as an escape too, on both streams.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, io.StringIO())
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")
    before = sys.stdout
    sys.stdout = Visible(before)
    try:
        yield
    finally:
        sys.stdout = before
