"""What ``sparselit discover`` says of a circuit."""

from __future__ import annotations

import shlex
from pathlib import Path

from sparselit.cli.command_parser import listing
from sparselit.cli.experiment.discover_command import Discovered
from sparselit.report.summary import circuit_facts, verify_command
from sparselit.runs.folder import shown
from sparselit.training.run_result import found_circuit


def discovered_text(found: Discovered) -> str:
    """What ``sparselit discover`` prints."""
    note = ", as it was before" if found.known else ""
    rows = [
        *([("task", found.task)] if found.task else []),
        *circuit_facts(found_circuit(found.circuit, shown(found.path), found.task)),
        ("discovery", f"{found.seconds:.1f} s"),
        ("file", f"{shown(found.path)}{note}"),
    ]
    width = max(len(name) for name, _ in rows)
    lines = [f"{name:<{width}}  {text}\n" for name, text in rows]
    return "".join(lines) + "\n" + listing([("check it:", verify_command(found.path)), ("see it:", _show(found.path))])


def _show(path: Path) -> str:
    return f"sparselit show {shlex.quote(shown(path))}"
