"""What a run has come to, gathered from its trainer and its folder as a :class:`sparselit.runs.result.Result`."""

from __future__ import annotations

import math
import platform
from collections.abc import Iterable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, Timer
from lightning.pytorch.callbacks.early_stopping import EarlyStoppingReason

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.criterion import Bound
from sparselit.circuits.files import read_circuit
from sparselit.data.splits import TESTED
from sparselit.errors import SparselitError
from sparselit.runs.folder import circuits_in
from sparselit.runs.json_record import write
from sparselit.runs.machine import MadeOn
from sparselit.runs.result import (
    Accuracy,
    Circuits,
    Density,
    FoundCircuit,
    Loss,
    Machine,
    MetBound,
    TensorDensity,
    Versions,
)
from sparselit.runs.timing import read_timing
from sparselit.sparsity.density import density_table, total
from sparselit.statistics.intervals import wilson
from sparselit.training.circuit_metrics import combined, figures, overlap
from sparselit.training.discovery import Discovery
from sparselit.training.sparsifier import sparsifiers_of

#: Splits whose accuracies are shown, in this order.
SHOWN = ("val", *TESTED)


def accuracies(metrics: Mapping[str, float]) -> tuple[Accuracy, ...]:
    """The accuracies among logged metrics, ``report/accuracy/<stratum>`` with its ``report/n/<stratum>``.

    Args:
        metrics: logged values by name, after validation or test.
    """
    found = []
    for split in SHOWN:
        prefix = f"{split}/accuracy"
        for name, value in metrics.items():
            if name == prefix or name.startswith(f"{prefix}/"):
                stratum = name[len(prefix) + 1 :]
                n = round(metrics.get(f"{split}/n/{stratum}" if stratum else f"{split}/n", 0))
                if n:
                    right = round(float(value) * n)
                    found.append(Accuracy(split, stratum or "all", right, n, right / n, wilson(right, n)))
    return tuple(found)


def losses(metrics: Mapping[str, float]) -> tuple[Loss, ...]:
    """The losses among logged metrics, ``report/loss`` with its ``report/nats_per_byte`` where the data are texts.

    Args:
        metrics: logged values by name, after validation or test.
    """
    found = [(split, metrics.get(f"{split}/loss"), metrics.get(f"{split}/nats_per_byte")) for split in SHOWN]
    return tuple(
        Loss(split, float(loss), None if per_byte is None else float(per_byte))
        for split, loss, per_byte in found
        if loss is not None and math.isfinite(loss)
    )


def density(module: LightningModule, trainer: Trainer) -> Density:
    """How sparse a model is, and the density at which the schedules of its sparsifiers end.

    Args:
        module: the model.
        trainer: has the sparsifiers; one that was never set up has no target.
    """
    rows = density_table(module.state_dict())
    matrices = [row for row in rows if len(row.shape) > 1]
    target = reached = None
    sparsifiers = sparsifiers_of(trainer)
    try:
        sparsified = total(density_table({k: v for c in sparsifiers for k, v in c.tensors(module).items()}))
        goal = sum(sparsifier.arrival.goal for sparsifier in sparsifiers)
    except SparselitError:  # the run ended before it was planned
        sparsifiers = []
    if sparsifiers:
        target, reached = goal / sparsified.numel, sparsified.density
    return Density(
        total(rows).density,
        total(matrices).density if matrices else None,
        target,
        reached,
        tuple(TensorDensity(row.name, row.shape, row.numel, row.nonzero, row.density) for row in rows),
    )


