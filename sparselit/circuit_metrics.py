"""What is logged of a circuit, and of a model that has none yet: numbers by name, never missing or infinite."""

from __future__ import annotations

import math

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.wiring import matrices
from sparselit.transformer import Transformer

#: TensorBoard's page: sparsity and circuit size side by side.
LAYOUT = {
    "sparsity and circuit size": {
        "density": ["Multiline", ["density/total", "density/target"]],
        "circuit size": ["Multiline", ["circuit/edges", "circuit/nodes", "circuit/null_edges"]],
        "circuit loss": ["Multiline", ["circuit/loss", "circuit/necessity"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "circuit/accuracy"]],
    }
}


def figures(circuit: Circuit) -> dict[str, float]:
    """What is logged of a circuit: scores on the report split, nats and shares."""
    evidence = circuit.evidence
    return {
        "found": 1.0,
        "edges": float(circuit.size["edges"]),
        "nodes": float(circuit.size["nodes"]),
        "loss": evidence["held_out"]["task_loss"],
        "accuracy": evidence["held_out"]["accuracy"],
        "necessity": evidence["complement"]["task_loss"],
        "unexplained": evidence["unexplained"],
        "null_edges": float(evidence["nulls"]["random_orders"]["median"]),
    }


def without_circuit(model: Transformer) -> dict[str, float]:
    """What is logged where there is no circuit: the size of the whole model, the scores of guessing."""
    size = {"edges": nonzeros(model), "nodes": channels(model), "null_edges": nonzeros(model)}
    guess = math.log(model.unembed.out_features)
    return {"found": 0.0, **size, "loss": guess, "accuracy": 0.0, "necessity": 0.0, "unexplained": 1.0}


def nonzeros(model: Transformer) -> float:
    """Number of edges of the whole model."""
    return float(sum(int(model.get_parameter(name).count_nonzero()) for name in matrices(model)))


def density(model: Transformer) -> float:
    """Share of non-zero weights over all matrices, the bigram table (never sparsified) left out."""
    names = [name for name in matrices(model) if not name.startswith("bigram")]
    numel = sum(model.get_parameter(name).numel() for name in names)
    return sum(int(model.get_parameter(name).count_nonzero()) for name in names) / numel


def channels(model: Transformer) -> float:
    """Number of nodes that a circuit could have: channels of every site that joins edges, tokens and positions."""
    sizes: dict[str, int] = {}
    for name, bundle in matrices(model).items():
        shape = model.get_parameter(name).shape
        sizes[bundle.target] = shape[bundle.target_axis]
        sizes[bundle.source.replace(".attn.z", ".attn.v")] = shape[1 - bundle.target_axis]
    return float(sum(sizes.values()))
