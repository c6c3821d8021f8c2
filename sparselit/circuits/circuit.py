"""A circuit: data about a model, never a changed model. The fields are those of ``circuit.json``."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from sparselit.circuits.run.ablation import Ablation, as_ablation
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import BIAS, Edges, biases, live_channels

if TYPE_CHECKING:
    from sparselit.circuits.running import Runner

FORMAT, VERSION = "sparselit-circuit", 2
#: Versions that can be read: in the first, evidence had fewer parts.
VERSIONS = (1, 2)
Edge = tuple[str, int, int]


@dataclass
class Circuit:
    """The edges and nodes of a circuit, what it is a circuit of, and the evidence for it.

    The fields are described in ``docs/reference/circuit_file.md``.
    """

    model: dict[str, Any]
    task: dict[str, Any]
    criterion: list[dict[str, Any]]
    ablation: dict[str, Any]
    nodes: dict[str, list[int]]
    edges: list[list[Any]]
    biases: list[list[Any]]
    size: dict[str, int]
    certificate: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, Any] = field(default_factory=dict)
    search: dict[str, Any] = field(default_factory=dict)
    version: int = VERSION
    #: The file it was read from or written to; no part of it.
    path: Path | None = field(default=None, compare=False, repr=False)

    def as_json(self) -> dict[str, Any]:
        """The content of ``circuit.json``."""
        content = asdict(self)
        del content["path"]
        return {"format": FORMAT, "version": self.version, **content}

    def run(self, tokens: Tensor, at: Tensor | None = None, corrupted: Tensor | None = None) -> Tensor:
        """Logits of the circuit alone; see :meth:`sparselit.circuits.running.Runner.logits`."""
        return self.runner.logits(tokens, at, corrupted)

    @cached_property
    def runner(self) -> Runner:
        """The circuit ready to run: its model is read once, and made as small as its edges allow."""
        from sparselit.circuits.running import Runner  # running imports this module

        return Runner(self)

    @property
    def places(self) -> list[Edge]:
        """The edges, then the biases, as (parameter name, row, column)."""
        return [(name, row, column) for name, row, column, _ in self.edges] + [(n, i, 0) for n, i, _ in self.biases]

    @property
    def ablation_text(self) -> str:
        """The ablation in words."""
        return str(as_ablation(self.ablation))

    @staticmethod
    def load(path: str | Path) -> Circuit:
        """Read a ``circuit.json``; see :func:`sparselit.circuits.files.read_circuit`."""
        from sparselit.circuits.files import read_circuit  # files imports this module

        return read_circuit(Path(path))


def model_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the sorted tensors: name, dtype, shape and bytes of each."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.flatten().view(torch.uint8).numpy().tobytes() if tensor.numel() else b"")
    return digest.hexdigest()


def nodes_of(edges: Edges, kept: Tensor) -> dict[str, list[int]]:
    """Channels of each site that are an end of a kept edge or bias, ascending; sites without any are left out."""
    nodes: dict[str, set[int]] = {}
    for index in kept.nonzero()[:, 0].tolist():
        for site, channel in edges.endpoints(index):
            if site != BIAS:
                nodes.setdefault(site, set()).add(channel)
    return {site: sorted(channels) for site, channels in sorted(nodes.items())}


def free_parameters(model: Transformer, edges: Edges, kept: Tensor, ablation: Ablation) -> int:
    """Parameters that stay without being edges: the biases kept, gains of channels that are read, sinks of live heads.

    Where the ablation leaves biases alone (a constant is its own mean), all non-zero ones count.
    """
    live = live_channels(edges, kept)
    parameters = dict(model.named_parameters(remove_duplicate=False))
    if ablation.removes_biases:
        count = int((kept & edges.is_bias).sum())
    else:
        count = sum(int(parameters[name].count_nonzero()) for name in biases(model))
    for name, parameter in parameters.items():
        site, _, kind = name.rpartition(".")
        if "norm" in site:
            block = site.rpartition(".")[0] or "unembed"
            read = live[f"{block}.in"]
            channels = read[: parameter.numel()] if "position_norm" not in site else read[-parameter.numel() :]
            count += int(((parameter != 0) & channels.to(parameter.device)).sum())
        elif kind == "sink":
            heads = (live[f"{site}.q"] | live[f"{site}.v"]).unflatten(0, (model.n_heads, -1)).any(1)
            count += int(heads.sum())
    return count
