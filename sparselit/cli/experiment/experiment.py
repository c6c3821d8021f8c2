"""``fit``, ``validate``, ``test``, ``predict`` and ``discover``: run folders, resuming and the summary."""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import BatchSizeFinder, ProgressBar
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sparselit.circuits.discover import NoCircuitError
from sparselit.cli.circuit_lines import discovered_text
from sparselit.cli.experiment import yaml_text
from sparselit.cli.experiment.arguments import Arguments
from sparselit.cli.experiment.bar import RunBar
from sparselit.cli.experiment.callback_list import of_command, put_last, refuse_pruning, refuse_useless
from sparselit.cli.experiment.command_line import CommandLine
from sparselit.cli.experiment.discover_command import Discovered, refuse_other_prompts
from sparselit.cli.experiment.escaped import explained, sentence
from sparselit.cli.experiment.initial import begin_from
from sparselit.cli.experiment.interruption import Interrupted, Interruption
from sparselit.cli.experiment.last_lines import dry_run_text, measure, problems, result_lines
from sparselit.cli.experiment.loggers import place
from sparselit.cli.experiment.monitors import is_missing_monitor, refuse_monitors
from sparselit.cli.experiment.plugins import load_plugins
from sparselit.cli.experiment.result_writer import ResultWriter, figures_of, settings_of
from sparselit.cli.experiment.resume import (
    adopt_batch_size,
    check_fit,
    check_training_state,
    data_changes,
    refuse_dense,
    refuse_other_seed,
    saved_configuration,
    setting_changes,
)
from sparselit.cli.experiment.saved_config import saved_text
from sparselit.cli.experiment.silence import quieten
from sparselit.cli.experiment.trainer import Events, refuse_processes
from sparselit.cli.terminal import raw_output, say
from sparselit.data.soundness import shortcut
from sparselit.data.task import Task
from sparselit.errors import SparselitError, disk_fault
from sparselit.report.summary import summary
from sparselit.runs.atomic import write_bytes, write_text
from sparselit.runs.folder import CIRCUITS, RunFolder, shown
from sparselit.runs.lock import locked
from sparselit.runs.result import Result
from sparselit.runs.shipped import is_shipped
from sparselit.training.compiled import Compiled
from sparselit.training.discovery import Discovery
from sparselit.training.hyper_parameters import log_hyper_parameters
from sparselit.training.run_checkpoint import AtomicCheckpointIO, RandomState, RunCheckpoint
from sparselit.training.run_result import why_ended
from sparselit.training.sparsifier import Sparsifier
from sparselit.training.steps import length_before_data

#: Set by the process that the user started, for the ones that DDP starts.
_FOLDER_VARIABLE = "SPARSELIT_RUN_FOLDER"
#: Exit code of a run that ended, but not with what was configured.
_PROBLEM = 3
#: Exit code of a search whose result holds on the splits it was searched on, and not on the report split.
_NOT_GENERAL = 4


def run(arguments: Arguments) -> None:
    """Run one experiment command.

    Raises:
        SparselitError: the user can mend it.
    """
    load_plugins()
    torch.set_flush_denormal(True)  # a solved task has gradients so small that a CPU would crawl
    quieten()
    Experiment(arguments)


