"""What is logged of a circuit, and of a model that has none yet: numbers by name, never missing or infinite."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import combinations

from torch import nn

from sparselit.circuits.circuit import Circuit
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices

#: TensorBoard's page: sparsity and circuit size side by side.
LAYOUT = {
    "sparsity and circuit size": {
        "density": ["Multiline", ["density/total", "density/target"]],
        "circuit size": ["Multiline", ["circuit/edges", "circuit/nodes", "circuit/null_edges"]],
        "circuit loss": ["Multiline", ["circuit/loss", "circuit/necessity"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "circuit/accuracy"]],
    }
}
#: What is logged of a circuit, or where there is none.
FIGURES = ("found", "edges", "nodes", "loss", "accuracy", "necessity", "unexplained", "null_edges")


def figures(circuit: Circuit) -> dict[str, float]:
    """What is logged of a circuit: scores on the report split, nats and shares."""
    evidence = circuit.evidence
    return {
        "found": 1.0,
        "edges": float(circuit.size.edges),
        "nodes": float(circuit.size.nodes),
        "loss": evidence.held_out.task_loss,
        "accuracy": evidence.held_out.accuracy,
        "necessity": evidence.complement.task_loss,
        "unexplained": evidence.unexplained,
        "null_edges": float(evidence.nulls.random_orders.median),
    }


def without_circuit(model: Transformer) -> dict[str, float]:
    """What is logged where there is no circuit: the size of the whole model, the scores of guessing."""
    size = {"edges": nonzeros(model), "nodes": channels(model), "null_edges": nonzeros(model)}
    guess = math.log(model.unembed.out_features)
    return {"found": 0.0, **size, "loss": guess, "accuracy": 0.0, "necessity": 0.0, "unexplained": 1.0}


def combined(found: Mapping[str, Mapping[str, float]]) -> dict[str, float]:
    """What is logged of several circuits of one model: those of its tasks, and what they amount to.

    Sizes are geometric means, as in Gao et al. 2025, §3; ``found`` says whether all were; scores are plain means.

    Args:
        found: figures by task; a single task, whose name is empty, has them unchanged.
    """
    if list(found) == [""]:
        return dict(found[""])
    values = {
        f"{task}/{name}": of[name] for task, of in found.items() for name in ("edges", "nodes", "loss", "accuracy")
    }
    for name in next(iter(found.values())):
        each = [of[name] for of in found.values()]
        if name == "found":
            values[name] = min(each)
        elif name in ("edges", "nodes", "null_edges"):
            values[name] = math.exp(sum(math.log(max(value, 1.0)) for value in each) / len(each))
        else:
            values[name] = sum(each) / len(each)
    return values


def overlap(circuits: Sequence[Circuit]) -> float:
    """Share of edges that two of the circuits have in common, of those that either has; the mean over all pairs."""
    edges = [{edge[:3] for edge in circuit.edges} for circuit in circuits]
    shares = [len(one & other) / max(len(one | other), 1) for one, other in combinations(edges, 2)]
    return sum(shares) / len(shares) if shares else 0.0


def nonzeros(model: Transformer) -> float:
    """Number of edges of the whole model."""
    return float(sum(int(model.get_parameter(name).count_nonzero()) for name in matrices(model)))


def density(model: Transformer) -> float:
    """Share of non-zero weights over all searched matrices."""
    weights = searched(model)
    return sum(int(weight.count_nonzero()) for weight in weights) / sum(weight.numel() for weight in weights)


def searched(model: Transformer) -> list[nn.Parameter]:
    """All matrices of a model, the bigram table (never sparsified) left out."""
    return [model.get_parameter(name) for name in matrices(model) if not name.startswith("bigram")]


def channels(model: Transformer) -> float:
    """Number of nodes that a circuit could have: channels of every site that joins edges, tokens and positions."""
    sizes: dict[str, int] = {}
    for name, bundle in matrices(model).items():
        shape = model.get_parameter(name).shape
        sizes[bundle.target] = shape[bundle.target_axis]
        sizes[bundle.source.replace(".attn.z", ".attn.v")] = shape[1 - bundle.target_axis]
    return float(sum(sizes.values()))
