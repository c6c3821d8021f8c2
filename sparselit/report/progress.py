"""How far a piece of work is: one line on standard error, where that is a terminal, wiped at the end."""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from sparselit.report.facts import shortened

_EVERY = 0.2  # seconds between two writes
_WIPE = "\r\x1b[K"


class Display:
    """What is known of a piece of work; its methods are handed to the work as callbacks.

    Args:
        title: what is being done.
        stage: which part of it.
        done: finished pieces.
        total: of how many; None where that is not known.
        left: edges that a search has still in its circuit, where it is one.
    """

    def __init__(
        self, title: str, stage: str = "", done: int = 0, total: int | None = None, left: int | None = None
    ) -> None:
        self.title = title
        self.stage = stage
        self.done = done
        self.total = total
        self.left = left
        self._began = time.monotonic()

    def counting(self, done: int, total: int) -> None:
        """So many pieces of so many are done.

        Args:
            done: pieces that are done.
            total: pieces in all.
        """
        self.done, self.total = done, total

    def doing(self, stage: str) -> None:
        """One more piece of a stage, of which nobody knows how many it has.

        Args:
            stage: the part of the work.
        """
        if stage != self.stage:
            self.stage, self.done, self.total = stage, 0, None
        self.done += 1

    def doing_now(self, stage: str) -> None:
        """What is being done, without a count of its own.

        Args:
            stage: the part of the work.
        """
        self.stage = stage

    def searching(self, stage: str, edges: int) -> None:
        """One more test of a search; the certificate is the one stage of known length.

        Args:
            stage: of the search.
            edges: that are left.
        """
        if stage != self.stage:
            self.stage, self.done = stage, 0
            self.total = edges if stage == "certificate" else None
        self.done, self.left = self.done + 1, edges

    def line(self, columns: int = 80) -> str:
        """``title: stage, 3 of 20, 120 edges left, 4 s``, at most so many columns wide."""
        end = f", {time.monotonic() - self._began:.0f} s"
        parts = [self.stage] if self.stage else []
        if self.total is not None:
            parts.append(f"{self.done:,} of {self.total:,}")
        elif self.done:
            parts.append(f"{self.done:,} tests")
        if self.left is not None:
            parts.append(f"{self.left:,} edges left")
        end = (f": {', '.join(parts)}" if parts else "") + end
        return shortened(shortened(self.title, max(1, columns - len(end)), "begin") + end, columns)


@contextmanager
def display(title: str, visible: bool = True) -> Iterator[Display]:
    """Show a title, the stage, what is done of how much and the seconds while a block runs.

    Args:
        title: what is being done.
        visible: false to show nothing; nothing is shown either where standard error is no terminal.
    """
    shown = Display(title)
    if not visible or not sys.stderr.isatty():
        yield shown
        return
    file, ended = sys.stderr, threading.Event()
    thread = threading.Thread(target=_write, args=(shown, file, ended), daemon=True)
    thread.start()
    try:
        yield shown
    finally:
        ended.set()
        thread.join()
        file.write(_WIPE)
        file.flush()


def _write(shown: Display, file: TextIO, ended: threading.Event) -> None:
    while not ended.is_set():
        file.write(_WIPE + shown.line(shutil.get_terminal_size().columns - 1))
        file.flush()
        ended.wait(_EVERY)
