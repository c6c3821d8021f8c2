"""The graph JSON of EAP-IG and of the MIB circuit track: heads and MLPs, joined through the residual stream.

Names are ``input``, ``a{layer}.h{head}``, ``m{layer}`` and ``logits``; an edge is ``source->target``, and into a head
``source->target<q>``, ``<k>`` or ``<v>``. All edges of a model are listed, as their reader expects. The circuit's edges
are channels: one between two blocks is in the graph where the circuit writes a channel of the residual stream in the
one and reads it in the other. Its score is the sum over these channels of the products of the weights.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from sparselit.circuits.circuit import Circuit
from sparselit.errors import SparselitError
from sparselit.model.site_table import Shape, site

Ends = dict[str, dict[int, float]]  # weight by residual channel, of each writer or reader


def head_graph(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """The graph as JSON.

    Raises:
        SparselitError: the model has a path that the format has no name for.
    """
    shape = Shape.of(circuit.model.config)
    if shape.bigram or shape.d_concatenated:
        raise SparselitError("eap-ig has no name for a bigram table or for positions beside the residual stream")
    writers, readers = _ends(circuit, shape)
    edges = {}
    for source, target in edges_of(shape):
        wrote, read = writers.get(source, {}), readers.get(target, {})
        shared = wrote.keys() & read.keys()
        score = sum(wrote[channel] * read[channel] for channel in shared)
        edges[f"{source}->{target}"] = {"score": score, "in_graph": bool(shared)}
    used = {name.partition("<")[0] for edge, row in edges.items() if row["in_graph"] for name in edge.split("->")}
    config = {
        "n_layers": shape.n_layers,
        "n_heads": shape.n_heads,
        "d_model": shape.d_model,
        "parallel_attn_mlp": False,
    }
    nodes = {name: {"in_graph": name in used} for name in nodes_of(shape)}
    return json.dumps({"cfg": config, "nodes": nodes, "edges": edges}, indent=1, allow_nan=False) + "\n"


def nodes_of(shape: Shape) -> list[str]:
    """The names of all nodes, in forward order."""
    names = ["input"]
    for layer in range(shape.n_layers):
        names += [*(f"a{layer}.h{head}" for head in range(shape.n_heads)), f"m{layer}"]
    return [*names, "logits"]


def edges_of(shape: Shape) -> Iterator[tuple[str, str]]:
    """All edges of a model, as source and target; the target of a head ends in ``<q>``, ``<k>`` or ``<v>``."""
    before = ["input"]
    for layer in range(shape.n_layers):
        heads = [f"a{layer}.h{head}" for head in range(shape.n_heads)]
        for target in [*(f"{head}<{letter}>" for head in heads for letter in "qkv")]:
            yield from ((source, target) for source in before)
        before += heads
        yield from ((source, f"m{layer}") for source in before)
        before.append(f"m{layer}")
    yield from ((source, "logits") for source in before)


def _ends(circuit: Circuit, shape: Shape) -> tuple[Ends, Ends]:
    """What each block writes to the residual stream and reads from it, summed over its own channels."""
    writers: Ends = defaultdict(lambda: defaultdict(float))
    readers: Ends = defaultdict(lambda: defaultdict(float))
    for (name, row, column), weight in circuit.weights.items():
        block, _, kind = name.rpartition(".")
        if kind == "bias":
            continue
        layer = site(f"{block.rpartition('.')[0]}.in").layer if block.startswith("layers.") else None
        part = block.rpartition(".")[2]
        if block.startswith("embed"):
            writers["input"][column] += weight
        elif part in ("q", "k", "v"):
            readers[f"a{layer}.h{row // shape.d_head}<{part}>"][column] += weight
        elif part == "o":
            writers[f"a{layer}.h{column // shape.d_head}"][row] += weight
        elif part == "up":
            readers[f"m{layer}"][column] += weight
        elif part == "down":
            writers[f"m{layer}"][row] += weight
        elif block == "unembed":
            readers["logits"][column] += weight
    return writers, readers
