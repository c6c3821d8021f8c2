"""``sparselit diagnose``: trace a model's errors to the weights and nodes behind them."""

from __future__ import annotations

import json
import sys

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import check_seed


def run(argv: list[str]) -> None:
    """Print what is behind the errors."""
    parser = PlainParser(
        "diagnose",
        "Trace a model's errors: which weight alone repairs them when it is changed, what the circuit's nodes did, "
        "and what no single weight explains. Choices are made on one half of the errors and counted on the other.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument("--ckpt_path", metavar="CKPT", help="the model that errs; default the circuit's own")
    parser.add_argument("--split", metavar="NAME", help="prompts to look at; default out_of_distribution, or report")
    parser.add_argument("--prompts", metavar="FILE", help="prompts to look at instead, .jsonl with prompt and answer")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the division of the errors; default 0")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)
    check_seed("--seed", options.seed)

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.repair.diagnose import diagnose
    from sparselit.circuits.use.repair.repair import errors_of
    from sparselit.cli.models import like, pool_of
    from sparselit.report.diagnosis import diagnosis_lines
    from sparselit.runs.json_record import write

    circuit = load(options.circuit)
    model = like(circuit, options.ckpt_path)
    pool = pool_of(circuit, options.split, options.prompts)
    found = diagnose(model, circuit, errors_of(model, pool, circuit.behaviour.splits["discovery"], options.seed))
    text = json.dumps(write(found), indent=1) if options.json else "\n".join(diagnosis_lines(circuit.circuit, found))
    sys.stdout.write(text + "\n")
