"""The seconds of a search, in a file beside its circuit: a circuit holds nothing that differs between two runs."""

from __future__ import annotations

import json
from pathlib import Path

from sparselit.runs.atomic import write_text
from sparselit.runs.plain_file import read_json


def write_timing(path: Path, seconds: float) -> None:
    """Write the time of a search beside its circuit, which holds nothing that differs between two runs.

    Args:
        path: the circuit's file.
        seconds: wall time of the search.
    """
    text = json.dumps({"seconds": round(seconds, 3)}) + "\n"
    write_text(path.with_suffix(".timing.json"), text)


def read_timing(path: Path) -> float | None:
    """Seconds that :func:`write_timing` wrote beside a circuit; None where it did not."""
    try:
        return float(read_json(path.with_suffix(".timing.json"))["seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None
