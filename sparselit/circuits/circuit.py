"""A circuit: data about a model, never a changed model. The fields are those of ``circuit.json``."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from sparselit.circuits.claims import Certificate, Evidence
from sparselit.circuits.criterion import Bound
from sparselit.circuits.run.ablation import Ablation
from sparselit.data.behaviour import PromptFile
from sparselit.errors import SparselitError
from sparselit.model.site_table import Shape
from sparselit.model.wiring import Place, biases, matrices
from sparselit.runs.json_record import APART, LEFT_OUT, Count, read, since, write
from sparselit.runs.machine import MadeOn

FORMAT, VERSION = "sparselit-circuit", 4
#: Versions that can be read: in the first, evidence had fewer parts; the first two have no seal, the first
#: three no adversary.
VERSIONS = (1, 2, 3, 4)
#: What stands in a file for the record alone: nothing in the files can show whether it is true.
FOR_THE_RECORD = (
    "task.class_path",
    "task.init_args",
    "task.vocabulary: words that no prompt has",
    "model.config: keys that change nothing in this model, such as max_length without positions",
    "search",
    "made_on",
    "evidence.nulls.searched: that a search was run, and found nothing smaller",
    "evidence.adversary: that no other edges are worse",
)
#: Whether a file is as it was written: a version without a seal has nothing to say of that.
Seal = Literal["intact", "broken", "none"]
#: The first version that has one, and what stands in a file around the fields of a circuit.
_SEALED, _ENVELOPE = 3, ("format", "version", "for_the_record", "seal")


class KeptEdge(NamedTuple):
    """One weight of a circuit: its place, and exactly its value in the weights."""

    parameter: str
    row: Count
    column: Count
    weight: float


class KeptBias(NamedTuple):
    """One bias of a circuit, and exactly its value in the weights."""

    parameter: str
    channel: Count
    value: float


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """The full model that a circuit belongs to.

    Attributes:
        weights: the safetensors file beside the circuit's; empty until it is written.
        hash: of its tensors, see :func:`model_hash`.
        config: arguments of :class:`sparselit.model.transformer.Transformer`, by name.
    """

    weights: str = ""
    hash: str
    config: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True)
class TaskRecord:
    """The task that drew the prompts.

    Attributes:
        class_path: its class.
        init_args: its arguments.
        vocabulary: the tokens as text, in the order of their numbers.
        strata: kinds of prompts.
        splits: prompt files by split; empty until they are written.
        corpus: hash of the texts that a language model was trained on; None where there are none.
    """

    class_path: str
    init_args: Mapping[str, Any]
    vocabulary: tuple[str, ...]
    strata: tuple[str, ...]
    splits: Mapping[str, PromptFile] = field(default_factory=dict)
    corpus: str | None = field(default=None, metadata=LEFT_OUT)

    @property
    def name(self) -> str:
        """The class without its module."""
        return self.class_path.rpartition(".")[2]


@dataclass(frozen=True)
class Measured(Bound):
    """A stated bound with the circuit's value on the report split."""

    value: float = field(kw_only=True)


@dataclass(frozen=True, kw_only=True)
class Size:
    """How large a circuit is.

    Attributes:
        nodes: channels that are an end of an edge or carry a bias.
        edges: weights.
        free: parameters that stay without being edges.
    """

    nodes: Count
    edges: Count
    free: Count


@dataclass(frozen=True, kw_only=True)
class SearchRecord:
    """What found a circuit, and what it cost: sets of edges tried, and passes over discovery examples.

    Attributes:
        tried: of a search that compares several circuits, the edges and biases of each, by what found it.
    """

    class_path: str
    init_args: Mapping[str, Any]
    evaluations: Count
    forwards: Count
    backwards: Count
    tried: Mapping[str, Count] | None = field(default=None, metadata=LEFT_OUT)


@dataclass(frozen=True, kw_only=True)
class EdgeSet:
    """Some edges of a model and what they are to do, without anything that was found out about them.

    Attributes:
        model: the full model.
        task: the task.
        criterion: the stated bounds.
        ablation: what a removed edge contributes.
        nodes: channels by site.
        edges: in the order of the forward pass.
        biases: in the same order.
        size: how many there are.
        path: the circuit's file, beside which weights and prompts lie; no part of it.
    """

    model: ModelRecord
    task: TaskRecord
    criterion: tuple[Bound, ...]
    ablation: Ablation
    nodes: Mapping[str, tuple[Count, ...]]
    edges: tuple[KeptEdge, ...]
    biases: tuple[KeptBias, ...]
    size: Size
    path: Path | None = field(default=None, compare=False, repr=False, metadata=APART)

    @cached_property
    def weights(self) -> dict[Place, float]:
        """The values of the edges, then of the biases, by (parameter name, row, column)."""
        found = {edge[:3]: edge.weight for edge in self.edges}
        return found | {(bias.parameter, bias.channel, 0): bias.value for bias in self.biases}

    @property
    def places(self) -> list[Place]:
        """The edges, then the biases, as (parameter name, row, column)."""
        return [edge[:3] for edge in self.edges] + [(name, channel, 0) for name, channel, _ in self.biases]


