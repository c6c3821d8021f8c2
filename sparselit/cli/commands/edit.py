"""``sparselit edit``: show, apply, undo, check, compose and compare edits."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.report.facts import counted, hanging
from sparselit.runs.atomic import write_text

if TYPE_CHECKING:
    from sparselit.circuits.use.repair import Edit

ACTIONS = ("show", "apply", "undo", "check", "compose", "diff")
_SHOWN = 20


def run(argv: list[str]) -> None:
    """Do one thing with edits; exit with 1 where a check fails."""
    parser = PlainParser(
        "edit",
        "Use edits, which `sparselit repair` makes: show one, apply several in order, undo them bit for bit, check "
        "that one belongs to a model and can be undone, compose several into one, or compare two.",
    )
    parser.add_argument("action", choices=ACTIONS, help="what to do")
    parser.add_argument("edits", nargs="+", metavar="EDIT", help="edits, .json")
    parser.add_argument("--ckpt_path", metavar="CKPT", help="the model, a checkpoint or a circuit's file")
    parser.add_argument("-o", "--output", metavar="FILE", help="apply, undo: the new checkpoint; compose: the new edit")
    options = parser.parse_args(argv)

    from sparselit.circuits.use.repair import read_edit

    edits = [read_edit(Path(path)) for path in options.edits]
    if options.action == "show":
        sys.stdout.write("\n".join(line for edit in edits for line in lines(edit)) + "\n")
    elif options.action == "diff":
        _diff(edits)
    else:
        if not options.ckpt_path:
            raise SparselitError(f"edit {options.action} needs the model: --ckpt_path CKPT")
        if options.action != "check" and not options.output:
            raise SparselitError(f"edit {options.action} needs a file to write: --output FILE")
        _with_model(options.action, edits, options.ckpt_path, Path(options.output or ""))


def _with_model(action: str, edits: list[Edit], ckpt_path: str, output: Path) -> None:
    from sparselit.circuits.circuit import model_hash
    from sparselit.circuits.use.repair import applied, composed
    from sparselit.cli.models import model_of, write_model

    model = model_of(ckpt_path)
    if action == "check":
        for edit in edits:
            back = applied(applied(model, edit), edit.undone)
            same = model_hash(back.state_dict()) == model_hash(model.state_dict())
            sys.stdout.write(f"{'yes' if same else 'NO'}: applied and undone, the model is the same bit for bit\n")
            if not same:
                sys.stdout.flush()
                sys.exit(1)
        return
    if action == "undo":
        edits = [edit.undone for edit in reversed(edits)]
    edit = composed(model, edits)
    if action == "compose":
        write_text(output, json.dumps(edit.as_json(), indent=1) + "\n")
    else:
        write_model(ckpt_path, applied(model, edit), output)
    sys.stdout.write(f"{output}: {counted(len(edit.deltas), 'weight')} changed, norm {edit.norm:.4g}\n")


def _diff(edits: list[Edit]) -> None:
    from sparselit.circuits.use.repair.edit import difference

    if len(edits) != 2:
        raise SparselitError(f"edit diff compares two edits, got {len(edits)}")
    found = difference(*edits)
    for name, places in zip(
        ("only in the first", "the same in both", "different", "only in the second"), found, strict=True
    ):
        sys.stdout.write(f"{name:<20}{len(places):>7,}\n")
        for parameter, row, column in places[:_SHOWN]:
            sys.stdout.write(f"  {parameter}[{row},{column}]\n")


def lines(edit: Edit) -> list[str]:
    """An edit for a terminal."""
    rows = [f"{counted(len(edit.deltas), 'weight')} changed, norm {edit.norm:.4g}"]
    for one in edit.provenance:
        rows += hanging("made by  ", f"{one.maker} {json.dumps(dict(one.arguments)) if one.arguments else ''}")
    rows += [
        f"  {f'{name}[{row},{column}]':<40}{before:>+12.6f} → {after:>+12.6f}"
        for name, row, column, before, after in edit.deltas[:_SHOWN]
    ]
    return rows + ([f"  … {len(edit.deltas) - _SHOWN:,} more"] if len(edit.deltas) > _SHOWN else [])
