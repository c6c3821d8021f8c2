"""``sparselit discover``: the search of the ``circuits`` key on a checkpoint, and the file its circuit goes to."""

from __future__ import annotations

import itertools
import os
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

from lightning.pytorch import LightningModule, Trainer

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.discover import NoCircuitError
from sparselit.circuits.files import write_circuit
from sparselit.cli.experiment.keys import DEFAULT_CLASSES
from sparselit.data.behaviour import Behaviour
from sparselit.errors import SparselitError, check_whole
from sparselit.model.precision import load_exactly, searchable
from sparselit.model.transformer import Transformer
from sparselit.runs.checkpoint_file import load_checkpoint
from sparselit.runs.folder import CIRCUITS, PROMPTS, RunFolder, shown
from sparselit.runs.plain_file import holds
from sparselit.runs.timing import write_timing
from sparselit.training.discovery import Discovery, transformer_of
from sparselit.training.several import MOST_JOBS, each_behaviour

#: The first lines of ``sparselit discover --help``.
EXPLAINED = """find the circuit of a checkpoint with the search of the circuits key: the file
is, byte for byte, the one that training writes at that step.

  --output FILE.json  where to; a circuit of that name is replaced. Default:
                      circuits/step=N.json in the run folder, where a different
                      circuit is never replaced: the new one is then called
                      step=N.2.json, step=N.3.json and so on
  --jobs N            search N tasks of a mixture at once, in processes of their
                      own; the circuits are the same, byte for byte

Ctrl-C ends the search with what it has, in step=N.partial.json, without a
certificate. Exit code: 0 found, 1 there is no circuit, 4 what was found did
not generalise (a stated bound fails on the report split), 130 ended by Ctrl-C"""


class Discovered(NamedTuple):
    """A circuit that the command found.

    Attributes:
        task: which task of a mixture; empty otherwise.
        circuit: what was found.
        path: its file.
        seconds: wall time of the search.
        stopped: the user pressed Ctrl-C.
        known: the same circuit was there before.
    """

    task: str
    circuit: Circuit
    path: Path
    seconds: float
    stopped: bool
    known: bool


def search_checkpoint(
    trainer: Trainer, model: LightningModule, data: Any, ckpt_path: str, output: str | None, jobs: int = 1
) -> list[Discovered | NoCircuitError]:
    """Search the model of a checkpoint and write the circuit, or those of all tasks of a mixture.

    Args:
        trainer: its ``circuits`` callback searches, or one with the default settings.
        model: an instance of the checkpoint's model.
        data: the task.
        ckpt_path: checkpoint file.
        output: the circuit's file; None for the default path. Of a mixture, each task has a folder beside it.
        jobs: processes that search several tasks at once, at least 1.

    Returns:
        For each task what was found, or why there is nothing.

    Raises:
        SparselitError: the data are no task, or a file cannot be read or written.
    """
    check_whole("--jobs", jobs, 1, most=MOST_JOBS)
    callbacks: list[Any] = trainer.callbacks  # type: ignore[attr-defined]
    search = next((callback for callback in callbacks if isinstance(callback, Discovery)), None) or _default()
    content = load_checkpoint(ckpt_path)
    step = int(content.get("global_step", 0))
    path = Path(output) if output else _default_path(Path(ckpt_path), step)
    if path.suffix != ".json" or path.is_dir():
        raise SparselitError(f"--output {path} must be a file that ends in .json")
    nearest = next(parent for parent in path.absolute().parents if parent.exists())
    if not (nearest.is_dir() and os.access(nearest, os.W_OK)):
        raise SparselitError(f"cannot write the circuit {path}: {shown(nearest)} is no folder that can be written to")
    behaviours = search.validate(model, data)
    for task, behaviour in behaviours.items():
        refuse_other_prompts(path.parent / task, behaviour, "write into another folder with --output FILE.json")
    load_exactly(model, content["state_dict"])
    transformer = searchable(transformer_of(model).to(trainer.strategy.root_device))
    visible = trainer.progress_bar_callback is not None
    results: list[Discovered | NoCircuitError] = []
    sought = each_behaviour(search, transformer, behaviours, step, path.parent, visible, jobs)
    for task, (circuit, reason, seconds, stopped) in sought:
        behaviour, target = behaviours[task], path.parent / task / path.name
        if circuit is None:
            results.append(NoCircuitError(f"{task}: {reason}" if task else reason))
            continue
        unfinished = stopped and not circuit.certificate.complete
        if unfinished:
            target = target.with_name(f"{target.stem}.partial.json")
        try:
            target, known = _write(target, circuit, transformer, behaviour, replace=unfinished or output is not None)
            if not known:
                write_timing(target, seconds)
        except OSError as error:
            raise SparselitError(f"cannot write the circuit {target}: {error.strerror}") from error
        results.append(Discovered(task, circuit, target, seconds, stopped, known))
    return results


def _default() -> Discovery:
    """The plug-in that the key ``circuits`` means without a class, with its default settings."""
    subclasses: list[type[Discovery]] = Discovery.__subclasses__()
    return next(found for found in subclasses if found.__name__ == DEFAULT_CLASSES["circuits"])()


def _default_path(checkpoint: Path, step: int) -> Path:
    folder = RunFolder.of(checkpoint)
    return (folder.path if folder else checkpoint.parent) / CIRCUITS / f"step={step}.json"


def refuse_other_prompts(folder: Path, behaviour: Behaviour, advice: str) -> None:
    """The circuits of one folder share their prompts; those that are there must not change under them.

    Args:
        folder: where the circuits stand.
        behaviour: the task's splits, whose prompts would be written.
        advice: what to do instead.

    Raises:
        SparselitError: the folder holds other prompts.
    """
    changed = behaviour.changed_in(folder / PROMPTS)
    if changed is not None:
        raise SparselitError(
            f"{shown(changed)} holds other examples than this data gives, and the circuits beside it rely on them;\n"
            f"{advice}"
        )


def _write(path: Path, circuit: Circuit, model: Transformer, behaviour: Behaviour, replace: bool) -> tuple[Path, bool]:
    """Write to ``path``, or to the next free name where another circuit has it; whether the same one was there."""
    with TemporaryDirectory() as temporary:
        for number in itertools.count(1):
            target = path if number == 1 else path.with_name(f"{path.stem}.{number}.json")
            trial = Path(temporary) / target.name
            write_circuit(trial, circuit, model, behaviour)
            known = holds(target, trial.read_bytes())
            if known or replace or not target.exists():
                write_circuit(target, circuit, model, behaviour)  # the same bytes; restores what is missing beside it
                return target, known
    raise AssertionError("unreachable")
