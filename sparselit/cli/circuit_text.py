"""What the commands say of a circuit: after a run, and after ``sparselit discover``."""

from __future__ import annotations

import shlex
from pathlib import Path

from sparselit.cli.discovering import Discovered
from sparselit.cli.plain import listing
from sparselit.discovery import Discovery
from sparselit.report.summary import circuit_facts
from sparselit.run_folder import shown


def found_lines(discovery: Discovery, seconds: float) -> list[tuple[str, str]]:
    """The circuit of a run and what it cost, as (name, text).

    Args:
        discovery: the callback, after the run.
        seconds: wall time of the run, searches included.
    """
    latest, lines = discovery.latest, []
    if latest is not None:
        lines = [*circuit_facts(latest[0]), ("file", shown(latest[1]))]
    if discovery.reason:
        note = "none found" if latest is None else "none found by the last search"
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
