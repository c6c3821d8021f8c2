"""What the commands say of a circuit: after a run, and after ``sparselit discover``."""

from __future__ import annotations

import shlex
from pathlib import Path

from sparselit.cli.command_parser import listing
from sparselit.cli.experiment.discovering import Discovered
from sparselit.report.summary import circuit_facts
from sparselit.runs.folder import shown
from sparselit.training.circuit_metrics import combined, figures, overlap
from sparselit.training.discovery import Discovery


def found_lines(discovery: Discovery, seconds: float) -> list[tuple[str, str]]:
    """The circuit of a run and what it cost, as (name, text).

    Args:
        discovery: the callback, after the run.
        seconds: wall time of the run, searches included.
    """
    latest, lines = discovery.latest, []
    for task, (circuit, path) in latest.items():
        lines += [("task", task)] if task else []
        lines += [*circuit_facts(circuit), ("file", shown(path))]
    if len(latest) > 1:
        circuits = [circuit for circuit, _ in latest.values()]
        mean = combined({task: figures(circuit) for task, (circuit, _) in latest.items()})["edges"]
        lines.append(("all", f"{mean:.1f} edges, geometric mean of {len(circuits)} circuits"))
        lines.append(("overlap", f"{100 * overlap(circuits):.1f} % of the edges of two circuits, mean of all pairs"))
    if discovery.reason:
        note = "none found by the last search" if latest else "none found"
        lines.append(("circuit", f"{note}: {discovery.reason}"))
    if discovery.searches:
        share = f", {100 * discovery.seconds / seconds:.0f} % of the run's time" if seconds > 0 else ""
        plural = "es" if discovery.searches > 1 else ""
        lines.append(("discovery", f"{discovery.seconds:.1f} s in {discovery.searches} search{plural}{share}"))
    return lines


def discovered_text(found: Discovered) -> str:
    """What ``sparselit discover`` prints."""
    note = ", as it was before" if found.known else ""
    rows = [
        *([("task", found.task)] if found.task else []),
        *circuit_facts(found.circuit),
        ("discovery", f"{found.seconds:.1f} s"),
        ("file", f"{shown(found.path)}{note}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}\n" for name, text in rows]
    return "".join(lines) + "\n" + listing([("check it:", verify_command(found.path)), ("see it:", _show(found.path))])


def verify_command(path: Path) -> str:
    """The command that recomputes every claim of a circuit."""
    return f"sparselit verify {shlex.quote(shown(path))}"


def _show(path: Path) -> str:
    return f"sparselit show {shlex.quote(shown(path))}"
