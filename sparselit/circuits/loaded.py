"""A circuit's file, loaded: the sub-network that it describes, with its record and its examples."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from sparselit.circuits.circuit import Circuit, EdgeSet, model_hash
from sparselit.circuits.files import read_behaviour, read_circuit, read_model
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.behaviour import Behaviour, prompt_record
from sparselit.errors import SparselitError


@dataclass(frozen=True, eq=False)
class Recorded(Subnetwork):
    """A sub-network with its record and its examples.

    Attributes:
        circuit: the record.
        behaviour: the examples.
        path: the circuit's file.
    """

    circuit: EdgeSet
    behaviour: Behaviour
    path: Path

    def run(self, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Next-token logits with only the circuit's edges, on the smallest transformer that holds them.

        It has only the channels, heads and neurons of the circuit, whatever the ablation; where AbsTopK weighs values
        that are known only once the corrupted prompt is run, it has all of those.

        Args:
            tokens: (batch, position) int64, numbers of the circuit's vocabulary.
            at: (batch,) int64, the one position of each sequence that is computed; None for all.
            corrupted: (batch, position), the corrupted prompts, which resample ablation needs.

        Returns:
            Logits (batch, position, vocabulary), or (batch, vocabulary) with ``at``.

        Raises:
            SparselitError: tokens of another shape or range, or no corrupted prompts under resample ablation.
        """
        words = self.model.unembed.out_features
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not bool(((tokens >= 0) & (tokens < words)).all()):
            raise SparselitError(f"tokens must be an int64 tensor (batch, position) of numbers below {words}")
        if self.ablation.kind == "resample" and corrupted is None:
            raise SparselitError("the circuit's ablation is resample: give the corrupted prompts as corrupted")
        return super().run(tokens, at, corrupted)


@dataclass(frozen=True, eq=False)
class Loaded(Recorded):
    """The sub-network of a circuit's file, with its evidence.

    Attributes:
        circuit: what the file says.
    """

    circuit: Circuit

    @cached_property
    def problem(self) -> Problem:
        """The search's problem: its bounds (those of the certificate) on the discovery split."""
        criterion = self.circuit.certificate.criterion or self.circuit.criterion
        discovery = self.behaviour.splits["discovery"]
        return Problem(self.engine, discovery, criterion, self.circuit.certificate.granularity)


def load(path: str | Path) -> Loaded:
    """Read a circuit with its weights and prompts, ready to run.

    Raises:
        SparselitError: a file is missing or cannot be read, or the circuit names an edge that its model has not.
    """
    path = Path(path)
    circuit = read_circuit(path)
    found = beside(path, circuit)
    return Loaded(found.engine, found.kept, circuit, found.behaviour, path)


def beside(path: Path, circuit: EdgeSet) -> Recorded:
    """A record with the weights and the prompts that lie beside ``path``.

    Args:
        path: the circuit's file.
        circuit: what was read from it.

    Raises:
        SparselitError: a file is missing or cannot be read, or the record names an edge that its model has not.
    """
    model = read_model(path, circuit)
    behaviour = read_behaviour(path, circuit)
    if model_hash(model.state_dict()) != circuit.model.hash:
        raise SparselitError(f"{path}: its weights file holds another model; `sparselit verify {path}` says more")
    for split, row in circuit.task.splits.items():
        if prompt_record(path.parent / row.file, path.parent).sha256 != row.sha256:
            raise SparselitError(f"{path}: its {split} prompts have changed; `sparselit verify {path}` says more")
    if len(behaviour.vocabulary) > model.unembed.out_features:
        raise SparselitError(f"{path}: the task has {len(behaviour.vocabulary)} tokens, the model has fewer")
    engine = FastEngine.of(model, circuit.ablation, behaviour.splits)
    try:
        kept = engine.edges.find(circuit.places)
    except KeyError as error:
        raise SparselitError(f"{path}: its model has no edge {error}; `sparselit verify {path}` says more") from error
    engine.focus(kept)
    return Recorded(engine, kept, circuit, behaviour, path)
