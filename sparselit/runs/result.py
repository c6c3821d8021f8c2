"""What a run has come to, as data: the content of ``result.json`` (docs/reference/result_file.md).

Reading needs neither torch nor Lightning, so that listing many runs is quick.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sparselit.errors import SparselitError
from sparselit.runs.json_record import read, write
from sparselit.runs.plain_file import read_json

FORMAT, VERSION = "sparselit-result", 1
#: Why a run ended, and how the summary says it.
ENDED = {
    "max_steps": "ended by trainer.max_steps",
    "max_epochs": "ended by trainer.max_epochs",
    "max_time": "ended by trainer.max_time",
    "early_stopping": "ended by early stopping",
    "stopped": "ended by a callback",
    "interrupted": "interrupted",
    "failed": "failed",
    "running": "running, or killed",
}
#: Keys of a configuration that say where files lie and nothing of what is computed.
_PATH_KEYS = ("config", "ckpt_path", "default_root_dir", "dirpath", "save_dir")


@dataclass(frozen=True)
class Steps:
    """Optimizer steps: ``asked`` is ``trainer.max_steps`` (None: no such limit), ``done`` those taken in all."""

    asked: int | None
    done: int


@dataclass(frozen=True)
class Seconds:
    """Wall time in seconds: ``training`` of the whole fit, with ``discovery``, that of the searches, in it."""

    training: float
    discovery: float


@dataclass(frozen=True)
class Accuracy:
    """Accuracy on the prompts of one kind.

    Args:
        split: where the prompts come from, e.g. ``report``.
        stratum: which of them; ``all`` for all.
        right: prompts answered right.
        n: prompts.
        value: share of right answers, in [0, 1].
        interval: its 95 % interval (Wilson).
    """

    split: str
    stratum: str
    right: int
    n: int
    value: float
    interval: tuple[float, float]


@dataclass(frozen=True)
class Loss:
    """Cross-entropy over the vocabulary on one split, nats.

    Args:
        split: where the prompts or texts come from, e.g. ``report``.
        nats_per_token: mean over the answers, or over every next token of a text.
        nats_per_byte: the same total over the bytes of the text, which compares different vocabularies; None where the
            data are no texts.
    """

    split: str
    nats_per_token: float
    nats_per_byte: float | None


@dataclass(frozen=True)
class TensorDensity:
    """Entries of one tensor, and the share ``density`` of them that is not zero."""

    name: str
    shape: tuple[int, ...]
    numel: int
    nonzero: int
    density: float


@dataclass(frozen=True)
class Density:
    """How sparse the model is; shares in [0, 1].

    Args:
        total: over all parameters.
        matrices: over those with at least two dimensions; None without any.
        target: of the sparsified tensors where their schedules end; None without a sparsifier.
        reached: of the same tensors at the end.
        tensors: one row for each tensor; tied ones once.
    """

    total: float
    matrices: float | None
    target: float | None
    reached: float | None
    tensors: tuple[TensorDensity, ...]


@dataclass(frozen=True)
class MetBound:
    """A bound of a criterion (one of ``at_most`` and ``at_least``) with the ``value`` on the report split."""

    metric: str
    at_most: float | None
    at_least: float | None
    value: float
    holds: bool


@dataclass(frozen=True)
class FoundCircuit:
    """Size of a circuit and the evidence for it, on the report split.

    Args:
        task: which task of a mixture; empty otherwise.
        step: optimizer steps after which it was sought.
        path: its file, relative to the run folder.
        edges: weights in it.
        nodes: channels in it.
        free: parameters that stay without being edges.
        n: report examples.
        loss: task loss of the circuit alone, nats.
        accuracy: of the circuit alone, in [0, 1].
        kl: mean divergence of the circuit from the full model, nats.
        necessity: task loss of the full model without exactly these edges, nats.
        unexplained: share of the gap in loss between the empty circuit and the full model.
        null_edges: edges that a random order needs for the same criterion, median.
        searched: edges that the same search needs where there is nothing to find, by null (None: none found); None
            where this was not configured.
        criterion: the stated bounds.
        ablation: what a removed edge contributes: kind, distribution, per, norm.
        granularity: what was removed and certified as one.
        units: how many of these the circuit has.
        complete: every unit was tried against the final circuit.
        minimal: no single unit can go.
        flags: names of what speaks against the circuit.
        seconds: wall time of the search; None where it is not known.
    """

    task: str
    step: int
    path: str
    edges: int
    nodes: int
    free: int
    n: int
    loss: float
    accuracy: float
    kl: float
    necessity: float
    unexplained: float
    null_edges: float
    searched: dict[str, int | None] | None
    criterion: tuple[MetBound, ...]
    ablation: dict[str, str | None]
    granularity: str
    units: int
    complete: bool
    minimal: bool
    flags: tuple[str, ...]
    seconds: float | None

    @property
    def generalises(self) -> bool:
        """Whether the stated bounds hold on the report split."""
        return all(bound.holds for bound in self.criterion)


@dataclass(frozen=True)
class Circuits:
    """The circuits of a run.

    Args:
        searches: searches of the run so far.
        reason: why the last search found none; empty if it did.
        edges: edges of the last circuit; of several tasks the geometric mean. None where there is none.
        overlap: share of edges that two tasks' last circuits have in common; None unless there are several.
        found: by step, then by task.
    """

    searches: int
    reason: str
    edges: float | None
    overlap: float | None
    found: tuple[FoundCircuit, ...]

    @property
    def latest(self) -> tuple[FoundCircuit, ...]:
        """The last circuit of each task."""
        return tuple({circuit.task: circuit for circuit in self.found}.values())


@dataclass(frozen=True)
class Versions:
    """Versions of what computed the run."""

    sparselit: str
    torch: str
    lightning: str
    python: str


@dataclass(frozen=True)
class Machine:
    """What computed the run; circuit sizes differ between instruction sets.

    Args:
        processor: as the operating system names it.
        capability: instruction set that torch's kernels use, e.g. ``AVX2``.
        threads: CPU threads of torch.
        device: e.g. ``cpu``, or the name of the GPU.
        processes: processes that trained together.
        precision: of the training, as Lightning names it, e.g. ``32-true``.
    """

    processor: str
    capability: str
    threads: int
    device: str
    processes: int
    precision: str


@dataclass(frozen=True)
class Result:
    """What a run has come to.

    Args:
        name: of the run, e.g. ``quotes/version_0``.
        task: class of the task.
        model: class of the model.
        seed: None where nothing was seeded.
        digest: of the configuration, see :func:`digest`.
        ended: why the run ended, a key of :data:`ENDED`.
        steps: configured and done.
        seconds: wall time.
        accuracies: on held-out prompts, by split and stratum.
        losses: on the same, by split.
        density: None while the run has only begun.
        circuits: None where none were sought.
        checkpoint: the last one, relative to the run folder; None without one.
        problems: lines that say what is wrong with the run, e.g. a budget that was missed.
        advice: lines that say what is in the way, with its figure and the keys to try.
        versions: of the software.
        machine: where it ran.
    """

    name: str
    task: str
    model: str
    seed: int | None
    digest: str
    ended: str
    steps: Steps
    seconds: Seconds
    accuracies: tuple[Accuracy, ...]
    losses: tuple[Loss, ...]
    density: Density | None
    circuits: Circuits | None
    checkpoint: str | None
    problems: tuple[str, ...]
    advice: tuple[str, ...]
    versions: Versions
    machine: Machine

    def __post_init__(self) -> None:
        if self.ended not in ENDED:
            raise SparselitError(f"ended must be one of {', '.join(ENDED)}, got {self.ended!r}")

    def accuracy(self, split: str, stratum: str = "all") -> float | None:
        """Accuracy on one kind of prompts, in [0, 1]; None where it was not measured.

        Args:
            split: name of the split.
            stratum: name of the stratum; ``all`` for the whole split.
        """
        found = (row.value for row in self.accuracies if (row.split, row.stratum) == (split, stratum))
        return next(found, None)

    def as_json(self) -> dict[str, Any]:
        """The content of ``result.json``."""
        return {"format": FORMAT, "version": VERSION, **write(self)}

    def text(self) -> str:
        """``result.json`` as it is written."""
        return json.dumps(self.as_json(), indent=1, ensure_ascii=False) + "\n"

    @classmethod
    def from_json(cls, content: object) -> Result:
        """A result from the content of ``result.json``.

        Raises:
            SparselitError: it has another format or version, or a field is wrong; the message names it.
        """
        if not isinstance(content, Mapping) or content.get("format") != FORMAT:
            raise SparselitError(f"this is not a result: its format is not {FORMAT!r}")
        if content.get("version") != VERSION or isinstance(content["version"], bool):
            raise SparselitError(f"version is {content.get('version')!r}; this sparselit reads {VERSION}")
        fields = {name: value for name, value in content.items() if name not in ("format", "version")}
        return read(cls, {"advice": [], **fields})  # files of before have none

    @classmethod
    def read(cls, path: Path) -> Result:
        """Read and check a ``result.json``.

        Raises:
            SparselitError: it is missing or broken; one line, which begins with the path.
        """
        try:
            content = read_json(path)
        except OSError as error:
            raise SparselitError(f"{path} cannot be read: {error.strerror}") from error
        except ValueError as error:
            raise SparselitError(f"{path} is not JSON: {error}") from error
        try:
            return cls.from_json(content)
        except SparselitError as error:
            raise SparselitError(f"{path}: {error}") from error


def digest(configuration: Mapping[str, Any]) -> str:
    """SHA-256 over a complete configuration in canonical form: keys sorted, names of paths and of the run left out.

    Args:
        configuration: the content of ``config.yaml``.
    """

    def canonical(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {str(key): canonical(item) for key, item in value.items() if key not in _PATH_KEYS}
        return [canonical(item) for item in value] if isinstance(value, list | tuple) else value

    computed = {key: value for key, value in configuration.items() if key != "name"}
    text = json.dumps(canonical(computed), sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()
