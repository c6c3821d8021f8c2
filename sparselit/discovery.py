"""The base of the callbacks that find circuits while a model trains: it decides when, logs, and writes the files."""

from __future__ import annotations

import json
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.rank_zero import rank_zero_info
from torch import nn
from tqdm import tqdm

from sparselit.circuits.behaviour import Behaviour
from sparselit.circuits.circuit import Circuit
from sparselit.circuits.discover import NoCircuitError
from sparselit.circuits.files import write_circuit
from sparselit.circuits.search import Report
from sparselit.circuits.wiring import matrices
from sparselit.errors import SparselitError
from sparselit.task import Task
from sparselit.transformer import Transformer

FOLDER = "circuits"


@dataclass
class Begin:
    """From when on circuits are sought; both conditions must hold.

    Args:
        density: largest share of non-zero weights over all matrices at which a search is worth its time, in (0, 1].
        step: first optimizer step.
    """

    density: float = 1.0
    step: int = 0

    def __post_init__(self) -> None:
        if not 0 < self.density <= 1:
            raise SparselitError(f"circuits.begin.density must lie in (0, 1], got {self.density}")
        if self.step < 0:
            raise SparselitError(f"circuits.begin.step must be at least 0, got {self.step}")


class Discovery(Callback, ABC):
    """Searches for a circuit at a cadence while the model trains; weights and random state of the run are untouched.

    Each circuit is written to ``circuits/step=N.json`` in the run folder. Logged after every step, so that
    ``ModelCheckpoint`` and ``EarlyStopping`` never miss a value: ``circuit/found`` (0 or 1), ``circuit/edges`` and
    ``circuit/nodes`` (the whole model's until one is found), and of the last circuit ``circuit/loss``,
    ``circuit/accuracy``, ``circuit/necessity``, ``circuit/unexplained`` and ``circuit/null_edges``.

    Args:
        every_n_steps: optimizer steps between two searches, at least 1; the last step of the run is always searched.
        begin: from when on; a model that is still dense is expensive to search.
    """

    def __init__(self, every_n_steps: int = 500, begin: Begin | None = None) -> None:
        if every_n_steps < 1:
            raise SparselitError(f"circuits.every_n_steps must be at least 1, got {every_n_steps}")
        self.every_n_steps = every_n_steps
        self.begin = begin or Begin()
        self._values: dict[str, float] = {}
        self._last_step = 0

    # -- what a subclass says ---------------------------------------------------------------------------------------

    @abstractmethod
    def find(self, model: Transformer, behaviour: Behaviour, progress: Report) -> Circuit:
        """Find a circuit of ``behaviour`` in ``model``.

        Args:
            model: the transformer in evaluation mode; it must not be changed.
            behaviour: the task's splits.
            progress: call it as (stage, edges left) while searching.

        Raises:
            NoCircuitError: there is none; the message says why.
        """

    # -- when: Lightning's hooks ------------------------------------------------------------------------------------

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse modules without a transformer and data without a behaviour."""
        if stage == "fit":
            transformer_of(pl_module)
            task_of(trainer)

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put sparsity and circuit size side by side on one page of TensorBoard."""
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger) and trainer.is_global_zero:
                logger.experiment.add_custom_scalars(LAYOUT)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Search where the cadence says so, and log the last circuit's figures."""
        step = trainer.global_step
        stepped = step != self._last_step
        due = step % self.every_n_steps == 0 or step == trainer.max_steps
        model = transformer_of(pl_module)
        if stepped and due and step >= self.begin.step and density(model) <= self.begin.density:
            self._search(trainer, model, step)
        self._last_step = step
        if not self._values.get("found"):
            edges = nonzeros(model)
            self._values = {**dict.fromkeys(FIGURES, 0.0), "found": 0.0, "edges": edges, "nodes": channels(model)}
            self._values |= {"loss": float("inf"), "unexplained": 1.0, "null_edges": edges}
        for name, value in self._values.items():
            if value != float("inf"):
                pl_module.log(f"circuit/{name}", value, batch_size=1, prog_bar=name == "edges")

    def _search(self, trainer: Trainer, model: Transformer, step: int) -> None:
        """One search on rank zero, written, drawn and remembered on all ranks."""
        values: dict[str, float] | None = None
        if trainer.is_global_zero:
            with undisturbed(model), progress_bar(f"circuit at step {step}", trainer.progress_bar_callback) as progress:
                began = time.monotonic()
                try:
                    circuit = self.find(model, task_of(trainer).behaviour(), progress)
                except NoCircuitError as reason:
                    rank_zero_info(f"step {step}: {reason}")
                else:
                    values = figures(circuit)
                    self._write(trainer, circuit, model, step, time.monotonic() - began)
        values = trainer.strategy.broadcast(values)
        if values is not None:
            self._values = values

    def _write(self, trainer: Trainer, circuit: Circuit, model: Transformer, step: int, seconds: float) -> None:
        folder = Path(trainer.log_dir or trainer.default_root_dir) / FOLDER
        behaviour = task_of(trainer).behaviour()
        path = folder / f"step={step}.json"
        write_circuit(path, circuit, model, behaviour)
        timing = {"seconds": round(seconds, 3)}
        path.with_suffix(".timing.json").write_text(json.dumps(timing) + "\n", encoding="utf-8")
        boards = [logger for logger in trainer.loggers if isinstance(logger, TensorBoardLogger)]
        if boards:
            from sparselit.report.picture import draw  # matplotlib is slow to import

            for board in boards:
                board.experiment.add_figure("circuit", draw(circuit), global_step=step)

    # -- state ------------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """The last circuit's figures, so that a resumed run logs them."""
        return {"values": dict(self._values), "last_step": self._last_step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._values, self._last_step = dict(state_dict["values"]), state_dict["last_step"]


FIGURES = ("found", "edges", "nodes", "loss", "accuracy", "necessity", "unexplained", "null_edges")
LAYOUT = {
    "sparsity and circuit size": {
        "density": ["Multiline", ["density/total", "density/target"]],
        "circuit size": ["Multiline", ["circuit/edges", "circuit/nodes"]],
        "circuit loss": ["Multiline", ["circuit/loss", "circuit/necessity"]],
        "accuracy": ["Multiline", ["train/accuracy", "val/accuracy", "circuit/accuracy"]],
    }
}


def figures(circuit: Circuit) -> dict[str, float]:
    """What is logged of a circuit: scores on the report split, nats and shares."""
    evidence = circuit.evidence
    return {
        "found": 1.0,
        "edges": float(circuit.size["edges"]),
        "nodes": float(circuit.size["nodes"]),
        "loss": evidence["held_out"]["task_loss"],
        "accuracy": evidence["held_out"]["accuracy"],
        "necessity": evidence["complement"]["task_loss"],
        "unexplained": evidence["unexplained"],
        "null_edges": float(evidence["nulls"]["random_orders"]["median"]),
    }


def transformer_of(module: nn.Module) -> Transformer:
    """The transformer inside a module: ``module.transformer``, or the only one it holds."""
    found = [part for part in module.modules() if isinstance(part, Transformer)]
    if len(found) != 1:
        raise SparselitError(f"circuits need a module with one Transformer, {type(module).__name__} has {len(found)}")
    return found[0]


def task_of(trainer: Trainer) -> Task:
    """The run's task, which gives the behaviour."""
    task = getattr(trainer, "datamodule", None)
    if not isinstance(task, Task):
        raise SparselitError(f"circuits need data that is a Task, got {type(task).__name__}")
    return task


def nonzeros(model: Transformer) -> float:
    """Number of edges of the whole model."""
    return float(sum(int(model.get_parameter(name).count_nonzero()) for name in matrices(model)))


def density(model: Transformer) -> float:
    """Share of non-zero weights over all matrices, the bigram table (never sparsified) left out."""
    names = [name for name in matrices(model) if not name.startswith("bigram")]
    numel = sum(model.get_parameter(name).numel() for name in names)
    return sum(int(model.get_parameter(name).count_nonzero()) for name in names) / numel


def channels(model: Transformer) -> float:
    """Number of nodes that a circuit could have: channels of every site that joins edges, tokens and positions."""
    sizes: dict[str, int] = {}
    for name, bundle in matrices(model).items():
        shape = model.get_parameter(name).shape
        sizes[bundle.target] = shape[bundle.target_axis]
        sizes[bundle.source.replace(".attn.z", ".attn.v")] = shape[1 - bundle.target_axis]
    return float(sum(sizes.values()))


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients and a random state of its own; everything is put back afterwards."""
    training = {module: module.training for module in model.modules()}
    with torch.random.fork_rng(), torch.no_grad():
        model.eval()
        try:
            yield
        finally:
            for module, mode in training.items():
                module.training = mode


@contextmanager
def progress_bar(title: str, shown: Any) -> Iterator[Report]:
    """A line that shows the stage of a search and the edges left, where the trainer shows a progress bar."""
    with tqdm(desc=title, unit=" evaluations", leave=False, disable=shown is None, mininterval=0.5) as bar:

        def report(stage: str, edges: int) -> None:
            bar.set_postfix_str(f"{stage}, {edges} edges", refresh=False)
            bar.update()

        yield report
