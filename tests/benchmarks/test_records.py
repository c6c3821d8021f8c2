"""What is finished is kept, and only that."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.records import Records


def test_a_result_is_computed_once_and_a_torn_line_costs_only_itself(tmp_path: Path) -> None:
    records, asked = Records(tmp_path / "made" / "some.jsonl"), []

    def compute() -> dict[str, float]:
        asked.append(1)
        return {"edges": 7.0, "of": [1, 2]}

    assert records.read() == []
    assert records.find({"seed": 0}) is None
    assert records.once({"seed": 0}, compute) == records.once({"seed": 0}, compute)
    with records.file.open("a") as file:
        file.write('{"seed": 1, "ed')  # killed while writing
    assert records.once({"seed": 1}, compute)["edges"] == 7.0
    assert asked == [1, 1]
    assert records.read() == [{"seed": seed, "edges": 7.0, "of": [1, 2]} for seed in (0, 1)]


def test_the_newest_result_counts_and_one_that_fails_is_not_kept(tmp_path: Path) -> None:
    records = Records(tmp_path / "some.jsonl")
    for edges in (3, 2):
        records.append({"seed": 0, "edges": edges})
    assert records.find({"seed": 0}) == {"seed": 0, "edges": 2}

    def fail() -> dict[str, float]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        records.once({"seed": 1}, fail)
    assert len(records.read()) == 2
