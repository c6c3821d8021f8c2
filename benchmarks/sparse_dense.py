"""Circuit sizes of a sparse and a dense model of one shape and task, and their ratio, under several protocols.

    python -m benchmarks.sparse_dense              trains and searches what is missing, then prints the table
    python -m benchmarks.sparse_dense --table      only prints the table, from the results that there are

A size belongs to its protocol: search x ablation x bounds. Beside each stands what the same search needs for nulls: the
swapped answers in the same model, and the task in an untrained model of the same shape and density. Results are kept in
results/sparse_dense.jsonl, one line for each search, so that an interrupted command goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch

from benchmarks.suite import append, read
from sparselit.circuits import Bound
from sparselit.circuits import search as searches
from sparselit.circuits.criterion import Criterion, measure
from sparselit.circuits.null_searches import subject_of, working_set
from sparselit.circuits.problem import Problem
from sparselit.circuits.units import Granularity
from sparselit.examples import Examples
from sparselit.transformer import Transformer
from tasks.quotes import Quotes

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
#: The two models by the configuration that trains them.
MODELS = {"sparse": "quotes_synthetic", "dense": "quotes_dense"}
SEEDS, SECONDS = 3, 60.0  # the longest that one search may take
NULLS = ("swapped_target", "untrained_model")


class Protocol(NamedTuple):
    """How a size is measured.

    Attributes:
        search: class name.
        ablation: kind.
        bounds: the criterion.
        granularity: what is removed as one.
    """

    search: str
    ablation: str
    bounds: Criterion
    granularity: Granularity = "weight"

    def __str__(self) -> str:
        return " · ".join([self.search, self.ablation, self.granularity, ", ".join(map(str, self.bounds))])


LOSS, FAITHFUL = Bound("task_loss", at_most=0.15), Bound("kl", at_most=0.02)
PROTOCOLS = [
    Protocol("SoftMasks", "zero", [LOSS]),
    Protocol("SoftMasks", "mean", [LOSS]),
    Protocol("NodeMasks", "mean", [Bound("calibrated_loss", at_most=0.15)], "channel"),  # the paper's
    Protocol("SoftMasks", "mean", [LOSS, FAITHFUL]),
    Protocol("GroupTesting", "zero", [LOSS]),
    Protocol("GroupTesting", "mean", [LOSS]),
    Protocol("GroupTesting", "mean", [LOSS, FAITHFUL]),
]


def main() -> None:
    """Train, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only print the table")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    file = RESULTS / "sparse_dense.jsonl"
    if not options.table:
        examples = {split: _task().split(split) for split in ("discovery", "report")}
        nulls = [(protocol, 0, null) for protocol in PROTOCOLS if protocol.bounds == [LOSS] for null in NULLS]
        real = [(protocol, seed, None) for protocol in PROTOCOLS for seed in range(options.seeds)]
        for protocol, seed, null in sorted([*real, *nulls], key=lambda each: each[0].search == "GroupTesting"):
            for kind in MODELS:
                key = {"model": kind, "seed": seed, "protocol": str(protocol), "null": null}
                if not any(key.items() <= row.items() for row in read(file)):
                    row = key | measured(trained(kind, seed), protocol, null, examples)
                    append(file, row)
                    sys.stderr.write(f"{row}\n")
    sys.stdout.write(table(read(file)))


def _task() -> Quotes:
    task = Quotes(source="synthetic", length=24, batch_size=128, discovery=512)
    task.prepare_data()
    task.setup("fit")
    return task


def trained(kind: str, seed: int) -> Transformer:
    """The model of one configuration and seed; it is trained where no checkpoint is there."""
    folder = RESULTS / "sparse_dense" / f"{kind}{seed}"
    if not list(folder.rglob("*.ckpt")):
        command = [sys.executable, "-m", "sparselit.cli", "fit", "--config", MODELS[kind], "--circuits", "null"]
        command += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT)
    return Transformer.from_checkpoint(max(folder.rglob("*.ckpt")))


def measured(
    model: Transformer, protocol: Protocol, null: str | None, examples: Mapping[str, Examples]
) -> dict[str, Any]:
    """Edges that one search needs, and how the result does on the report split; None where it finds nothing."""
    discovery, report = examples["discovery"], examples["report"]
    if null is not None:
        model, discovery = subject_of(null, model, discovery)
        _, report = subject_of(null, model, report)
    problem = Problem(model, discovery, protocol.bounds, protocol.ablation, protocol.granularity)
    deadline = time.monotonic() + SECONDS
    began = time.process_time()
    start, values = working_set(problem, deadline)
    row: dict[str, Any] = {"of": len(problem.edges), "edges": None, "loss": values[protocol.bounds[0].metric]}
    if start is not None:
        found = getattr(searches, protocol.search)().run(problem, start, deadline=deadline)
        weights = int((found.kept & ~problem.edges.is_bias).sum())
        shown = measure(problem.logits(found.kept, report), report, problem.logits(problem.all_edges(), report))
        row |= {"edges": weights, "complete": found.complete, "loss": shown["task_loss"], "kl": shown["kl"]}
        row |= {"accuracy": shown["accuracy"], "n": len(report.answer), "evaluations": problem.cost.evaluations}
    return row | {"cpu_seconds": round(time.process_time() - began, 1)}


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """One line for each protocol: sizes by seed, and the geometric mean of the ratio dense / sparse."""
    rows = list(rows)
    lines = [
        "| protocol | sparse | dense | ratio | swapped: sparse, dense | untrained: sparse, dense |",
        "|" + "---|" * 6,
    ]
    for protocol in map(str, PROTOCOLS):
        here = [row for row in rows if row["protocol"] == protocol]
        sizes = {
            kind: {row["seed"]: row for row in here if row["model"] == kind and row["null"] is None} for kind in MODELS
        }
        both = [
            sizes["dense"][seed]["edges"] / row["edges"]
            for seed, row in sizes["sparse"].items()
            if row["edges"] and seed in sizes["dense"] and sizes["dense"][seed]["edges"]
        ]
        bounded = "" if all(row["complete"] for row in sizes["dense"].values() if row["edges"]) else "≤ "
        ratio = f"{bounded}{geometric_mean(both):.1f}" if both else "–"
        nulls = [
            "; ".join(_list([r for r in here if r["model"] == kind and r["null"] == null]) or "–" for kind in MODELS)
            for null in NULLS
        ]
        lines.append(
            f"| {protocol} | {_list(sizes['sparse'].values())} | {_list(sizes['dense'].values())} | {ratio} | "
            + " | ".join(nulls)
            + " |"
        )
    return "\n".join(lines) + "\n"


def _list(rows: Iterable[Mapping[str, Any]]) -> str:
    """Sizes by seed; ≤ where the search ran out of time, so that edges may still go."""
    return ", ".join(
        "none" if row["edges"] is None else ("" if row["complete"] else "≤ ") + str(row["edges"]) for row in rows
    )


if __name__ == "__main__":
    main()
