"""What the pages hold: of one circuit, of two beside each other, and of a run's circuits, step by step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.use.graph import NodeKey
from sparselit.circuits.use.history import History
from sparselit.report.facts import percent, size_text, visible
from sparselit.report.page.evidence import evidence_data
from sparselit.report.page.graph import graph_data
from sparselit.report.page.html import page_text
from sparselit.report.page.prompts import prompt_data

VERSION = 1  # of the page's data; its script reads no other


def circuit_page(circuit: Loaded | Circuit) -> str:
    """The page of one circuit, as the text of an HTML file; the same circuit gives the same bytes.

    Args:
        circuit: loaded, so that prompts are shown; of a record alone graph and evidence are.
    """
    one = circuit.circuit if isinstance(circuit, Loaded) else circuit
    data = _data("circuit", [one], [""])
    if isinstance(circuit, Loaded):
        data["prompts"] = _prompts(circuit, data)
    return page_text(_title(one), data)


def compare_page(first: Loaded, second: Loaded, names: tuple[str, str]) -> str:
    """Two circuits beside each other, in one layout, with the prompts of the first.

    Args:
        first: a circuit.
        second: another, of a model of the same shape.
        names: what they are called.

    Raises:
        SparselitError: the models have different shapes.
    """
    data = _data("compare", [first.circuit, second.circuit], names)
    data["prompts"] = _prompts(first, data)
    return page_text(f"{names[0]} and {names[1]}", data)


def history_page(found: History) -> str:
    """The circuits of a run, step by step, in one layout."""
    circuits = list(found.circuits.values())
    data = _data("history", circuits, [f"step {step:,}" for step in found.circuits])
    return page_text(f"{_title(circuits[-1])}, history", data)


def _data(kind: str, circuits: Sequence[Circuit], names: Sequence[str]) -> dict[str, Any]:
    return {
        "version": VERSION,
        "kind": kind,
        "title": _title(circuits[-1]),
        "graph": graph_data(circuits),
        "circuits": [_summary(circuit, name) for circuit, name in zip(circuits, names, strict=True)],
        "prompts": None,
    }


def _prompts(circuit: Loaded, data: dict[str, Any]) -> dict[str, Any]:
    graph = data["graph"]
    keys = [NodeKey(graph["sites"][node["site"]], node["channel"]) for node in graph["nodes"]]
    own = circuit.circuit.nodes
    return prompt_data(circuit, [key for key in keys if key.channel in own.get(key.site, ())])


def _title(circuit: Circuit) -> str:
    return visible(f"{circuit.task.name}: {size_text(circuit.size.edges, circuit.size.nodes, circuit.size.free)}")


def _summary(circuit: Circuit, name: str) -> dict[str, Any]:
    score = circuit.evidence.held_out
    config = circuit.model.config
    return {
        "name": visible(name),
        "title": _title(circuit),
        "task": visible(circuit.task.name),
        "edges": circuit.size.edges,
        "nodes": circuit.size.nodes,
        "free": circuit.size.free,
        "biases": len(circuit.biases),
        "loss": score.task_loss,
        "accuracy": score.accuracy,
        "right": percent(score.accuracy),
        "n": score.n,
        "complete": circuit.certificate.complete,
        "granularity": circuit.certificate.granularity,
        "certified_on": f"{circuit.certificate.split} split, n {circuit.certificate.n:,}",
        "criterion": [visible(str(bound)) for bound in circuit.criterion],
        "ablation": visible(str(circuit.ablation)),
        "model": visible(f"{config['n_layers']} layers, {config['n_heads']} heads, {config['d_model']} channels"),
        "hash": circuit.model.hash,
        "search": visible(circuit.search.class_path.rpartition(".")[2]),
        "evidence": evidence_data(circuit),
    }
