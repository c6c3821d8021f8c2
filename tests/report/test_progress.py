"""One line of progress: what it says, that it fits, and that it is silent where nobody looks."""

from __future__ import annotations

import io
import sys
import time

import pytest

from sparselit.report.progress import Display, display


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_a_count_a_search_and_its_certificate_in_words() -> None:
    shown = Display("testing")
    assert shown.line() == "testing, 0 s"
    shown.counting(1200, 4800)
    assert shown.line() == "testing: 1,200 of 4,800, 0 s"
    search = Display("circuit at step 500")
    for edges in (900, 400):
        search.searching("group testing", edges)
    assert search.line() == "circuit at step 500: group testing, 2 tests, 400 edges left, 0 s"
    for _ in range(3):
        search.searching("certificate", 40)
    assert search.line() == "circuit at step 500: certificate, 3 of 40, 40 edges left, 0 s"
    for _ in range(2):
        shown.doing("random halves")
    assert shown.line() == "testing: random halves, 2 tests, 0 s"


@pytest.mark.parametrize("columns", [80, 40, 12])
def test_the_line_fits_the_terminal_and_shortens_the_title_first(columns: int) -> None:
    shown = Display("verifying /a/very/long/path/to/the/file/of/a/circuit/that/does/not/fit/step=2000.json")
    shown.counting(3, 9)
    line = shown.line(columns)
    assert len(line) <= columns
    assert line.endswith("3 of 9, 0 s")


def test_it_is_written_on_a_terminal_while_the_work_goes_on_and_wiped_at_the_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with display("rerun") as shown:
        shown.counting(2, 5)
        deadline = time.monotonic() + 10
        while "rerun: 2 of 5" not in terminal.getvalue() and time.monotonic() < deadline:
            time.sleep(0.01)
    assert "rerun: 2 of 5, 0 s" in terminal.getvalue()
    assert terminal.getvalue().endswith("\r\x1b[K")
    assert "\n" not in terminal.getvalue()


@pytest.mark.parametrize(("stream", "visible"), [(io.StringIO(), True), (Terminal(), False)])
def test_it_is_silent_without_a_terminal_and_where_it_is_not_wanted(
    monkeypatch: pytest.MonkeyPatch, stream: io.StringIO, visible: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", stream)
    with display("rerun", visible) as shown:
        shown.counting(1, 2)
        shown.searching("sweep", 3)
    assert stream.getvalue() == ""
