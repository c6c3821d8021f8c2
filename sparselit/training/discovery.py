"""The base of the callbacks that find circuits while a model trains: it decides when, logs, and writes the files."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn

from sparselit.circuits.circuit import Circuit
from sparselit.circuits.discover import NoCircuitError
from sparselit.circuits.files import read_circuit, write_circuit
from sparselit.circuits.search import Progress
from sparselit.data.behaviour import Behaviour, Behaviours, behaviours_of
from sparselit.errors import SparselitError, check_whole
from sparselit.model.precision import searchable
from sparselit.model.transformer import Transformer
from sparselit.report.facts import counted, percent
from sparselit.report.progress import display
from sparselit.runs.folder import CIRCUITS, circuits_in
from sparselit.runs.timing import write_timing
from sparselit.training.begin import Begin
from sparselit.training.boards import boards, show_circuit
from sparselit.training.circuit_metrics import FIGURES, LAYOUT, combined, density, figures, overlap, without_circuit
from sparselit.training.hyper_parameters import log_hyper_parameters
from sparselit.training.neighbours import averaged
from sparselit.training.run_checkpoint import RunCheckpoint
from sparselit.training.sparsifier import sparsifiers_of
from sparselit.training.steps import is_last_step, is_logging_step
from sparselit.training.undisturbed import on_device, stoppable, undisturbed


class SearchResult(NamedTuple):
    """What one search gave.

    Attributes:
        circuit: None where there is none.
        reason: why there is none.
        seconds: wall time.
        stopped: the user pressed Ctrl-C, so that the search may be unfinished.
    """

    circuit: Circuit | None
    reason: str
    seconds: float
    stopped: bool


class Discovery(Callback, ABC):
    """Searches for a circuit at a cadence while the model trains; weights and random state of the run are untouched.

    Each circuit is written to ``circuits/step=N.json`` in the run folder, and where the data is a mixture, each task's
    to ``circuits/TASK/step=N.json``. Logged in the step of a search, so that ``ModelCheckpoint`` and ``EarlyStopping``
    act on it: ``circuit/found`` (0 or 1), ``circuit/edges``, ``circuit/nodes``, ``circuit/loss``, ``circuit/accuracy``,
    ``circuit/necessity``, ``circuit/unexplained`` and ``circuit/null_edges`` of the last search, and
    ``circuit/seconds`` of all searches. While there is no circuit, sizes are those of the whole model and scores those
    of an empty circuit: no value is ever missing or infinite. Of a mixture these are means over its tasks, and there
    are ``circuit/TASK/edges`` and the like, and ``circuit/overlap``.

    Args:
        every_n_steps: optimizer steps between two searches, at least 1; the last step of the run is searched too,
            unless something else than its length ends it.
        begin: from when on; a model that is still dense is expensive to search.
        warm_start: begin each search with the newest circuit of an earlier step in the same folder, which is much
            faster where little has changed since, and may miss a smaller circuit elsewhere.
        task: the only one of several behaviours whose circuit is sought; null for all.

    Attributes:
        source: what circuits are sought for; None for the data that the model is trained on.
        folder: where circuits are written; default ``circuits`` in the logger's folder.
        announce: called with one line after each search.
        logs_final: whether the callback itself logs hyper-parameters and final figures when training ends.
        latest: the last circuits and their files, by task; empty before the first one.
        reason: why the last search found none, empty if it did.
        seconds: wall time of all searches so far.
        searches: their number.
        problems: a line for each search that ended in an error.
    """

    def __init__(
        self,
        every_n_steps: int = 500,
        begin: Begin | None = None,
        warm_start: bool = False,
        task: str | None = None,
    ) -> None:
        check_whole("circuits.every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps
        self.begin = begin or Begin()
        self.warm_start = warm_start
        self._only = () if task is None else (task,)
        self.source: Behaviours | None = None
        self.folder: Path | None = None
        self.announce: Callable[[str], object] = rank_zero_info
        self.logs_final = True
        self.reason = "no step was searched"
        self.seconds = 0.0
        self.searches = 0
        self._latest: dict[str, str] = {}  # by task, a file's path in the folder
        self._tasks: tuple[str, ...] = ("",)  # one that has no name, or those of a mixture
        self._values: dict[str, float] = {}  # of the last search; empty where it found none
        self._seen = 0  # global step at the end of the previous batch; accumulation leaves it unchanged
        self._fresh = True  # nothing logged by this process yet
        self._densest = 1.0  # density from which on a search is worth its time
        self._pending: int | None = None  # a step whose checkpoint is written and whose search has not ended
        self.problems: list[str] = []

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def find(
        self, model: Transformer, behaviour: Behaviour, progress: Progress, previous: Circuit | None = None
    ) -> Circuit:
        """Find a circuit of ``behaviour`` in ``model``.

        Args:
            model: the transformer in evaluation mode; it must not be changed.
            behaviour: the task's splits.
            progress: call it as (stage, edges left) while searching.
            previous: a circuit to begin with, if any.

        Raises:
            NoCircuitError: there is none; the message says why.
        """

    # -- one search -------------------------------------------------------------------------------------------------

    def seek(
        self,
        model: Transformer,
        behaviour: Behaviour,
        step: int,
        folder: Path | None,
        visible: bool = True,
        ended: Callable[[], bool] | None = None,
    ) -> SearchResult:
        """Run one search, with progress, without a trace in the model or the random state.

        Args:
            model: the transformer, on any device.
            behaviour: the task's splits.
            step: number of optimizer steps that the model has been trained for.
            folder: where earlier circuits stand, for a warm start.
            visible: whether its progress is shown.
            ended: whether Ctrl-C was pressed in another process.
        """
        previous = earlier_circuit(folder, step) if self.warm_start and folder else None
        began = time.monotonic()
        circuit, reason = None, ""
        behaviour = on_device(behaviour, next(model.parameters()).device)
        with undisturbed(model), stoppable(ended) as stop, display(f"circuit at step {step}", visible) as shown:
            try:
                circuit = self.find(model, behaviour, stop.heeded_by(shown.searching), previous)
            except NoCircuitError as error:
                reason = str(error)
        return SearchResult(circuit, reason, time.monotonic() - began, stop.requested)

    def validate(self, module: LightningModule, data: object) -> dict[str, Behaviour]:
        """Refuse what no circuit can be sought in, before anything is computed.

        Args:
            module: the module that is trained.
            data: its data; what has ``behaviours()``, unless the callback has a source of its own.

        Returns:
            The behaviours by name.

        Raises:
            SparselitError: the module has no transformer, nothing has behaviours, or a split has no examples.
        """
        transformer_of(module)
        behaviours = behaviours_of(self.source or data).behaviours(self._only)
        self._tasks = tuple(behaviours)
        return behaviours

    # -- when: Lightning's hooks ------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse modules without a transformer and data without a behaviour; find the folder."""
        if stage != "fit":
            return
        self.validate(pl_module, getattr(trainer, "datamodule", None))
        default = trainer.log_dir or trainer.default_root_dir  # a collective call: all processes have to make it
        self.folder = self.folder or Path(default) / CIRCUITS

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put sparsity and circuit size side by side on one page of TensorBoard."""
        self._seen, self._fresh = trainer.global_step, True
        self._densest = self.begin.attainable(pl_module, transformer_of(pl_module), sparsifiers_of(trainer))
        if self._densest > self.begin.density:
            self.announce(
                f"circuits.begin.density {self.begin.density:.4g} is below the density at which the sparsity ends: "
                f"circuits are sought from {self._densest:.4g} on"
            )
        for board in boards(trainer):
            board.experiment.add_custom_scalars(LAYOUT)
        self._make_up(trainer, pl_module)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Search where the cadence says so, and log the last search's figures.

        The step's checkpoint is written first, so that nothing that happens in a search costs the training before it.
        """
        before, step = self._seen, trainer.global_step
        self._seen = step
        model = transformer_of(pl_module)
        due = before // self.every_n_steps != step // self.every_n_steps or is_last_step(trainer)
        searched = step != before and due and step >= self.begin.step and density(model) <= self._densest
        stopped = searched and self._search_after_saving(trainer, model, step)
        if searched or self._fresh or is_logging_step(trainer):
            self._log(trainer, pl_module, write=searched)
        if stopped:
            raise KeyboardInterrupt

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Make up for a search that was ended by a kill in a run that has no steps left."""
        self._make_up(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why nothing was searched, and the final size unless the command line says more of it at its end."""
        if not self.searches:
            model = transformer_of(pl_module)
            self.reason = self.begin.why_none(trainer.global_step, density(model), self.every_n_steps)
        if self.logs_final:
            log_hyper_parameters(trainer, pl_module, {}, self.final(pl_module))

    def final(self, module: LightningModule) -> dict[str, float]:
        """What stands beside the hyper-parameters: the last search's figures and the density."""
        model = transformer_of(module)
        figures = {f"circuit/{name}": value for name, value in self._figures(model).items()}
        return {**figures, "density/total": density(model)}

    # -- inside -----------------------------------------------------------------------------------------------------

    def _search_after_saving(self, trainer: Trainer, model: Transformer, step: int) -> bool:
        """Keep the step, then search; a run killed meanwhile searches again when it is resumed."""
        self._pending = step
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.save(trainer, ahead=True)
        return self._search(trainer, model, step)

    def _make_up(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Run the search that a kill has ended, now that the run was resumed from the step's checkpoint."""
        if self._pending is None or self._pending != trainer.global_step or getattr(trainer, "fast_dev_run", False):
            return
        stopped = self._search(trainer, transformer_of(pl_module), self._pending)
        for callback in trainer.checkpoint_callbacks:
            if isinstance(callback, RunCheckpoint):
                callback.save(trainer)
        if stopped:
            raise KeyboardInterrupt

    def _search(self, trainer: Trainer, model: Transformer, step: int) -> bool:
        """One search on rank zero, remembered on all ranks; whether the user has stopped the run.

        A search or a file of it that fails is a note, and training goes on.
        """
        shared: tuple[dict[str, Any], bool] | None = None
        try:
            if trainer.is_global_zero:
                with averaged(trainer, trainer.lightning_module):
                    shared = self._search_here(trainer, model, step)
        except Exception as error:
            self.reason = f"the search at step {step} failed: {type(error).__name__}: {error}".splitlines()[0]
            self.problems.append(self.reason)
            self._values = {}
            self.announce(self.reason)
            shared = self.state_dict(), False
        finally:  # the other processes wait here; they hear of an end too
            shared = trainer.strategy.broadcast(shared)
        if shared is None:
            raise SparselitError(f"the search for a circuit at step {step} was ended in the first process")
        self.load_state_dict(shared[0])
        self._pending = None
        return shared[1]

    def _search_here(self, trainer: Trainer, model: Transformer, step: int) -> tuple[dict[str, Any], bool]:
        visible = trainer.progress_bar_callback is not None
        model = searchable(model)
        found: dict[str, Circuit] = {}
        reasons, stopped = [], False
        source = behaviours_of(self.source or getattr(trainer, "datamodule", None))
        for task, behaviour in source.behaviours(self._only).items():
            folder = self.folder / task if self.folder else None
            circuit, reason, seconds, stopped = self.seek(model, behaviour, step, folder, visible)
            began = time.monotonic()
            if circuit is None:
                reasons.append(f"{task}: {reason}" if task else reason)
            else:
                found[task] = circuit
                if self.folder and not getattr(trainer, "fast_dev_run", False):
                    path = self.folder / task / f"step={step}.json"
                    write_circuit(path, circuit, model, behaviour)
                    write_timing(path, seconds)
                    self._latest[task] = path.relative_to(self.folder).as_posix()
                    show_circuit(trainer, circuit, f"circuit{task and f'/{task}'}", step)
            seconds += time.monotonic() - began
            self.seconds, self.searches = self.seconds + seconds, self.searches + 1
            text = described(circuit) if circuit else f"no circuit: {reason}"
            self.announce(f"step {step}{task and f', {task}'}: {text} ({seconds:.1f} s)")
            if stopped:
                break
        self.reason = "; ".join(reasons)
        self._values = {}
        if found:
            each = {task: figures(found[task]) if task in found else without_circuit(model) for task in self._tasks}
            self._values = {**combined(each), **self._shared(list(found.values()))}
        return self.state_dict(), stopped

    def _shared(self, circuits: list[Circuit]) -> dict[str, float]:
        """How much the circuits of a mixture have in common; nothing to say of a single task."""
        return {} if self._tasks == ("",) else {"overlap": overlap(circuits)}

    def _figures(self, model: Transformer) -> dict[str, float]:
        none = combined(dict.fromkeys(self._tasks, without_circuit(model)))
        return {**(self._values or {**none, **self._shared([])}), "seconds": self.seconds}

    def _log(self, trainer: Trainer, pl_module: LightningModule, write: bool) -> None:
        """Hand the figures to Lightning; ``write``: to the loggers now, whatever their own cadence."""
        values = self._figures(transformer_of(pl_module))
        self._fresh = False
        for name, value in values.items():
            pl_module.log(f"circuit/{name}", value, batch_size=1, prog_bar=name == "edges")
        if write and not trainer._logger_connector.should_update_logs:
            trainer._logger_connector.log_metrics({f"circuit/{n}": torch.tensor(v) for n, v in values.items()})

    # -- state ------------------------------------------------------------------------------------------------------

    @property
    def latest(self) -> dict[str, tuple[Circuit, Path]]:
        """The last circuit of each task, read from its file, and the file; a single task has no name."""
        paths = {task: self.folder / name for task, name in self._latest.items()} if self.folder else {}
        return {task: (read_circuit(path), path) for task, path in paths.items() if path.is_file()}

    @property
    def logged(self) -> list[str]:
        """What is logged under ``circuit/``, of each task of a mixture too."""
        each = dict.fromkeys(self._tasks, dict.fromkeys(FIGURES, 1.0))
        return [*combined(each), *self._shared([]), "seconds"]

    def state_dict(self) -> dict[str, Any]:
        """The last search's figures, so that a resumed run logs them."""
        return {
            "values": dict(self._values),
            "latest": dict(self._latest),
            "reason": self.reason,
            "seconds": self.seconds,
            "searches": self.searches,
            "pending": self._pending,
            "problems": list(self.problems),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._values, self._latest = dict(state_dict["values"]), dict(state_dict["latest"])
        self.reason, self.seconds = state_dict["reason"], state_dict["seconds"]
        self.searches = state_dict["searches"]
        self._pending, self.problems = state_dict["pending"], list(state_dict["problems"])


def described(circuit: Circuit) -> str:
    """A circuit in one line."""
    size, held_out = circuit.size, circuit.evidence.held_out
    name = "circuit of" if circuit.generalises else "did not generalise:"
    text = f"{name} {counted(size.edges, 'edge')} and {counted(size.nodes, 'node')}, report split: task loss "
    text += f"{held_out.task_loss:.4f}, accuracy {percent(held_out.accuracy)}"
    return text + ("" if circuit.certificate.complete else "; without certificate")


def earlier_circuit(folder: Path, step: int) -> Circuit | None:
    """The circuit of the newest step before ``step`` in a folder; None where there is none.

    Args:
        folder: where the circuits are.
        step: optimizer steps.
    """
    before = [path for other, path in circuits_in(folder).items() if other < step]
    return read_circuit(before[-1]) if before else None


def transformer_of(module: nn.Module) -> Transformer:
    """The transformer inside a module: ``module.transformer``, or the only one it holds."""
    found = [part for part in module.modules() if isinstance(part, Transformer)]
    if len(found) != 1:
        raise SparselitError(f"circuits need a module with one Transformer, {type(module).__name__} has {len(found)}")
    return found[0]
