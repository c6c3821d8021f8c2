"""``sparselit union``: what several circuits of one model explain together, and what they leave dark."""

from __future__ import annotations

import json
import sys
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.report.facts import percent, shortened


def run(argv: list[str]) -> None:
    """Print the union's size and, of each circuit's task, the unexplained shares of the circuit alone and of all."""
    parser = PlainParser(
        "union",
        "What the known circuits of one model explain together: the size of their union and, for the task of each, "
        "the share of the loss, of the divergence and of the final residual stream's variance that the circuit alone, "
        "and the union, leave unexplained (0 nothing, 1 as much as an empty circuit; a union can do worse than 1).",
    )
    parser.add_argument("circuits", metavar="CIRCUIT", nargs="+", help="files such as circuits/TASK/step=1500.json")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)

    from sparselit.circuits.evidence.dark_matter import of_union
    from sparselit.circuits.evidence.faithfulness import EXAMPLES
    from sparselit.circuits.loaded import load

    circuits = {path: load(path) for path in options.circuits}
    first = circuits[options.circuits[0]]
    for path, circuit in circuits.items():
        if circuit.circuit.model.hash != first.circuit.model.hash:
            raise SparselitError(f"{path} belongs to other weights than {options.circuits[0]}; a union needs one model")
    report = slice(0, EXAMPLES)
    found = of_union({p: c.on(c.behaviour.splits["report"].select(report)) for p, c in circuits.items()})
    text = json.dumps(found, indent=1, ensure_ascii=False) if options.json else "\n".join(lines(found))
    sys.stdout.write(text + "\n")


def lines(found: dict[str, dict[str, Any]]) -> list[str]:
    """The table for a person, 80 columns wide."""
    whole = found[""]
    n = next(row["alone"]["n"] for name, row in found.items() if name)
    rows = [
        f"union         {whole['edges']:,} of {whole['of']:,} edges",
        "",
        f"{f'unexplained, report split, n {n:,}':<44}{'loss':>12}{'kl':>12}{'residual':>12}",
    ]
    for name, row in found.items():
        if not name:
            continue
        rows.append(shortened(name, 80))
        for label, part in ((f"alone ({row['edges']:,} edges)", row["alone"]), ("together", row["together"])):
            last = list(part["residual"].values())[-1]
            shares = (part["task_loss"], part["kl"], last)
            rows.append(f"  {label:<42}" + "".join(f"{_percent(share):>12}" for share in shares))
    return rows


def _percent(share: float | None) -> str:
    return "-" if share is None else percent(share, 1)
