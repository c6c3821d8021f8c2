"""A circuit and its model on a card: for the Hugging Face hub, and as a bill of materials (CycloneDX, ECMA-424)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.claims import Score

_SHOWN = ("accuracy", "task_loss", "kl")


class Figure(NamedTuple):
    """A figure of a circuit.

    Attributes:
        name: of the metric.
        value: of the circuit.
        where: the split, with its number of prompts.
        interval: 95 %; None where there is none.
    """

    name: str
    value: float
    where: str
    interval: tuple[float, float] | None


def figures_of(circuit: Circuit) -> Iterator[Figure]:
    """Accuracy, loss and divergence on the report split, and out of distribution where there are such prompts."""
    evidence = circuit.evidence
    for where, score in (("report split", evidence.held_out), ("out of distribution", evidence.out_of_distribution)):
        if score is not None:
            for name in _SHOWN:
                yield Figure(name, getattr(score, name), f"{where}, n {score.n}", _interval(score, name))


def limits_of(circuit: Circuit) -> list[str]:
    """What is not shown of it."""
    limits = list(circuit.evidence.flags or ())
    if not circuit.generalises:
        limits.append("a stated bound fails on the report split")
    if not circuit.certificate.complete:
        limits.append("no certificate: the search did not end")
    return limits


def model_card(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """Markdown with the front matter that the hub reads as a model index."""
    name = f"{circuit.task.name} circuit"
    metrics = [{"type": figure.name, "value": figure.value, "name": figure.where} for figure in figures_of(circuit)]
    metrics.append({"type": "edges", "value": circuit.size.edges, "name": "size of the circuit"})
    dataset = {"type": circuit.task.class_path, "name": circuit.task.name, "args": dict(circuit.task.init_args)}
    result = {"task": {"type": "text-generation"}, "dataset": dataset, "metrics": metrics}
    head = {
        "library_name": "sparselit",
        "tags": ["interpretability", "circuit", "weight-sparse"],
        "model-index": [{"name": name, "results": [result]}],
    }
    rows = [
        f"| {figure.name} | {figure.value:.6g} | {_text(figure.interval)} | {figure.where} |"
        for figure in figures_of(circuit)
    ]
    limits = [f"- {limit}" for limit in limits_of(circuit)] or ["- none that its checks found"]
    lines = [
        "---",
        yaml.safe_dump(head, sort_keys=False, allow_unicode=True).rstrip(),
        "---",
        f"# {name}",
        "",
        f"{circuit.size.edges} edges and {circuit.size.nodes} nodes of a transformer.",
        f"Removed edges: {circuit.ablation}.",
        f"Found by {circuit.search.class_path.rpartition('.')[2]}; {circuit.certificate.granularity} by "
        f"{circuit.certificate.granularity} certified: {'yes' if circuit.certificate.complete else 'no'}.",
        "",
        "| metric | value | 95 % interval | where |",
        "|---|---|---|---|",
        *rows,
        "",
        "## What is not shown",
        "",
        *limits,
        "",
        f"Check it with `sparselit verify {path.name}`. Weights: SHA-256 of the tensors {circuit.model.hash}.",
    ]
    return "\n".join(lines) + "\n"


def bill_of_materials(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """CycloneDX 1.6 in JSON, with a model card."""
    metrics: list[dict[str, Any]] = []
    for figure in figures_of(circuit):
        row: dict[str, Any] = {"type": figure.name, "value": f"{figure.value:.6g}", "slice": figure.where}
        if figure.interval is not None:
            low, high = figure.interval
            row["confidenceInterval"] = {"lowerBound": f"{low:.6g}", "upperBound": f"{high:.6g}"}
        metrics.append(row)
    metrics.append({"type": "edges of the circuit", "value": str(circuit.size.edges)})
    card = {
        "modelParameters": {
            "approach": {"type": "self-supervised"},
            "task": "next-token prediction",
            "architectureFamily": "transformer",
            "modelArchitecture": "weight-sparse decoder",
        },
        "quantitativeAnalysis": {"performanceMetrics": metrics},
        "considerations": {"technicalLimitations": limits_of(circuit) or ["none that its checks found"]},
    }
    model = {
        "type": "machine-learning-model",
        "bom-ref": circuit.model.hash,
        "name": f"{circuit.task.name} circuit",
        "hashes": [{"alg": "SHA-256", "content": circuit.model.hash}],
        "modelCard": card,
    }
    content = {"bomFormat": "CycloneDX", "specVersion": "1.6", "version": 1, "components": [model]}
    return json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def _interval(score: Score, name: str) -> tuple[float, float] | None:
    ends = getattr(score, f"{name}_interval", None)
    return None if ends is None else (ends[0], ends[1])


def _text(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.6g} to {interval[1]:.6g}"
