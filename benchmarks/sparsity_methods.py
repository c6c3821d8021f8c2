"""Which method when: every method on three tasks, at equal numbers of non-zero weights.

    python -m benchmarks.sparsity_methods
    python -m benchmarks.sparsity_methods --seeds 3 --methods projection proximal gradual rigl

One cell is one training; each is kept in ``results/sparsity_methods.jsonl``, so that the command goes on where it was
stopped. Accuracy is on the report split (prompts that training has not seen).
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from sparselit.callbacks import (
    AcdcSparsity,
    AnnealedSparsity,
    DynamicSparsity,
    GradualPruning,
    OneShotPruning,
    ProximalSparsity,
    RiglSparsity,
    SelfPacedSparsity,
    SnipSparsity,
    StaticSparsity,
)
from sparselit.tasks import MajorityToken, Minimum, Quotes

from benchmarks.records import Records
from benchmarks.short_runs import trained
from sparselit.modules import SparseTransformer
from sparselit.sparsity import Schedule
from sparselit.training.sparsifier import Sparsifier

RECORDS = Records(Path("results/sparsity_methods.jsonl"))


def falling(density: float, shape: str = "exponential") -> Schedule:
    return Schedule(to=density, begin=0.1, end=0.6, shape=shape)


METHODS: dict[str, Callable[[float], Sparsifier]] = {
    "dense, for comparison": lambda d: StaticSparsity(1.0),
    "static, random": lambda d: StaticSparsity(d),
    "static, magnitude": lambda d: StaticSparsity(d, mask="magnitude"),
    "SNIP": lambda d: SnipSparsity(d),
    "SET": lambda d: DynamicSparsity(d, every_n_steps=25),
    "RigL": lambda d: RiglSparsity(d, every_n_steps=25),
    "RigL, ERK": lambda d: RiglSparsity(d, every_n_steps=25, distribution="erk"),
    "one-shot": lambda d: OneShotPruning(d, at=0.5),
    "gradual, cubic": lambda d: GradualPruning(falling(d, "cubic")),
    "AC/DC": lambda d: AcdcSparsity(d, every_n_steps=50),
    "projection": lambda d: AnnealedSparsity(falling(d)),
    "projection + L1": lambda d: ProximalSparsity(falling(d), strength=0.03),
    "projection + group L1": lambda d: ProximalSparsity(falling(d), strength=0.01, group="row"),
    "self-paced": lambda d: SelfPacedSparsity(
        Schedule(to=d, begin=0.05, end=0.4, shape="exponential"), loss_below=0.15
    ),
}


def quotes() -> tuple[Any, dict[str, Any]]:
    return Quotes(source="synthetic", length=24, batch_size=64, pool=8192, report=2000, selection=500), {}


def majority() -> tuple[Any, dict[str, Any]]:
    return MajorityToken(batch_size=64, pool=8192, report=2000, selection=500), {"n_layers": 1}


def minimum() -> tuple[Any, dict[str, Any]]:
    return Minimum(batch_size=64, pool=8192, report=2000, selection=500), {"n_layers": 1}


#: Task, density and optimizer steps. A dense model learns each of them in this time.
TASKS: dict[str, tuple[Callable[[], tuple[Any, dict[str, Any]]], float, int]] = {
    "quotes": (quotes, 0.006, 800),
    "majority": (majority, 0.04, 800),
    "minimum": (minimum, 0.1, 800),
}


def train(task: str, method: str, seed: int) -> dict[str, Any]:
    """One cell of the table."""
    make, density, steps = TASKS[task]
    data, arguments = make()
    torch.manual_seed(seed)
    sizes = {"vocab_size": data.vocab_size, "max_length": data.max_length, "d_model": 32, "positions": "none"}
    model = SparseTransformer(**{**sizes, "lr": 0.01, "eps": 0.001, **arguments})
    sparsity = METHODS[method](density)
    seconds = trained(model, data, sparsity, steps)
    with torch.no_grad():
        report = data.split("report")
        right = model.eval()(report.tokens, report.length - 1).argmax(-1) == report.answer
    live = sum(int(p.count_nonzero()) for p in sparsity.tensors(model).values())
    return {"accuracy": float(right.float().mean()), "n": len(right), "live": live, "seconds": seconds}


def cell(task: str, method: str, seed: int) -> dict[str, Any]:
    """A cell, from disk where it has been computed."""
    return RECORDS.once({"task": task, "method": method, "seed": seed}, lambda: train(task, method, seed))


def main() -> None:
    parser = argparse.ArgumentParser(description="Compare the methods at equal numbers of non-zero weights.")
    parser.add_argument("--seeds", type=int, default=1, help="seeds of each cell, at least 1")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=list(METHODS), help="which rows")
    parser.add_argument("--tasks", nargs="*", default=list(TASKS), choices=list(TASKS), help="which columns")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    sys.stdout.write("| method |" + "".join(f" {t} (density {TASKS[t][1]}) |" for t in arguments.tasks) + "\n")
    sys.stdout.write("|---|" + "---|" * len(arguments.tasks) + "\n")
    for method in arguments.methods:
        row = f"| {method} |"
        for task in arguments.tasks:
            found = [cell(task, method, seed) for seed in range(arguments.seeds)]
            shown = " / ".join(f"{result['accuracy']:.1%}" for result in found)
            row += f" {shown} ({', '.join(str(n) for n in sorted({result['live'] for result in found}))}) |"
        sys.stdout.write(row + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
