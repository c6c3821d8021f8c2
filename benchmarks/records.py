"""The results of a benchmark on disk, one JSON line for each that is finished: an interrupted command goes on."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any


class Records:
    """Finished results in one file.

    Args:
        file: ``.jsonl``; it need not be there.
    """

    def __init__(self, file: Path) -> None:
        self.file = file

    def read(self) -> list[dict[str, Any]]:
        """The results, oldest first; a line that was cut off by a kill is not one."""
        rows = []
        for line in self.file.read_text(encoding="utf-8").splitlines() if self.file.is_file() else ():
            try:
                rows.append(json.loads(line))
            except ValueError:
                continue
        return rows

    def append(self, row: Mapping[str, Any]) -> None:
        """Add one result, on a line of its own even after one that was cut off."""
        self.file.parent.mkdir(parents=True, exist_ok=True)
        torn = self.file.is_file() and self.file.read_bytes()[-1:] not in (b"", b"\n")
        with self.file.open("a", encoding="utf-8") as stream:
            stream.write(("\n" if torn else "") + json.dumps(row) + "\n")

    def find(self, key: Mapping[str, Any]) -> dict[str, Any] | None:
        """The newest result with these values; None where there is none."""
        found = [row for row in self.read() if key.items() <= row.items()]
        return found[-1] if found else None

    def once(self, key: Mapping[str, Any], compute: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """The result with these values: from disk, or else computed and kept.

        Args:
            key: what identifies it.
            compute: gives the rest of it.
        """
        row = self.find(key)
        if row is None:
            row = {**key, **compute()}
            self.append(row)
        return row
