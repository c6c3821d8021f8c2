"""``sparselit audit``: account for single decisions of a model, from its circuits."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError, check_whole
from sparselit.report.facts import counted, hanging, interval_text, percent
from sparselit.report.progress import display
from sparselit.runs.atomic import write_text
from sparselit.runs.plain_file import parse_json, read_text

if TYPE_CHECKING:
    from sparselit.circuits.circuit import Circuit
    from sparselit.circuits.loaded import Loaded
    from sparselit.circuits.use.audit import Audit

_MOST = 1000


def run(argv: list[str]) -> None:
    """Write the audit as JSON, Markdown and HTML, and print its verdicts."""
    parser = PlainParser(
        "audit",
        "Account for a model's answer to a prompt: which edges carried it, what would have flipped it, how typical the "
        "prompt is, and whether the circuits explain it. Writes JSON, Markdown and HTML.",
    )
    parser.add_argument(
        "circuits", nargs="*", metavar="CIRCUIT", help="files such as circuits/step=2000.json, of one model"
    )
    parser.add_argument(
        "--prompt",
        action="append",
        default=[],
        metavar="TEXT|FILE",
        help="a prompt, or a file of them: .txt one a line, .jsonl with a key prompt; may be repeated. Default: "
        "some of the report split and some out of distribution",
    )
    parser.add_argument("--n", type=int, default=10, metavar="N", help="prompts of each split by default; default 10")
    parser.add_argument("-o", "--output", metavar="FILE", help="the JSON's file; default: beside the first circuit")
    parser.add_argument("--check", metavar="FILE", help="recompute an audit instead; exit code 1 where it differs")
    parser.add_argument("--schema", action="store_true", help="print the JSON Schema of an audit's file")
    options = parser.parse_args(argv)
    if options.schema:
        from sparselit.circuits.use.audit import schema

        sys.stdout.write(json.dumps(schema(), indent=1) + "\n")
        return
    if options.check:
        check_audit(Path(options.check))
        return
    if not options.circuits:
        raise SparselitError("name one or more circuits, or --check FILE; see `sparselit audit --help`")
    check_whole("--n", options.n, 1, _MOST)

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.audit import Auditor
    from sparselit.cli.oracle import oracle

    circuits = [load(path) for path in options.circuits]
    first = circuits[0].path
    output = Path(options.output) if options.output else first.with_name(f"{first.stem}.audit.json")
    if output.suffix != ".json":
        raise SparselitError(f"--output {output} must end in .json; .md and .html are written beside it")
    prompts = [text for given in options.prompt for text in _prompts(given)] or _from_splits(circuits, options.n)
    if len(prompts) > _MOST:
        raise SparselitError(f"an audit takes at most {_MOST} prompts, got {len(prompts):,}")
    auditor = Auditor(circuits, [oracle(circuit) for circuit in circuits])
    with display("auditing") as shown:
        audit = auditor.audit(prompts, output.parent, shown.counting)
    write_audit(output, audit, [circuit.circuit for circuit in circuits])
    sys.stdout.write("\n".join([*lines(audit), "", f"file  {output}, with .md and .html beside it"]) + "\n")


def write_audit(output: Path, audit: Audit, circuits: Sequence[Circuit]) -> None:
    """Write an audit as JSON, and beside it as Markdown and HTML.

    Args:
        output: the JSON's file.
        audit: what was found.
        circuits: the records of its circuits.
    """
    from sparselit.report.audit import decision_blocks, model_blocks
    from sparselit.report.document import html_page, markdown

    single = len(audit.decisions) == 1
    blocks = decision_blocks(audit, audit.decisions[0], circuits) if single else model_blocks(audit, circuits)
    write_text(output, json.dumps(audit.as_json(), indent=1, ensure_ascii=False) + "\n")
    write_text(output.with_suffix(".md"), markdown(blocks))
    write_text(output.with_suffix(".html"), html_page(blocks))


def check_audit(path: Path) -> None:
    """Recompute an audit and print whether it is true; exit with 1 where it is not."""
    from sparselit.circuits.use.audit.audit import check
    from sparselit.cli.oracle import oracle

    audit, false = check(path, oracle)
    text = "yes, every number is recomputed" if not false else f"NO, {counted(len(false), 'false claim')}"
    sys.stdout.write("\n".join([f"holds  {text}", *(f"  false  {name}" for name in false[:20]), *lines(audit)]) + "\n")
    if false:
        sys.stdout.flush()
        sys.exit(1)


def lines(audit: Audit) -> list[str]:
    """The verdicts for a terminal: of a single decision with its conditions, of several their shares."""
    found = []
    for decision in audit.decisions[:20]:
        best = decision.accounts[0]
        failed = [condition.name for condition in best.conditions if not condition.holds]
        right = "" if decision.right is None else ", right" if decision.right == decision.answer else ", WRONG"
        why = f"; fails: {', '.join(failed)}" if failed else ""
        text = f"{decision.verdict} by {audit.circuits[best.circuit].task}: answers {decision.answer!r}{right}{why}"
        found += [*hanging("", repr(decision.prompt)), *hanging("  ", text)]
    if len(audit.decisions) > 1:
        found.append("")
        for verdict, (count, ends) in audit.shares().items():
            share = percent(count / len(audit.decisions), 1)
            found.append(f"{verdict:<18}{count:>5}  {share:>8}  95 % interval {interval_text(ends)}")
    else:
        part = audit.decisions[0].accounts[0].edges[:3]
        found += hanging("  carried by  ", ", ".join(f"{row.part} ({row.circuit:+.2f})" for row in part))
    return found


def _prompts(given: str) -> list[str]:
    """The prompts that one ``--prompt`` means."""
    path = Path(given)
    if path.suffix not in (".txt", ".jsonl"):
        return [given]
    try:
        rows = read_text(path).split("\n")
        rows = rows[:-1] if rows[-1] == "" else rows
        texts = [parse_json(row)["prompt"] for row in rows] if path.suffix == ".jsonl" else rows
        return ["".join(text) for text in texts]
    except OSError as error:
        raise SparselitError(f"cannot read the prompts {path}: {error.strerror}") from error
    except (ValueError, KeyError, TypeError) as error:
        raise SparselitError(f"{path}: each line must be JSON with a key prompt ({error!r})") from error


def _from_splits(circuits: Sequence[Loaded], n: int) -> list[str]:
    """The first ``n`` report prompts of each circuit, and as many out of distribution."""
    found: dict[str, None] = {}
    for circuit in circuits:
        words = circuit.behaviour.vocabulary
        for name in ("report", "out_of_distribution"):
            if (split := circuit.behaviour.splits.get(name)) is not None:
                part = split.select(slice(0, n))
                for row, length in zip(part.tokens.tolist(), part.length.tolist(), strict=True):
                    found["".join(words[token] for token in row[:length])] = None
    return list(found)
