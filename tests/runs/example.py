"""A result that is made up, for the tests of what reads one."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sparselit.runs.result import (
    Accuracy,
    Circuits,
    Density,
    FoundCircuit,
    Loss,
    Machine,
    MetBound,
    Result,
    Seconds,
    Steps,
    TensorDensity,
    Versions,
)


def accuracy(split: str, right: int, n: int, stratum: str = "all") -> Accuracy:
    return Accuracy(split, stratum, right, n, right / n, (right / n - 0.01, min(1.0, right / n + 0.01)))


def circuit(**changes: Any) -> FoundCircuit:
    found = FoundCircuit(
        task="",
        step=100,
        path="circuits/step=100.json",
        edges=44,
        nodes=30,
        free=12,
        n=1000,
        loss=0.12,
        accuracy=0.98,
        kl=0.01,
        necessity=3.5,
        unexplained=0.02,
        null_edges=300.0,
        searched=None,
        criterion=(MetBound("task_loss", 0.15, None, 0.12, True), MetBound("accuracy", None, 0.9, 0.98, True)),
        ablation={"kind": "mean", "distribution": "discovery", "per": "all", "norm": "live"},
        granularity="weight",
        units=44,
        complete=True,
        minimal=True,
        flags=("attention",),
        seconds=3.5,
    )
    return replace(found, **changes)


def circuits(*found: FoundCircuit, **changes: Any) -> Circuits:
    return replace(Circuits(2, "", 44.0, None, found or (circuit(),)), **changes)


def result(**changes: Any) -> Result:
    tensors = (
        TensorDensity("embed.weight", (40, 20), 800, 80, 0.1),
        TensorDensity("norm.weight", (20,), 20, 20, 1.0),
    )
    made = Result(
        name="quotes/version_0",
        task="Quotes",
        model="SparseTransformer",
        seed=0,
        digest="d" * 64,
        ended="max_steps",
        steps=Steps(1200, 1200),
        seconds=Seconds(1034.5, 7.0),
        accuracies=(
            accuracy("val", 98, 100),
            accuracy("report", 995, 1000),
            accuracy("report", 99, 100, "odd"),
            accuracy("out_of_distribution", 3155, 10000),
        ),
        losses=(Loss("val", 0.02, None), Loss("report", 0.015, None)),
        density=Density(100 / 820, 0.1, 0.1, 0.1, tensors),
        circuits=circuits(),
        checkpoint="checkpoints/step=1200.ckpt",
        problems=(),
        advice=(),
        versions=Versions("0.1.0", "2.9.0", "2.6.4", "3.11.7"),
        machine=Machine("Some Processor", "AVX512", 1, "cpu", 1, "32-true"),
    )
    return replace(made, **changes)
