"""``sparselit repair``: make an edit that mends a model's errors, and measure what else it changes."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError, check_seed, check_whole
from sparselit.report.facts import interval_text, percent, shortened
from sparselit.runs.atomic import write_text

if TYPE_CHECKING:
    from sparselit.circuits.loaded import Loaded
    from sparselit.circuits.use.repair import Edit
    from sparselit.data.examples import Examples
    from sparselit.model.transformer import Transformer
    from sparselit.model.wiring import Place

METHODS = ("smallest", "readout", "circuit", "finetune", "rome", "random")


def run(argv: list[str]) -> None:
    """Write the edit and print what it does."""
    parser = PlainParser(
        "repair",
        "Mend a model's errors by an edit of its circuit's weights. The edit is a file; no checkpoint is changed. "
        "Prints what is repaired, on errors that the repair never saw too, and what else changes.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument("--ckpt_path", metavar="CKPT", help="the model to mend; default the circuit's own")
    parser.add_argument("--split", metavar="NAME", help="prompts to mend; default out_of_distribution, or report")
    parser.add_argument("--prompts", metavar="FILE", help="prompts to mend instead, .jsonl with prompt and answer")
    parser.add_argument(
        "--method",
        choices=[*METHODS, "all"],
        default="smallest",
        help="smallest (default), readout, circuit, finetune, rome, random; all compares them and writes the first",
    )
    parser.add_argument("--budget", type=int, default=5, metavar="N", help="most weights that change; default 5")
    parser.add_argument(
        "--set", action="append", default=[], metavar="EDGE=X", help="instead: give a weight or bias this value"
    )
    parser.add_argument(
        "--scale", action="append", default=[], metavar="PART=X", help="instead: multiply a weight, or a node's readers"
    )
    parser.add_argument("--tasks", nargs="+", default=[], metavar="CIRCUIT", help="other tasks that must not change")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the division of the errors; default 0")
    parser.add_argument("-o", "--output", metavar="EDIT", help="the edit's file; default beside the circuit")
    parser.add_argument("--json", action="store_true", help="machine-readable: the scores by method")
    options = parser.parse_args(argv)
    check_whole("--budget", options.budget, 1, 1000)
    check_seed("--seed", options.seed)

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.repair import Provenance
    from sparselit.circuits.use.repair.repair import edit_of, errors_of, repaired
    from sparselit.cli.models import like, pool_of
    from sparselit.cli.other_tasks import other_prompts
    from sparselit.runs.plain_file import read_bytes

    circuit = load(options.circuit)
    model = like(circuit, options.ckpt_path)
    others = other_prompts(circuit, options.tasks)
    digest = hashlib.sha256(read_bytes(circuit.path)).hexdigest()
    by_hand = bool(options.set or options.scale)
    pool = (
        None if by_hand and not (options.split or options.prompts) else pool_of(circuit, options.split, options.prompts)
    )
    errors = None if pool is None else errors_of(model, pool, circuit.behaviour.splits["discovery"], options.seed)
    arguments: dict[str, Any] = {"set": options.set, "scale": options.scale} if by_hand else {}
    methods = ["by hand"] if by_hand else METHODS if options.method == "all" else [options.method]
    edits: dict[str, Edit] = {}
    for method in methods:
        if by_hand or errors is None:
            other = _by_hand(circuit, model, options.set, options.scale)
        else:
            arguments = {"budget": options.budget, "seed": options.seed}
            other = repaired(model, circuit, errors, method, options.budget, options.seed)
        fitted = "" if errors is None else _digest(errors.cases.wrong)
        provenance = Provenance(maker=method, arguments=arguments, circuit=digest, prompts=fitted)
        edits[method] = edit_of(model, other, circuit, errors, others, provenance)
    if options.json:
        text = json.dumps({method: edit.scores for method, edit in edits.items()}, indent=1)
    else:
        found = f"{errors.wrong:,} of {errors.n:,} prompts are answered wrongly" if errors else "an edit by hand"
        text = "\n".join([found, "", *lines(edits)])
    output = Path(options.output) if options.output else circuit.path.with_name(f"{circuit.path.stem}.edit.json")
    write_text(output, json.dumps(next(iter(edits.values())).as_json(), indent=1) + "\n")
    sys.stdout.write(text + "\n")
    if not options.json:
        sys.stdout.write(f"\nedit  {output} ({next(iter(edits))})\n")


def lines(edits: dict[str, Edit]) -> list[str]:
    """A table of what edits do, 80 columns wide."""
    rows = [f"{'method':<9}{'weights':>8}{'norm':>9}{'errors repaired, held out':>34}{'own task':>10}{'KL':>9}"]
    for method, edit in edits.items():
        scores = edit.scores
        mended = scores.get("efficacy", {}).get("held_out")
        text = f"{percent(mended['share'])} ({interval_text(mended['interval'])})" if mended else "-"
        own = scores["specificity"]["report"]
        rows.append(
            f"{method:<9}{scores['weights']:>8,}{scores['norm']:>9.3g}{text:>34}"
            f"{percent(own['after']['accuracy']):>10}{own['kl']:>9.2g}"
        )
    first = next(iter(edits.values())).scores
    others = {**first["generalization"], **first["specificity"]}
    rows += ["", f"{'prompts':<24}{'right before':>13}{'after':>10}{'loss before':>13}{'after':>9}{'KL':>9}"]
    for name, part in others.items():
        before, after = part["before"], part["after"]
        rows.append(
            f"{shortened(name, 23):<24}{percent(before['accuracy']):>13}{percent(after['accuracy']):>10}"
            f"{before['task_loss']:>13.4f}{after['task_loss']:>9.4f}{part['kl']:>9.2g}"
        )
    alone = first["circuit"]
    rows.append(
        f"{'the circuit alone':<24}{percent(alone['before']['accuracy']):>13}{percent(alone['after']['accuracy']):>10}"
        f"{alone['before']['task_loss']:>13.4f}{alone['after']['task_loss']:>9.4f}{'-':>9}"
    )
    return rows


def _digest(examples: Examples) -> str:
    rows = [row[:n] for row, n in zip(examples.tokens.tolist(), examples.length.tolist(), strict=True)]
    return hashlib.sha256(json.dumps(rows).encode()).hexdigest()


def _by_hand(circuit: Loaded, model: Transformer, values: list[str], factors: list[str]) -> Transformer:
    from sparselit.circuits.use.graph import NodeKey
    from sparselit.circuits.use.names import parse_nodes, parse_place
    from sparselit.circuits.use.repair.by_hand import by_hand

    given = []
    for option, texts in (("--set", values), ("--scale", factors)):
        for text in texts:
            part, equals, number = text.rpartition("=")
            try:
                given.append((option, part, float(number)))
            except ValueError:
                equals = ""
            if not equals:
                raise SparselitError(f"{option} {text} needs a number, as in {option} 'unembed.weight[3,5]=0'")
    sets: dict[Place, float] = {}
    scales: dict[Place, float] = {}
    nodes: dict[NodeKey, float] = {}
    for option, part, value in given:
        place = parse_place(part, model)
        if place is not None:
            (sets if option == "--set" else scales)[place] = value
        elif option == "--set":
            raise SparselitError(f"--set takes a weight or a bias, as in 'unembed.weight[3,5]=0', got {part!r}")
        else:
            site, channels = parse_nodes(part, model, circuit.behaviour.vocabulary)
            nodes |= {NodeKey(site, channel): value for channel in channels}
    return by_hand(model, sets, scales, nodes)
