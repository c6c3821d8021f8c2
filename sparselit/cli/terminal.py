"""What reaches the terminal: text only. No string of a file can move the cursor, set a title or forge a line."""

from __future__ import annotations

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from sparselit.report.facts import visible


class Visible:
    """A text file that shows control characters instead of sending them.

    Args:
        file: a text file, such as ``sys.stdout``; everything but ``write`` is its own.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(self, text: str) -> int:
        """Write a text, with whatever is not text in it spelled out."""
        self._file.write(visible(text))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


def say(text: str) -> None:
    """Write a line to standard error, above the progress bars."""
    from tqdm import tqdm

    tqdm.write(visible(text), file=sys.stderr)


@contextmanager
def raw_output() -> Iterator[None]:
    """Lift :func:`text_only` inside a ``with`` block, where Lightning's own bars draw on standard output."""
    before = sys.stdout
    sys.stdout = before._file if isinstance(before, Visible) else before
    try:
        yield
    finally:
        sys.stdout = before


@contextmanager
def text_only() -> Iterator[None]:
    """Make standard output a :class:`Visible` one inside a ``with`` block.

    A character that the terminal's encoding lacks is shown as an escape too, on standard error too.
    """
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed by whoever started the program
            setattr(sys, name, io.StringIO())
    for file in (sys.stdout, sys.stderr):
        if hasattr(file, "reconfigure"):
            file.reconfigure(errors="backslashreplace")
    before = sys.stdout
    sys.stdout = Visible(before)
    try:
        yield
    finally:
        sys.stdout = before
