"""The edges of a circuit as a table, and its weights as tensors."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import torch
from safetensors.torch import save

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.files import read_model
from sparselit.circuits.use.graph import graph_of
from sparselit.model.wiring import biases, matrices

#: The columns of the table; ``source`` of a bias is empty.
COLUMNS = ("parameter", "row", "column", "weight", "source", "target")


def edge_rows(circuit: Circuit, path: Path, prompt: str | None) -> str:
    """CSV: the edges in the order of the forward pass, then the biases; weights in full."""
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(COLUMNS)
    for link in graph_of(circuit).links:
        source = "" if link.source is None else f"{link.source.site}:{link.source.channel}"
        end = f"{link.target.site}:{link.target.channel}"
        writer.writerow([link.parameter, link.row, link.column, repr(link.weight), source, end])
    return file.getvalue()


def tensors(circuit: Circuit, path: Path, prompt: str | None) -> bytes:
    """Safetensors: the model with every removed weight at zero, and its configuration among the metadata.

    What stays whatever the circuit is (gains, sinks, biases under ablations that leave them) is as in the model. Under
    zero ablation the file computes the circuit; under others, what a removed edge contributes is not in it, and the
    metadata say so.
    """
    model = read_model(path, circuit)
    state = {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}
    kept: dict[str, torch.Tensor] = {}
    for name, row, column in circuit.places:
        mask = kept.setdefault(name, torch.zeros(state[name].shape, dtype=torch.bool))
        mask[(row, column) if mask.ndim == 2 else row] = True
    removable = set(matrices(model)) | (set(biases(model)) if circuit.ablation.removes_biases else set())
    for name in removable & set(state):
        state[name] = state[name] * kept.get(name, torch.zeros(state[name].shape, dtype=torch.bool))
    notes = {
        "config": {**circuit.model.config, "tied": False},
        "ablation": circuit.ablation.as_json(),
        "model_hash": circuit.model.hash,
    }  # under one key: the library writes several in any order
    return save({name: tensor.contiguous() for name, tensor in state.items()}, {"sparselit": json.dumps(notes)})
