"""Every search of the suite on every case of the ground truth, under every ablation.

    python -m benchmarks.ground_truth

``Ness``: weights that are necessary in the full model. ``edges``: size of the circuit found. ``recall``: share of Ness
in it; below 1 where weights are necessary only because of others that the circuit does without. ``precision``: share of
it that is in Ness. ``bound``: evaluations that a search without a ranking needs at least, log2 C(N, k) to find k of N
edges and k to certify them.
"""

from __future__ import annotations

import math
import sys
import time

import torch

from sparselit.circuits.search.problem import Problem
from tests.ground_truth.ness import ABLATIONS, stored
from tests.ground_truth.suite import CASES, SEARCHES

COLUMNS = "{:<32}{:<9}{:<34}{:>5}{:>6}{:>7}{:>11}{:>8}{:>12}{:>7}{:>9}\n"


def main() -> None:
    torch.set_num_threads(1)
    head = (
        "case",
        "ablation",
        "search",
        "N",
        "Ness",
        "edges",
        "precision",
        "recall",
        "evaluations",
        "bound",
        "seconds",
    )
    sys.stdout.write(COLUMNS.format(*head))
    truth = {}
    for row in reversed(stored()["ness"]):  # so that the case's own tolerance stays
        truth[row["case"], row["ablation"]] = {(name, i, j) for name, i, j in row["ness"]}
    for name, make in CASES.items():
        for ablation in ABLATIONS:
            for search, factory in SEARCHES.items():
                case, ness = make(), truth[name, ablation]
                problem = Problem.of(case.model, case.domain, case.criterion, ablation)
                began = time.perf_counter()
                kept = factory().run(problem).kept
                seconds = time.perf_counter() - began
                found = {problem.edges.describe(i) for i in kept.nonzero()[:, 0].tolist()}
                n, k, common = len(kept), len(found), len(found & ness)
                bound = math.log2(math.comb(n, k)) + k
                row = (f"{common / k:.2f}" if k else "-", f"{common / len(ness):.2f}" if ness else "-")
                numbers = (n, len(ness), k, *row, problem.cost.evaluations, f"{bound:.0f}", f"{seconds:.2f}")
                sys.stdout.write(COLUMNS.format(name, ablation, search, *numbers))
                sys.stdout.flush()


if __name__ == "__main__":
    main()
