"""``sparselit runs``: what the runs below a folder have come to, from their ``result.json`` alone."""

from __future__ import annotations

import csv
import json
import re
import sys
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.report.facts import percent, shortened
from sparselit.runs.folder import RESULT, RUNS, shown
from sparselit.runs.result import Result

#: Columns of the table: heading, width, and whether it is aligned to the right.
_NAME, _WIDTHS = 26, {"seed": 5, "steps": 8, "accuracy": 10, "density": 10, "edges": 7}


def run(argv: list[str]) -> None:
    """Print one line for each run; a broken file costs one line on standard error."""
    parser = PlainParser(
        "runs",
        "List the runs below a folder: seed, steps, accuracy on held-out prompts, density of the sparsified tensors, "
        "edges of the last circuit (≤: it has no certificate), and why the run ended.",
    )
    parser.add_argument("folder", metavar="FOLDER", nargs="?", default=RUNS, help="default: runs")
    shape = parser.add_mutually_exclusive_group()
    shape.add_argument("--csv", action="store_true", help="comma-separated, with a header")
    shape.add_argument("--json", action="store_true", help="a list of objects")
    options = parser.parse_args(argv)
    folder = Path(options.folder)
    if not folder.is_dir():
        raise SparselitError(f"{folder} is no folder; give one with runs in it, such as {RUNS}")
    rows = []
    paths = sorted(folder.rglob(RESULT), key=_in_order)
    for path in paths:
        try:
            rows.append(row_of(Result.read(path), path.parent))
        except SparselitError as error:
            sys.stderr.write(f"{' '.join(str(error).split())}\n")
    if not paths:
        raise SparselitError(f"no {RESULT} below {folder}; `sparselit fit` leaves one in each run folder")
    if options.json:
        sys.stdout.write(json.dumps(rows, indent=1, ensure_ascii=False) + "\n")
    elif options.csv:
        writer = csv.DictWriter(sys.stdout, list(rows[0]) if rows else ["name"], lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        sys.stdout.write("".join(f"{line}\n" for line in table(rows)))


def row_of(result: Result, folder: Path) -> dict[str, Any]:
    """What is listed of a run; None where it is not known.

    Args:
        result: what the run has come to.
        folder: its folder.
    """
    density, circuits = result.density, result.circuits
    accuracy = result.accuracy("report")
    latest = circuits.latest if circuits else ()
    reached = None if density is None else density.total if density.reached is None else density.reached
    return {
        "name": result.name,
        "folder": shown(folder),
        "seed": result.seed,
        "steps": result.steps.done,
        "steps_asked": result.steps.asked,
        "accuracy": result.accuracy("val") if accuracy is None else accuracy,
        "density": reached,
        "density_target": None if density is None else density.target,
        "edges": circuits.edges if circuits else None,
        "certified": all(circuit.complete for circuit in latest) if latest else None,
        "ended": result.ended,
        "seconds": result.seconds.training,
        "problems": len(result.problems),
        "digest": result.digest,
    }


def table(rows: list[dict[str, Any]]) -> list[str]:
    """The rows for a terminal 80 columns wide; runs of one name are distinguished by their folders."""
    names = Counter(row["name"] for row in rows)
    lines = ["run".ljust(_NAME) + "".join(f"{name:>{width}}" for name, width in _WIDTHS.items()) + "  ended"]
    for row in rows:
        name = row["name"] if names[row["name"]] == 1 else row["folder"]
        cells = "".join(f"{text:>{width}}" for text, width in zip(_cells(row), _WIDTHS.values(), strict=True))
        lines.append(f"{shortened(name, _NAME):<{_NAME}}{cells}  {row['ended']}")
    return lines


def _cells(row: Mapping[str, Any]) -> list[str]:
    seed, accuracy, density, edges = (row[key] for key in ("seed", "accuracy", "density", "edges"))
    return [
        "-" if seed is None else str(seed),
        f"{row['steps']:,}",
        "-" if accuracy is None else percent(accuracy),
        "-" if density is None else f"{density:.4g}",
        "-" if edges is None else f"{'' if row['certified'] else '≤'}{edges:,.0f}",
    ]


def _in_order(path: Path) -> list[tuple[int, int, str]]:
    """Names as text, numbers in them as numbers: version_2 before version_10."""
    parts = re.split(r"(\d+)", path.as_posix())
    return [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in parts]
