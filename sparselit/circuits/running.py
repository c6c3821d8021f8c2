"""Running a circuit by itself, on the smallest transformer that holds it."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from sparselit.circuits.files import read_behaviour, read_model
from sparselit.circuits.run.ablation import prepare
from sparselit.circuits.run.compaction import compact
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.errors import SparselitError
from sparselit.model.wiring import Edges

if TYPE_CHECKING:
    from sparselit.circuits.circuit import EdgeSet


class Runner:
    """A circuit with its model, ready to run.

    Under zero ablation of models whose norm does not centre it runs on a compacted model, which has only the channels,
    heads and neurons of the circuit; otherwise it is the full model with the removed edges replaced.

    Args:
        circuit: one that was read from a file, or made from such; its edges must not change afterwards.

    Attributes:
        model: the full model.
        edges: its edges.
        kept: boolean (edge,), the circuit.
        small: the compacted model; None where there is nothing to gain.

    Raises:
        SparselitError: the circuit has no file, its weights cannot be read, or they lack one of its edges.
    """

    def __init__(self, circuit: EdgeSet) -> None:
        if circuit.path is None:
            raise SparselitError("a circuit that was never written has no weights to run on; write_circuit it first")
        self.model = read_model(circuit.path, circuit)
        ablation = circuit.ablation
        splits = read_behaviour(circuit.path, circuit).splits if ablation.kind == "mean" else {}
        self._replacement = prepare(self.model, ablation, splits)
        self.edges = Edges.of(self.model, ablation.removes_biases)
        try:
            self.kept = self.edges.find(circuit.places)
        except KeyError as error:
            raise SparselitError(f"{circuit.path}: its model has no edge {error}; `sparselit verify` it") from error
        small = compact(self.model, self.edges, self.kept, self._replacement)
        self.small = None if small is None else small.model
        masks = self.edges.masks(self.kept) if small is None else small.edges.masks(self.kept[small.origin])
        self._masks = masks

    @torch.no_grad()
    def logits(self, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Next-token logits with only the circuit's edges.

        Args:
            tokens: (batch, position) int64, numbers of the circuit's vocabulary.
            at: (batch,) int64, the one position of each sequence that is wanted; None for all.
            corrupted: (batch, position), the corrupted prompts, which resample ablation needs.

        Returns:
            Logits (batch, position, vocabulary), or (batch, vocabulary) with ``at``.

        Raises:
            SparselitError: tokens of another shape or range, or no corrupted prompts under resample ablation.
        """
        words = self.model.unembed.out_features
        if tokens.ndim != 2 or tokens.dtype != torch.int64 or not bool(((tokens >= 0) & (tokens < words)).all()):
            raise SparselitError(f"tokens must be an int64 tensor (batch, position) of numbers below {words}")
        if self._replacement.ablation.kind == "resample" and corrupted is None:
            raise SparselitError("the circuit's ablation is resample: give the corrupted prompts as corrupted")
        known = context(self.model, self._replacement, tokens, corrupted, at)
        model = self.model if self.small is None else self.small
        return masked_logits(model, self._masks, self._replacement, tokens, at, corrupted, known)
