"""Facts in words: shares, intervals, sizes, and texts that are too long."""

from __future__ import annotations

import pytest

from sparselit.report.facts import counted, hanging, interval_text, listed, percent, shortened, size_text


def test_numbers_in_words() -> None:
    assert percent(0.97531) == "97.53 %"
    assert percent(0.5, 1) == "50.0 %"
    assert interval_text([0.97, 0.98125]) == "97.00 - 98.12 %"
    assert size_text(1234, 56, 7) == "1,234 edges, 56 nodes, 7 free"
    assert [counted(n, "search", "searches") for n in (0, 1, 1000)] == ["0 searches", "1 search", "1,000 searches"]
    assert [listed(words) for words in ([], ["a"], ["a", "b"], ["a", "b", "c"])] == ["", "a", "a and b", "a, b and c"]


@pytest.mark.parametrize("keep", ["begin", "end"])
@pytest.mark.parametrize("width", [1, 2, 5, 6, 7])
def test_a_text_is_cut_to_its_width_and_keeps_one_end(width: int, keep: str) -> None:
    text = shortened("abcdef", width, keep)  # type: ignore[arg-type]
    assert len(text) == min(width, 6)
    kept = text.replace("…", "")
    assert ("abcdef".startswith if keep == "begin" else "abcdef".endswith)(kept)
    assert ("…" in text) == (width < 6)


def test_further_lines_stand_below_the_first() -> None:
    lines = hanging("name  ", "one two three four", width=14)
    assert lines == ["name  one two", "      three", "      four"]
    assert hanging("name  ", "") == ["name"]
    path = "/a/path/that/is/longer/than/the/line"
    assert hanging("", path, width=10, whole_words=True) == [path]
    assert all(len(line) <= 10 for line in hanging("", path, width=10))
