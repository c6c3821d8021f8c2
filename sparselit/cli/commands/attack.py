"""``sparselit attack``: look for prompts on which a circuit, and the model with it, is deceived."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError, check_seed, check_whole
from sparselit.report.facts import hanging, interval_text, percent, shortened
from sparselit.runs.atomic import write_text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from sparselit.circuits.use.attack import Attack


def run(argv: list[str]) -> None:
    """Write the prompts that were found and print how each method did."""
    parser = PlainParser(
        "attack",
        "Look for prompts of the task that are answered wrongly, by lowering the margin in the compacted circuit; the "
        "task's own rule says what is right. Beside it: random moves, and searches on the full model.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument("--n", type=int, default=64, metavar="N", help="prompts to begin with; default 64")
    parser.add_argument("--steps", type=int, default=12, metavar="N", help="most moves of each; default 12")
    parser.add_argument("--width", type=int, default=24, metavar="N", help="moves compared before each; default 24")
    parser.add_argument(
        "--transfer", nargs="+", default=[], metavar="CKPT", help="other models that are given the found prompts"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the draws; default 0")
    parser.add_argument("-o", "--output", metavar="FILE", help="the prompts, .jsonl; default beside the circuit")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)
    for name, most in (("n", 2000), ("steps", 1000), ("width", 1000)):
        check_whole(f"--{name}", getattr(options, name), 1, most)
    check_seed("--seed", options.seed)

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.attack import Settings, attack
    from sparselit.circuits.use.prompts import Domain
    from sparselit.cli.models import model_of
    from sparselit.cli.oracle import oracle

    circuit = load(options.circuit)
    solve = oracle(circuit)
    if solve is None:
        raise SparselitError(f"the task {circuit.circuit.task.name} has no rule (solve) that says what is right")
    others = {path: model_of(path) for path in options.transfer}
    for path, other in others.items():
        if other.unembed.out_features != circuit.model.unembed.out_features:
            raise SparselitError(f"{path}: its model has another vocabulary")
    settings = Settings(options.n, options.steps, options.width, options.seed)
    found = attack(circuit, Domain.of(circuit.behaviour, solve), settings, others)
    words = tuple(circuit.behaviour.vocabulary)
    output = (
        Path(options.output) if options.output else circuit.path.with_name(f"{circuit.path.stem}.adversarial.jsonl")
    )
    rows = ({"prompt": [words[t] for t in row], "answer": words[right]} for row, right in found.found)
    write_text(output, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
    text = json.dumps(write_outcomes(found, words), indent=1) if options.json else "\n".join(lines(found, words))
    sys.stdout.write(text + "\n")
    if not options.json:
        sys.stdout.write(f"\n{len(found.found)} prompts  {output}\n")


def write_outcomes(found: Attack, words: Sequence[str]) -> dict[str, object]:
    """An attack as JSON, with its prompts as texts."""
    from sparselit.runs.json_record import write

    return {
        "outcomes": [{**write(outcome), "success": outcome.success} for outcome in found.outcomes],
        "shortest": "".join(words[token] for token in found.shortest),
        "exploited": [list(pair) for pair in found.exploited],
    }


def lines(found: Attack, words: Sequence[str]) -> list[str]:
    """A table of the methods, 80 columns wide, and what the circuit's own attack found."""
    rows = [
        f"{'method':<10}{'asked':>8}{'prompts':>9}{'model wrong':>13}{'95 % interval':>19}{'predicted':>11}{'false':>8}"
    ]
    for one in found.outcomes:
        wrong = one.both + one.model_only
        predicted = percent(one.both / wrong, 0) if wrong else "-"
        rows.append(
            f"{one.method:<10}{one.asked:>8,}{one.n:>9,}{percent(one.success, 1):>13}"
            f"{interval_text(one.interval):>19}{predicted:>11}{one.circuit_only:>8,}"
        )
        rows += [f"  transfer {percent(share, 1):>8}  {shortened(name, 58)}" for name, share in one.transfer.items()]
    rows += [
        "",
        "predicted: of the model's failures, those that the circuit has too",
        "false: failures of the circuit alone",
    ]
    if found.shortest:
        rows += ["", *hanging("shortest   ", repr("".join(words[token] for token in found.shortest)))]
    rows += hanging("exploited  ", ", ".join(f"{name} ({count})" for name, count in found.exploited) or "nothing")
    return rows
