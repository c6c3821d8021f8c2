"""``sparselit diff``: what two circuits share, and what only one of them has."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any

from sparselit.cli.command_parser import PlainParser
from sparselit.report.facts import percent, shortened

if TYPE_CHECKING:
    from sparselit.circuits.circuit import Circuit
    from sparselit.circuits.sets import Shared


def run(argv: list[str]) -> None:
    """Print the overlap by matrix, the differing edges and, for circuits of one model, the scores of their sets."""
    parser = PlainParser(
        "diff",
        "Compare two circuits edge by edge. Where both belong to the same weights and ablation, their union, "
        "intersection and differences are run as circuits too.",
    )
    parser.add_argument("first", metavar="A", help="file such as circuits/step=1500.json")
    parser.add_argument("second", metavar="B", help="another")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)

    from sparselit.circuits.files import read_circuit
    from sparselit.circuits.sets import shared

    first, second = read_circuit(options.first), read_circuit(options.second)
    common = shared(first, second)
    same = first.model.hash == second.model.hash and first.ablation == second.ablation
    scores = _scores(options.first, options.second) if same else {}
    if options.json:
        content = {"jaccard": common.jaccard, **common._asdict(), "by_matrix": common.by_matrix(), "scores": scores}
        text = json.dumps(content, indent=1, ensure_ascii=False)
    else:
        text = "\n".join(lines(first, second, common, scores))
    sys.stdout.write(text + "\n")


def lines(first: Circuit, second: Circuit, common: Shared, scores: dict[str, dict[str, Any]]) -> list[str]:
    """The comparison for a person, 80 columns wide.

    Args:
        first: circuit A.
        second: circuit B.
        common: the edges of both and of either.
        scores: by circuit and task, what is shown of its evidence.
    """
    from sparselit.model.wiring import place_name  # torch is slow to import

    rows = [
        f"A             {len(first.places)} edges and biases, ablation {first.ablation}",
        f"B             {len(second.places)} edges and biases, ablation {second.ablation}",
        f"shared        {len(common.both)}, Jaccard {common.jaccard:.2f}",
    ]
    if first.model.hash != second.model.hash:
        rows.append("              A and B have different weights: edges are compared by their places")
    rows += ["", f"{'':<46}{'only A':>10}{'both':>10}{'only B':>10}"]
    for name, counts in common.by_matrix().items():
        rows.append(f"  {shortened(name, 42):<44}" + "".join(f"{n:>10,}" for n in counts))
    for title, places, of in (("A", common.first, first), ("B", common.second, second)):
        if places:
            rows += ["", f"{f'only in {title}':<66}{'weight':>10}"]
        biases = {(bias.parameter, bias.channel, 0) for bias in of.biases}
        for place in places:
            label = place_name(place, place in biases)
            rows.append(f"  {shortened(label, 62):<64}{of.weights[place]:>10.4f}")
    if scores:
        n = next(iter(scores.values()))["n"]
        rows += ["", f"{f'run as circuits on the report split of A, n {n:,}':<50}{'loss':>10}{'accuracy':>14}"]
    for name, score in scores.items():
        label = f"{name} ({score['edges']} edges and biases)"
        rows.append(f"  {label:<48}{score['task_loss']:>10.4f}{percent(score['accuracy']):>14}")
    return rows


def _scores(one: str, other: str) -> dict[str, dict[str, Any]]:
    from sparselit.circuits.criterion import measure
    from sparselit.circuits.loaded import load
    from sparselit.circuits.sets import difference, intersection, union

    first, second = load(one), load(other)
    report = first.behaviour.splits["report"]
    made = {
        "A": first,
        "B": second,
        "A and B": intersection(first, second),
        "A or B": union(first, second),
        "A without B": difference(first, second),
        "B without A": difference(second, first),
    }
    found = {}
    for name, circuit in made.items():
        values = measure(circuit.run(report.tokens, report.length - 1, report.corrupted), report)
        n = len(report.answer)
        found[name] = {"edges": int(circuit.kept.sum()), **{k: values[k] for k in ("task_loss", "accuracy")}, "n": n}
    return found