@dataclass(frozen=True, kw_only=True)
class Circuit(EdgeSet):
    """A circuit: its edges, and the evidence for them. The fields are described in ``docs/reference/circuit_file.md``.

    Attributes:
        criterion: the stated bounds, and what was measured.
        certificate: what the removal of each unit does.
        evidence: what speaks for the circuit and against it.
        search: what found it.
        made_on: the machine that its figures were computed on; older files do not say.
        version: of the file.
        seal: whether the file that it was read from is as it was written.
    """

    criterion: tuple[Measured, ...]
    certificate: Certificate
    evidence: Evidence
    search: SearchRecord
    made_on: MadeOn | None = field(default=None, metadata=since(3))
    version: int = field(default=VERSION, metadata=APART)
    seal: Seal = field(default="none", compare=False, metadata=APART)

    @staticmethod
    def from_json(content: object) -> Circuit:
        """A circuit from the parsed content of its file.

        Args:
            content: what ``json.loads`` gives.

        Raises:
            SparselitError: it is no circuit, of another version, or a field is missing, unknown or of another type.
        """
        if not isinstance(content, dict) or content.get("format") != FORMAT:
            raise SparselitError(f"this is no circuit: its format is not {FORMAT!r}")
        version = content.get("version")
        if type(version) is not int or version not in VERSIONS:
            raise SparselitError(f"it has version {version}; this sparselit reads {' and '.join(map(str, VERSIONS))}")
        around = _ENVELOPE if version >= _SEALED else _ENVELOPE[:2]
        fields = {name: value for name, value in content.items() if name not in around}
        sealed: Seal = "none"
        if version >= _SEALED:
            if content.get("for_the_record") != _for_the_record(version):
                raise SparselitError("the field 'for_the_record' is missing or not what the format says")
            if type(content.get("seal")) is not str:
                raise SparselitError("the field 'seal' is missing or not a text")
            sealed = "intact" if content["seal"] == seal_of(content) else "broken"
        circuit = replace(read(Circuit, fields, version), version=version, seal=sealed)
        _check_places(circuit)
        return circuit

    def as_json(self) -> dict[str, Any]:
        """The content of ``circuit.json``, with its seal."""
        content = {"format": FORMAT, "version": self.version, **write(self, self.version)}
        if self.version >= _SEALED:
            content["for_the_record"] = _for_the_record(self.version)
            content["seal"] = seal_of(content)
        return content

    @property
    def generalises(self) -> bool:
        """Whether the stated bounds hold on the report split, by the figures of the record."""
        return all(bound.holds(bound.value) for bound in self.criterion)


def _for_the_record(version: int) -> list[str]:
    """:data:`FOR_THE_RECORD` as a version says it: before the fourth there was no adversary."""
    return list(FOR_THE_RECORD if version >= VERSION else FOR_THE_RECORD[:-1])


def seal_of(content: Mapping[str, Any]) -> str:
    """SHA-256 over a record's content in JSON, keys sorted, without spaces and without the seal itself.

    It shows that a record was edited. It is no signature: who edits a record can seal it anew, and then what ``verify``
    recomputes speaks against it.
    """
    rest = {name: value for name, value in content.items() if name != "seal"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True, separators=(",", ":")).encode()).hexdigest()


def _check_places(circuit: Circuit) -> None:
    """Refuse edges, biases and nodes that no model of the circuit's configuration has.

    Raises:
        SparselitError: the configuration is none, or the message names the edge, the bias or the node.
    """
    try:
        shape = Shape.of(circuit.model.config)
    except SparselitError as error:
        raise SparselitError(f"the field 'model.config' is wrong: {error}") from error
    sizes = {name: bundle.size(shape) for name, bundle in (matrices(shape) | biases(shape)).items()}

    def check(what: str, name: str, row: int, column: int) -> None:
        rows, columns = sizes.get(name, (0, 0))
        if row >= rows or column >= columns:
            text = f"{name} has {rows} rows and {columns} columns" if name in sizes else f"there is no {name}"
            raise SparselitError(f"{what} is no edge of the model: {text}")

    for i, (name, row, column, _) in enumerate(circuit.edges):
        check(f"edges[{i}]", name, row, column)
    for i, (name, channel, _) in enumerate(circuit.biases):
        check(f"biases[{i}]", name, channel, 0)
    for null, found in (circuit.evidence.nulls.searched or {}).items():
        for i, place in enumerate(found.places):
            check(f"evidence.nulls.searched.{null}.places[{i}]", *place)
    for name, channels in circuit.nodes.items():
        width = shape.width(name) if shape.has(name) else 0
        if any(channel >= width for channel in channels):
            raise SparselitError(f"nodes.{name} names channels that the model has not: it has {width} of them")


def model_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted tensors: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()
