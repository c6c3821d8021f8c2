"""``sparselit hypotheses``: is a circuit equal to its model, better than chance, and without superfluous edges?"""

from __future__ import annotations

import json
import sys
from dataclasses import fields
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.report.facts import hanging, shortened
from sparselit.report.progress import display

_SHOWN = 5  # of the removals


def run(argv: list[str]) -> None:
    """Print the three tests; exit with 1 where one of them does not speak for the circuit."""
    parser = PlainParser(
        "hypotheses",
        "Test a circuit on the report split: does it do what the model does (equivalence, TOST), better than random "
        "circuits (sufficiency, rank), with every edge (minimality, Holm)? Exit code 1 where a test is not passed.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument(
        "--metric", help="task_loss, answer_loss or accuracy; default those of the criterion, the first for equivalence"
    )
    parser.add_argument(
        "--margin",
        type=float,
        metavar="X",
        help="largest mean difference from the full model that counts as none; default 0.05 nats, 0.01 of an accuracy",
    )
    parser.add_argument(
        "--least", type=float, default=0.0, metavar="X", help="smallest effect of an edge that matters; default 0"
    )
    parser.add_argument("--draws", type=int, default=99, metavar="N", help="random circuits; default 99")
    parser.add_argument("--alpha", type=float, default=0.05, metavar="A", help="level of each test; default 0.05")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the random circuits; default 0")
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)

    from sparselit.circuits.evidence.hypothesis_tests import Settings, hypotheses
    from sparselit.circuits.loaded import load

    loaded = load(options.circuit)
    report = loaded.behaviour.splits["report"]
    chosen = {field.name: getattr(options, field.name) for field in fields(Settings)}
    with display("testing") as shown:
        found = hypotheses(loaded.problem, loaded.kept, report, Settings(**chosen), shown.counting)
    text = json.dumps(found, indent=1, ensure_ascii=False) if options.json else "\n".join(lines(found))
    sys.stdout.write(text + "\n")
    verdicts = [found[test]["verdict"] for test in ("equivalence", "sufficiency", "minimality")]
    if verdicts != ["equivalent", "sufficient", "minimal"]:
        sys.stdout.flush()
        sys.exit(1)


def lines(found: dict[str, Any]) -> list[str]:
    """The result of :func:`sparselit.circuits.evidence.hypothesis_tests.hypotheses` for a person, 80 columns wide."""
    from sparselit.circuits.evidence.hypothesis_tests import ENOUGH  # torch is slow to import

    same, better, needed = found["equivalence"], found["sufficiency"], found["minimality"]
    metric, n = same["metric"], same["n"]
    facts = [
        ("equivalence", f"{same['verdict'].upper()}: {metric} differs from the full model's by "
         f"{same['mean_difference']:+.4f} on average; that it differs by {same['margin']:g} or more: "
         f"p {_p(same['p_equivalent'])}; by less: p {_p(same['p_different'])}"),
        ("sufficiency", f"{better['verdict'].upper()}: {better['metric']} {better['loss']:.4f}, smaller than in "
         f"{better['beaten']} of {better['draws']} random circuits of the same profile (best {better['best']:.4g}, "
         f"median {better['median']:.4g}); that it is one of them: p {_p(better['p'])}"),
        ("minimality", f"{needed['verdict'].upper()}: {needed['matter']} of {needed['edges']} edges and biases matter: "
         f"{' or '.join(needed['metrics'])} gets worse by more than {needed['least_effect']:g} without it alone "
         "(Holm)"),
    ]  # fmt: skip
    rows = [f"Tests at level {found['alpha']:g} on the report split (n {n:,})", ""]
    for name, text in facts:
        rows += hanging(f"{name:<13}", text)
    if n < ENOUGH and metric != "accuracy":
        rows.append(f"note         with fewer than {ENOUGH:,} examples the p-values of losses are rough")
    if needed["removals"]:
        rows += ["", f"{'least certain of the removals':<46}{'metric':>11}{'worse by':>11}{'adjusted p':>12}"]
    for name, of, effect, p in needed["removals"][:_SHOWN]:
        rows.append(f"  {shortened(name, 44):<44}{of:>11}{effect:>11.4f}{_p(p):>12}")
    return rows


def _p(p: float) -> str:
    return "< 1e-6" if p < 1e-6 else f"{p:.4f}" if p >= 1e-3 else f"{p:.1e}"
