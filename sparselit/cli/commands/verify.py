"""``sparselit verify``: whether every claim of a circuit is true, recomputed from its files alone."""

from __future__ import annotations

import json
import sys
import textwrap
from contextlib import suppress
from pathlib import Path
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.report.facts import counted, hanging, percent, size_text, unit_of
from sparselit.report.progress import display
from sparselit.runs.plain_file import read_json


def run(argv: list[str]) -> None:
    """Print the verdict; exit with 1 where a claim is false or the circuit is not minimal."""
    parser = PlainParser("verify", "Recompute every claim of a circuit from its files, by the slowest, simplest path.")
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json, or an audit's")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)
    if _is_audit(Path(options.circuit)):
        from sparselit.cli.commands.audit import check_audit

        check_audit(Path(options.circuit))
        return

    from sparselit.circuits.verify import verify

    with display(f"verifying {options.circuit}") as shown:
        verdict = verify(Path(options.circuit), shown.counting, shown.doing)
    text = json.dumps(verdict, indent=1, ensure_ascii=False) if options.json else "\n".join(verdict_lines(verdict))
    sys.stdout.write(text + "\n")
    if not (verdict["holds"] and verdict["minimal"]):
        sys.stdout.flush()
        sys.exit(1)


def _is_audit(path: Path) -> bool:
    """Whether a file says that it is an audit; what cannot be read is refused later, as a circuit."""
    with suppress(OSError, ValueError):
        content = read_json(path)
        return isinstance(content, dict) and content.get("format") == "sparselit-audit"
    return False


def verdict_lines(verdict: dict[str, Any]) -> list[str]:
    """The verdict of :func:`sparselit.circuits.verify.verify` for a person, one fact in a line."""
    from sparselit.circuits.circuit import FOR_THE_RECORD  # torch is slow to import
    from sparselit.circuits.run.ablation import as_ablation

    false = verdict["false_claims"]
    if verdict["holds"]:
        holds = "yes, the criterion is met on the report split; every claim is true"
    elif not false:
        holds = "NO, it did not generalise: a stated bound fails on the report split"
    else:
        holds = f"NO, {counted(len(false), 'false claim')}"
    unit = unit_of(verdict["granularity"])
    without = f"without any one {unit}" if verdict["minimal"] else f"not without every {unit}"
    minimal = f"{'yes' if verdict['minimal'] else 'NO'}, {without} the certificate's criterion fails"
    if not verdict["complete"]:
        minimal = "unknown, the circuit has no certificate"
    elif not verdict["units"]:
        minimal = f"yes, no {unit} can go: there is no {unit} in it"
    edited = {
        "broken": "BROKEN, the record was edited",
        "none": f"none, as in all files of version {verdict['version']}",
    }
    digits = "at the digits that are written, this is the machine it was found on"
    if not verdict["same_machine"]:
        digits = "up to a tolerance for each figure, it was found elsewhere"
    lines = [
        f"holds        {holds}",
        *(f"  false      {name}" for name in false),
        f"minimal      {minimal}",
        f"seal         {edited.get(verdict['seal'], 'intact, the record is as it was written')}",
        f"compared     {digits}",
        *hanging("unchecked    ", f"for the record only: {', '.join(FOR_THE_RECORD)}", 80),
        f"size         {size_text(verdict['edges'], verdict['nodes'], verdict['free'])}",
        f"ablation     {as_ablation(verdict['ablation'])}",
        f"report       accuracy {percent(verdict['accuracy'])}, task loss {verdict['task_loss']:.4f}, "
        f"n {verdict['n']:,}",
        f"necessity    task loss {verdict['necessity_loss']:.4f} with exactly these edges ablated",
        f"             {verdict['still_necessary_on_report']}/{verdict['edges']} edges still necessary on the "
        "report split",
        f"min margin   {verdict['min_margin']:.4g}, by which the criterion fails at the least without one edge",
        f"unexplained  {percent(verdict['unexplained'], 1)} of the loss",
        textwrap.fill(f"flags        {', '.join(verdict['flags']) or 'none'}", 80, subsequent_indent=" " * 13),
    ]
    return lines
