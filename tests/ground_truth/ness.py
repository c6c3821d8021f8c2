"""Ness: the weights whose single removal breaks the criterion, computed for every case, ablation and tolerance.

``python -m tests.ground_truth.ness`` writes the table anew, to ``ness.json`` beside this file.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from sparselit.circuits.criterion import Bound, holds, measure

from .cases import Case
from .suite import CASES, ENUMERATED
from .truth import Truth

FILE = Path(__file__).with_name("ness.json")
ABLATIONS = ("zero", "mean")
#: Largest loss allowed, as multiples of the case's own.
TOLERANCES = (1.0, 4.0)


def criteria(case: Case) -> Iterator[list[Bound]]:
    """The case's criterion at every tolerance."""
    for factor in TOLERANCES:
        yield [
            Bound(b.metric, at_most=b.at_most * factor) if b.at_most is not None else b  # losses; accuracy stays
            for b in case.criterion
        ]


def entries(name: str) -> list[dict[str, Any]]:
    """What is known of one case, by the naive masked forward pass over its whole domain."""
    found = []
    for ablation in ABLATIONS:
        case = CASES[name]()
        truth = Truth(case, ablation)
        n = len(truth.everything)
        removals = [measure_without(truth, edge) for edge in range(n)]
        for criterion in criteria(case):
            truth.case = Case(case.model, case.domain, criterion, case.wired)
            ness = torch.tensor([not holds(criterion, values) for values in removals])
            found.append(
                {
                    "case": name,
                    "ablation": ablation,
                    "criterion": [str(bound) for bound in criterion],
                    "edges": n,
                    "passes_alone": truth.passes(ness),
                    "is_minimal": truth.is_minimal(ness),
                    "ness": sorted(list(place) for place in truth.places(ness)),
                }
            )
    return found


def measure_without(truth: Truth, edge: int) -> dict[str, float]:
    """All metrics of the full model without one edge."""
    kept = truth.without(truth.everything, edge)
    return measure(truth.problem.naive_logits(kept, truth.case.domain), truth.case.domain)


def multiplicity(name: str) -> dict[str, Any]:
    """All minimal circuits of a case that is small enough, under zero ablation."""
    truth = Truth(ENUMERATED[name]())
    circuits = truth.minimal_circuits()
    places = [sorted(list(truth.problem.edges.describe(i)) for i in circuit) for circuit in circuits]
    return {"case": name, "edges": len(truth.everything), "minimal_circuits": len(circuits), "circuits": sorted(places)}


def stored() -> dict[str, list[dict[str, Any]]]:
    """The table as it was written."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def written(table: dict[str, list[dict[str, Any]]]) -> str:
    """The table as text, one entry in a line."""
    parts = [
        f' "{key}": [\n' + ",\n".join(f"  {json.dumps(row)}" for row in rows) + "\n ]" for key, rows in table.items()
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    """Compute everything and write it."""
    torch.set_num_threads(1)
    table = {
        "ness": [entry for name in CASES for entry in entries(name)],
        "multiplicity": [multiplicity(name) for name in ENUMERATED],
    }
    FILE.write_text(written(table), encoding="utf-8")
    sys.stdout.write(f"{FILE}: {len(table['ness'])} entries\n")


if __name__ == "__main__":
    main()