class Experiment(CommandLine):
    """One command line, from parsing to the summary.

    Args:
        arguments: what the user typed.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.folder: RunFolder | None = None
        self.checkpoint: RunCheckpoint | None = None
        self.discovery: Discovery | None = None
        self.problems: list[str] = []  # where the run did not keep its configuration
        self.interruption = Interruption(None)
        self._held = ExitStack()  # the lock of the run's folder
        self.writer: ResultWriter | None = None
        self._before: dict[Path, bytes] = {}  # what a run that goes on had said of itself
        try:
            super().__init__(arguments)
        except MisconfigurationException as error:
            raise SparselitError(f"trainer: {sentence(error)}") from error
        except Exception as error:
            refusal = explained(error, training=self._has_stepped())
            if refusal is None:
                raise
            self._discard_folder()
            raise self._with_advice(refusal, error) from error

    def _with_advice(self, refusal: SparselitError, error: Exception) -> SparselitError:
        """A refusal of the disk while training, with how to go on when it is mended."""
        if disk_fault(error) is None or self.writer is None or self.folder is None:
            return refusal
        with suppress(OSError):  # the disk may refuse this as well
            self._leave("failed", problem=str(refusal))
        if not self.folder.checkpoints():
            return refusal
        return SparselitError(f"{refusal}; when that is mended, go on with:\n{self._resume_command()}")

    def _has_stepped(self) -> bool:
        trainer = getattr(self, "trainer", None)
        return trainer is not None and trainer.global_step > (self.start.step if self.start else 0)

    # -- objects ------------------------------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with our callbacks; optional keys that are left out add none."""
        keys = self._parser(self.subcommand).callback_keys
        callbacks = [callback for key in keys if (callback := self._get(self.config_init, key)) is not None]
        config: dict[str, Any] = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        given = config.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        refuse_useless(given, str(self.subcommand))
        self._finds_batch_size = any(isinstance(callback, BatchSizeFinder) for callback in given)
        config["callbacks"] = given = of_command(given, str(self.subcommand), resumes=self.start is not None)
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in given):
            callbacks.append(RunBar())
        if self.subcommand == "fit":
            if compiling := self._get(self.config, "compile"):
                callbacks.append(Compiled({} if compiling is True else compiling))
            callbacks.insert(0, RandomState())  # it remembers the end of the step before a search saves it
            if config.get("enable_checkpointing") is not False:
                own = [callback for callback in given if isinstance(callback, RunCheckpoint)]
                self.checkpoint = own[0] if own else RunCheckpoint()
                callbacks += [] if own else [self.checkpoint]
            self.interruption.checkpoint = self.checkpoint
            if self.checkpoint is not None:
                callbacks.append(self.interruption)
        else:
            config["enable_checkpointing"] = False
        self._wants_tensorboard = self.subcommand == "fit" and config.get("logger") in (None, True)
        if not config.get("logger") or config["logger"] is True:
            config["logger"] = False  # ours is attached when the run folder is known
        plugins = config.get("plugins") or []
        plugins = list(plugins) if isinstance(plugins, list | tuple) else [plugins]
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            plugins.append(AtomicCheckpointIO())
        config["plugins"] = plugins
        try:
            trainer = self._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError) as error:  # what Lightning raises for names that it does not have
            raise SparselitError(f"trainer: {sentence(error)}") from error
        put_last(trainer)
        return trainer

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        """Check what can be checked without computing, then run."""
        refuse_processes(self.trainer)
        if self.start is not None:
            check_fit(self.start, self.model, self.datamodule)
            if subcommand == "fit":
                check_training_state(self.start, self.model)
                refuse_other_seed(self.start, self.config["fit"].seed_everything)
                self.notes += setting_changes(self.start, yaml_text.load(self._saved_text(), "config.yaml"))
            if self._finds_batch_size:
                adopt_batch_size(self.start, self.datamodule)
            self.notes += data_changes(self.start, self.datamodule) if self.start.folder else ()
        elif subcommand == "fit" and (init_from := self.config["fit"].init_from) is not None:
            self.notes += begin_from(init_from, self.model, self.datamodule)
        if subcommand != "fit":
            self._tell_notes()
        try:
            with self._held:
                super()._run_subcommand(subcommand)
        except Interrupted as stop:
            self._leave("interrupted")
            for logger in self.trainer.loggers:
                logger.finalize("interrupted")
            say(f"stopped after step {stop.step}" + (f"; go on with:\n{self._resume_command()}" if self.folder else ""))
            sys.exit(128 + stop.signum)
        except SystemExit as stop:
            self._discard_folder()
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:
                self._leave("interrupted")
                sys.exit(130 if stop.code == 1 else stop.code)  # 1 is Lightning's answer to Ctrl-C
            raise
        if self.problems:
            sys.exit(_PROBLEM)

    def before_fit(self) -> None:
        """Refuse what cannot work; then, and only then, make the run folder."""
        sparsified: set[str] = set()
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Sparsifier):
                callback.check_trainer(self.trainer)
                sparsified |= {
                    budget.name for budget in callback.validate(self.model, length_before_data(self.trainer))
                }
                callback.promise.announce = callback.promise.note = say
            elif isinstance(callback, Discovery):
                behaviours = callback.validate(self.model, self.datamodule)
                callback.announce, callback.logs_final = say, False
                self.discovery = callback
                run = self.start.folder if self.start else None
                if run is not None:
                    for task, behaviour in behaviours.items():
                        advice = "leave --ckpt_path out to begin a run, or keep this run's data: settings"
                        refuse_other_prompts(run.path / CIRCUITS / task, behaviour, advice)
        refuse_monitors(self.trainer, self.model, self.datamodule)
        if self.start is not None:
            refuse_dense(self.start, sparsified, self.config["fit"].allow_dense)
        refuse_pruning(self.trainer.callbacks, self.model)  # type: ignore[attr-defined]
        if self.config["fit"].effort is not None and isinstance(self.datamodule, Task):
            found = shortcut(self.datamodule)  # under the recipe, for a task that may be new
            self.notes += [f"{found}; see `sparselit tasks --check`"] if found else []
        self._tell_notes()
        if self._get(self.config, "trainer").fast_dev_run:
            return
        self.folder = self._make_folder()
        if self._wants_tensorboard:
            self.trainer.logger = Events(
                save_dir=self.folder.root,
                name=self.folder.path.parent.name,
                version=self.folder.path.name,
                default_hp_metric=False,
            )
        place(self.trainer.loggers, self.folder.path)
        for saving in self.trainer.checkpoint_callbacks:
            if getattr(saving, "dirpath", "") is None:  # Lightning's default depends on the logger
                there = self.folder.checkpoint_folder
                saving.dirpath = there if isinstance(saving, RunCheckpoint) else str(there)  # type: ignore[attr-defined]
        if self.discovery is not None:
            self.discovery.folder = self.folder.path / CIRCUITS
        if self.start is not None:
            verb = "resuming" if self.start.folder else "starting a new run"
            say(f"{verb} from step {self.start.step} ({shown(self.start.path)})")
            if self.start.step >= self.trainer.max_steps > 0:
                say(f"nothing left to train: trainer.max_steps is {self.trainer.max_steps}")
        say(f"run folder {shown(self.folder.path)}")

    def _tell_notes(self) -> None:
        for note in self.notes:
            say(note)

    def _make_folder(self) -> RunFolder:
        settings = self.config["fit"]
        root, name = self._root(settings), self._name(settings)
        started_by_ddp = int(os.environ.get("LOCAL_RANK", 0)) > 0
        if started_by_ddp and _FOLDER_VARIABLE in os.environ:
            return RunFolder(Path(os.environ[_FOLDER_VARIABLE]))
        text = self._saved_text()
        folder = self.start.folder if self.start and self.start.folder else RunFolder.next(root, name).create()
        self._held.enter_context(locked(folder.path))
        os.environ[_FOLDER_VARIABLE] = str(folder.path.absolute())
        self._before = {path: path.read_bytes() for path in folder.records() if path.is_file()}
        write_text(folder.config, text)
        seed = settings.get("seed_everything")
        first = self.start.step if self.start else 0
        self.writer = ResultWriter(folder, yaml.safe_load(text), None if seed is False else seed, first)
        self.writer.write("running", self.trainer, self.model, self.datamodule)
        return folder

    def _saved_text(self) -> str:
        """The configuration as ``config.yaml`` holds it: without what concerns this command alone."""
        saved = self.config["fit"].clone()
        saved.ckpt_path = saved.name = None  # the folder has the name, also when it is renamed
        del saved["allow_dense"]
        if self.start and self.start.folder:  # what the run began with stays said
            saved.init_from = saved_configuration(self.start).get("init_from")
        elif saved.init_from is not None and not is_shipped(saved.init_from):
            saved.init_from = str(Path(saved.init_from).absolute())
        return saved_text(self._parser("fit"), saved)

    def fit(self, **kwargs: Any) -> None:
        """Train, listening for Ctrl-C."""
        try:
            with self.interruption.listening(), raw_output():
                self.trainer.fit(**kwargs)
        except (SparselitError, MisconfigurationException) as error:
            self._discard_folder()
            self._leave("failed", problem=str(error))
            raise
        except RuntimeError as error:
            if not is_missing_monitor(error):
                raise
            self._leave("failed", problem=sentence(error))
            raise SparselitError(sentence(error)) from error

    def _discard_folder(self) -> None:
        """Of a run that ended before its first step, remove the folder, or leave it as it was when it goes on there."""
        if self.folder is None or self.writer is None or self._has_stepped():
            return
        if self.start and self.start.folder:
            for path, content in self._before.items():
                write_bytes(path, content)
        else:
            self.folder.discard()
        self.writer = None

    def after_fit(self) -> None:
        """Measure the report split, write the result, and print the summary that is made from it."""
        if self.folder is None:
            say(dry_run_text(self.trainer))
            return
        ended = why_ended(self.trainer)
        metrics, problem = measure(self.trainer, self.model, self.datamodule)
        result = self._leave(ended, metrics, problem)
        self.problems = [*([problem] if problem else []), *problems(self.trainer)]
        if result is not None:
            figures = {} if self.discovery is None else self.discovery.final(self.model)
            log_hyper_parameters(self.trainer, self.model, settings_of(result), {**figures, **figures_of(result)})
            sys.stdout.write(f"\n{summary(result, self.folder.path)}")

    def _leave(self, ended: str, metrics: Mapping[str, float] | None = None, problem: str = "") -> Result | None:
        """Write what the run has come to, if this process made the folder and trains at all."""
        if self.writer is None or not self.trainer.is_global_zero:
            return None
        return self.writer.write(ended, self.trainer, self.model, self.datamodule, metrics, problem)

    def validate(self, **kwargs: Any) -> None:
        """Print the accuracies on the selection split."""
        sys.stdout.write(result_lines(self.trainer.validate(**kwargs, verbose=False)))

    def test(self, **kwargs: Any) -> None:
        """Print the accuracies on the report split, and out of distribution where the task has such prompts."""
        sys.stdout.write(result_lines(self.trainer.test(**kwargs, verbose=False)))

    def predict(self, **kwargs: Any) -> None:
        """Print the answers."""
        for answer in self.trainer.predict(**kwargs):  # type: ignore[union-attr]
            sys.stdout.write(f"{answer}\n")

    def discover(self, **kwargs: Any) -> None:
        """Write the circuit of a checkpoint and say what it is."""
        results: list[Discovered | NoCircuitError] = self.trainer.discover(**kwargs)  # type: ignore[attr-defined]
        for found in results:
            if isinstance(found, NoCircuitError):
                say(f"no circuit: {found}")
                continue
            sys.stdout.write(discovered_text(found))
            sys.stdout.flush()
            if found.stopped:
                say("ended by Ctrl-C" + ("" if found.circuit.certificate.complete else ": there is no certificate"))
        if any(isinstance(found, Discovered) and found.stopped for found in results):
            sys.exit(130)
        if any(isinstance(found, NoCircuitError) for found in results):
            sys.exit(1)
        if not all(found.circuit.generalises for found in results if isinstance(found, Discovered)):
            say("what was found did not generalise: a stated bound fails on the report split; its file says so")
            sys.exit(_NOT_GENERAL)

    def _resume_command(self) -> str:
        """What goes on in this very run, as it was configured, whatever other runs have begun meanwhile."""
        assert self.folder is not None
        return shlex.join(["sparselit", "fit", "--ckpt_path", shown(self.folder.path)])