def found_circuit(
    circuit: Circuit, path: str, task: str = "", step: int = 0, seconds: float | None = None
) -> FoundCircuit:
    """Size of a circuit and the evidence for it.

    Args:
        circuit: as it was found, or read from its file.
        path: of its file, relative to the run folder.
        task: which task of a mixture; empty otherwise.
        step: optimizer steps after which it was sought.
        seconds: wall time of the search; None where it is not known.
    """
    evidence, certificate = circuit.evidence, circuit.certificate
    held_out, searched = evidence.held_out, evidence.nulls.searched
    return FoundCircuit(
        task=task,
        step=step,
        path=path,
        edges=circuit.size.edges,
        nodes=circuit.size.nodes,
        free=circuit.size.free,
        n=held_out.n,
        loss=held_out.task_loss,
        accuracy=held_out.accuracy,
        kl=held_out.kl,
        necessity=evidence.complement.task_loss,
        unexplained=evidence.unexplained,
        null_edges=float(evidence.nulls.random_orders.median),
        searched={name: row.edges for name, row in searched.items()} if searched else None,
        criterion=tuple(_met(row, row.value) for row in circuit.criterion),
        ablation=write(circuit.ablation),
        granularity=certificate.granularity,
        units=len(certificate.removals),
        complete=certificate.complete,
        minimal=certificate.complete and certificate.min_margin >= 0,
        flags=tuple(evidence.flags or ()),
        seconds=seconds,
    )


def _met(bound: Bound, value: float) -> MetBound:
    at_most, at_least = (None if limit is None else float(limit) for limit in (bound.at_most, bound.at_least))
    return MetBound(bound.metric, at_most, at_least, float(value), bound.holds(value))


def circuits(folder: Path, run: Path, step: int, discovery: Discovery | None) -> tuple[Circuits | None, list[str]]:
    """The circuits of a run, those found before it was resumed included.

    Args:
        folder: where they stand; those of a mixture's tasks in folders of their own.
        run: the run folder.
        step: the last one that counts.
        discovery: the callback; None where none were sought by this process.

    Returns:
        What was found, None where nothing was sought; and a line for each file that cannot be read.
    """
    found: list[tuple[int, str, Circuit, FoundCircuit]] = []
    problems = []
    folders = {"": folder, **{path.name: path for path in sorted(folder.glob("*/")) if circuits_in(path)}}
    for task, inner in folders.items():
        for at, path in circuits_in(inner).items():
            if at > step:
                continue
            try:
                circuit = read_circuit(path)
            except SparselitError as error:
                problems.append(str(error))
                continue
            name = path.relative_to(run).as_posix() if path.is_relative_to(run) else str(path)
            found.append((at, task, circuit, found_circuit(circuit, name, task, at, read_timing(path))))
    if discovery is None and not found:
        return None, problems
    found.sort(key=lambda row: row[:2])
    last = {task: circuit for _, task, circuit, _ in found}
    edges = combined({task: figures(circuit) for task, circuit in last.items()})["edges"] if last else None
    return Circuits(
        discovery.searches if discovery else len(found),
        discovery.reason if discovery else "",
        edges,
        overlap(list(last.values())) if len(last) > 1 else None,
        tuple(row for *_, row in found),
    ), problems


def why_ended(trainer: Trainer) -> str:
    """Why a fit that came to its end did so, a key of :data:`sparselit.runs.result.ENDED`."""
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    if trainer.global_step >= trainer.max_steps > 0:
        return "max_steps"
    for callback in callbacks:
        if isinstance(callback, EarlyStopping) and callback.stopping_reason != EarlyStoppingReason.NOT_STOPPED:
            return "early_stopping"
        if isinstance(callback, Timer) and (left := callback.time_remaining()) is not None and left <= 0:
            return "max_time"
    if trainer.max_epochs and trainer.max_epochs > 0 and trainer.current_epoch >= trainer.max_epochs:
        return "max_epochs"
    return "stopped"


def problems_of(trainer: Trainer) -> list[str]:
    """What the callbacks say is wrong with the run: the lines in their attribute ``problems``."""
    callbacks: Iterable[Any] = trainer.callbacks  # type: ignore[attr-defined]
    return [str(line) for callback in callbacks for line in getattr(callback, "problems", ())]


def versions() -> Versions:
    """Versions of what computes here."""
    return Versions(version("sparselit"), version("torch"), version("lightning"), platform.python_version())


def machine(trainer: Trainer) -> Machine:
    """What computes here."""
    here = MadeOn.here(trainer.strategy.root_device)
    return Machine(
        processor=here.processor,
        capability=here.capability,
        threads=torch.get_num_threads(),
        device=here.device,
        processes=trainer.world_size,
        precision=str(trainer.precision),
    )
