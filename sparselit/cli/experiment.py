"""``fit``, ``validate``, ``test`` and ``predict``: LightningCLI with run folders, resuming and readable errors."""

from __future__ import annotations

import os
import shlex
import sys
import time
from pathlib import Path
from typing import Any

import yaml
from lightning.fabric.plugins import CheckpointIO
from lightning.pytorch import Callback, LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.trainer.states import TrainerStatus
from lightning.pytorch.utilities.exceptions import MisconfigurationException

from sparselit.checkpoint import write_atomically
from sparselit.checkpointing import AtomicCheckpointIO, RandomState, RunCheckpoint
from sparselit.cli import EXPERIMENT
from sparselit.cli.arguments import Arguments
from sparselit.cli.checks import LINKS, inline, refuse_length, refuse_linked, silent_changes
from sparselit.cli.help import experiment_help
from sparselit.cli.interruption import Interrupted, Interruption
from sparselit.cli.noise import quieten
from sparselit.cli.outcome import files, measure, result_lines
from sparselit.cli.parser import ExperimentParser
from sparselit.cli.plugins import load_plugins
from sparselit.cli.resume import Start, check_fit, data_changes, differences, find_start
from sparselit.cli.trainer import Events, ExperimentTrainer
from sparselit.discovery import Discovery
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.report.summary import Summary, scores
from sparselit.run_folder import RUNS, RunFolder, shown
from sparselit.sparsifier import Sparsifier
from sparselit.sparsity.density import density_table
from sparselit.task import Task

MODEL = "sparselit.SparseTransformer"
#: Optional keys beside Lightning's, each a callback of its own: adding one is one line.
CALLBACK_KEYS: dict[str, type[Callback]] = {"sparsity": Sparsifier, "circuits": Discovery}
#: Set by the process that the user started, for the ones that DDP starts.
_FOLDER_VARIABLE = "SPARSELIT_RUN_FOLDER"

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_steps": -1,
    # Training streams have no end: count in optimizer steps, not in epochs.
    "check_val_every_n_epoch": None,
    "val_check_interval": 500,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


def run(arguments: Arguments) -> None:
    """Run one experiment command.

    Raises:
        SparselitError: the user can mend it.
    """
    load_plugins()
    quieten()
    try:
        Experiment(arguments)
    except MisconfigurationException as error:
        raise SparselitError(f"trainer: {_sentence(error)}") from error


class Experiment(LightningCLI):
    """One command line, from parsing to the summary.

    Args:
        arguments: what the user typed.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.start: Start | None = None
        self.notes: list[str] = []  # what happens that the user may not expect; said once nothing was refused
        self.folder: RunFolder | None = None
        self.checkpoint: RunCheckpoint | None = None
        self.interruption = Interruption(None)
        self._refusal: SparselitError | None = None  # of the last object that could not be made
        super().__init__(
            LightningModule,
            LightningDataModule,
            save_config_callback=None,
            trainer_class=ExperimentTrainer,
            trainer_defaults=TRAINER_DEFAULTS,
            seed_everything_default=0,
            parser_class=ExperimentParser,
            subclass_mode_model=True,
            subclass_mode_data=True,
            args=arguments.argv,
            auto_configure_optimizers=False,
        )

    # -- the keys -----------------------------------------------------------------------------------------------------

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Lightning's commands, and the arguments of their methods that are not options."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule", "weights_only"},
            "validate": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
            "test": {"model", "dataloaders", "datamodule", "weights_only", "verbose"},
            "predict": {"model", "dataloaders", "datamodule"},
        }

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose saved files do not begin with Lightning's version."""
        kwargs.setdefault("dump_header", [])
        return super().init_parser(**kwargs)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our keys first, then the trainer's long list."""
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
        parser.set_defaults({"model": {"class_path": MODEL}})
        for key, base in CALLBACK_KEYS.items():
            parser.add_lightning_class_args(base, key, subclass_mode=True, required=False)
        for target, source in LINKS.items():
            parser.link_arguments(source, f"model.init_args.{target}", apply_on="instantiate")
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, ExperimentParser)
        bases = {"data": Task, "model": LightningModule, **CALLBACK_KEYS}
        parser.help_text = lambda: experiment_help(
            parser, subcommand, EXPERIMENT[subcommand], SparseTransformer, bases, tuple(LINKS)
        )
        return parser

    # -- parsing ------------------------------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then refuse or report what the parser lets pass without a word."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config.subcommand]
        refuse_linked(self.arguments.layers)
        refuse_length(settings.trainer, self.config.subcommand)
        self.notes += silent_changes(settings, self.arguments.layers)

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint, and let its hyper-parameters win over the configuration, saying so."""
        settings = self.config[self.config.subcommand]
        if not settings.get("ckpt_path"):
            return
        self.start = find_start(settings.ckpt_path, self._root(settings), self._name(settings))
        settings.ckpt_path = str(self.start.path)
        self.notes += self.start.notes
        self._adopt_hyper_parameters(self.start)

    def _adopt_hyper_parameters(self, start: Start) -> None:
        command = self.config.subcommand
        dump = yaml.safe_load(self.parser.dump(self.config, skip_unset=False, skip_validation=True))[command]["model"]
        if start.model_class is None:
            return
        if start.model_class.rpartition(".")[2] != dump["class_path"].rpartition(".")[2]:
            raise SparselitError(
                f"{shown(start.path)} holds a {start.model_class}, and model.class_path is {dump['class_path']}"
            )
        changed = {}
        for key, saved, current in differences(start.hyper_parameters, dump.get("init_args", {})):
            if key not in LINKS:
                changed[key] = saved
                self.notes.append(f"model.{key}: {inline(saved)} from the checkpoint, not {inline(current)}")
        if changed:
            override = {"class_path": dump["class_path"], "init_args": changed}
            self.config = self.parser.parse_object({command: {"model": override}}, self.config)

    # -- the run folder -----------------------------------------------------------------------------------------------

    def _root(self, settings: Any) -> Path:
        return Path(settings.trainer.get("default_root_dir") or Path.cwd()) / RUNS

    def _name(self, settings: Any) -> str:
        """Name of the run: the first configuration file's, or else the task's."""
        if self.arguments.config_files:
            path = self.arguments.config_files[0]
            folder = RunFolder.of(path) if path.name == "config.yaml" else None
            return folder.name if folder else path.stem
        return str(settings.data.class_path).rpartition(".")[2].lower()

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(self._remember_refusal, object, subclasses=True)

    def _remember_refusal(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return class_type(*args, **kwargs)
        except SparselitError as error:
            self._refusal = error
            raise

    def instantiate_classes(self) -> None:
        """Make the objects; a refusal by one of them comes through jsonargparse's list of types that did not fit."""
        try:
            super().instantiate_classes()
        except ValueError as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, SparselitError):
                cause = cause.__cause__
            refusal = cause or self._refusal
            if refusal is None:
                raise
            raise refusal from None

    # -- objects ------------------------------------------------------------------------------------------------------

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """The trainer with our callbacks; optional keys that are left out add none."""
        keys = self._parser(self.subcommand).callback_keys
        callbacks = [callback for key in keys if (callback := self._get(self.config_init, key)) is not None]
        config: dict[str, Any] = {**self._get(self.config_init, "trainer", default={}), **kwargs}
        given = config.get("callbacks") or []
        given = given if isinstance(given, list) else [given]
        if config.get("enable_progress_bar") is not False and not any(isinstance(c, ProgressBar) for c in given):
            callbacks.append(TQDMProgressBar(refresh_rate=20 if sys.stdout.isatty() else 200))
        if self.subcommand == "fit":
            callbacks.append(RandomState())
            if config.get("enable_checkpointing") is not False:
                own = [callback for callback in given if isinstance(callback, RunCheckpoint)]
                self.checkpoint = own[0] if own else RunCheckpoint()
                callbacks += [] if own else [self.checkpoint]
            self.interruption.checkpoint = self.checkpoint
            if self.checkpoint is not None:
                callbacks.append(self.interruption)
        else:
            config["callbacks"] = [callback for callback in given if not isinstance(callback, Checkpoint)]
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
            return self._instantiate_trainer(config, callbacks)
        except (ValueError, TypeError) as error:  # what Lightning raises for names that it does not know
            raise SparselitError(f"trainer: {_sentence(error)}") from error

    # -- running ------------------------------------------------------------------------------------------------------

    def _run_subcommand(self, subcommand: str) -> None:
        """Check what can be checked without computing, then run."""
        if self.start is not None:
            check_fit(self.start, self.model, self.datamodule)
            self.notes += data_changes(self.start, self.datamodule) if self.start.folder else ()
        if subcommand != "fit":
            self._tell_notes()
        try:
            super()._run_subcommand(subcommand)
        except Interrupted as stop:
            for logger in self.trainer.loggers:
                logger.finalize("interrupted")
            _say(f"stopped after step {stop.step}; go on with:\n{self._resume_command()}")
            sys.exit(128 + stop.signum)
        except SystemExit:
            self._discard_folder()
            if self.trainer.state.status == TrainerStatus.INTERRUPTED:  # Lightning's answer to Ctrl-C is exit code 1
                sys.exit(130)
            raise

    def before_fit(self) -> None:
        """Refuse what cannot work; then, and only then, make the run folder."""
        for callback in self.trainer.callbacks:  # type: ignore[attr-defined]
            if isinstance(callback, Sparsifier):
                callback.validate(self.model, self.trainer.max_steps)
        self._tell_notes()
        if self._get(self.config, "trainer").fast_dev_run:
            return
        self.folder = self._make_folder()
        if self._wants_tensorboard:
            self.trainer.logger = Events(
                save_dir=self.folder.root,
                name=self.folder.name,
                version=self.folder.version,
                default_hp_metric=False,
            )
        if self.checkpoint is not None and self.checkpoint.dirpath is None:
            self.checkpoint.dirpath = self.folder.checkpoint_folder
        if self.start is not None:
            verb = "resuming" if self.start.folder else "starting a new run"
            _say(f"{verb} from step {self.start.step} ({shown(self.start.path)})")
            if self.start.step >= self.trainer.max_steps > 0:
                _say(f"nothing left to train: trainer.max_steps is {self.trainer.max_steps}")
        _say(f"run folder {shown(self.folder.path)}")

    def _tell_notes(self) -> None:
        for note in self.notes:
            _say(note)

    def _make_folder(self) -> RunFolder:
        settings = self.config["fit"]
        root, name = self._root(settings), self._name(settings)
        started_by_ddp = int(os.environ.get("LOCAL_RANK", 0)) > 0
        if started_by_ddp and _FOLDER_VARIABLE in os.environ:
            return RunFolder(root, name, int(os.environ[_FOLDER_VARIABLE]))
        folder = self.start.folder if self.start and self.start.folder else RunFolder.next(root, name).create()
        os.environ[_FOLDER_VARIABLE] = str(folder.version)
        saved = settings.clone()
        saved.ckpt_path = None
        text = self._parser("fit").dump(saved, skip_unset=False, skip_validation=True)
        write_atomically(folder.config, lambda file: file.write(text.encode()))
        return folder

    def fit(self, **kwargs: Any) -> None:
        """Train, listening for Ctrl-C."""
        began = time.monotonic()
        try:
            with self.interruption.listening():
                self.trainer.fit(**kwargs)
        except (SparselitError, MisconfigurationException):
            self._discard_folder()
            raise
        self._seconds = time.monotonic() - began

    def _discard_folder(self) -> None:
        """Remove a folder made for a run that ended before its first step."""
        if self.folder and not (self.start and self.start.folder) and self.trainer.global_step == 0:
            self.folder.discard()

    def after_fit(self) -> None:
        """Measure the report split, and write and print the summary."""
        if self.folder is None:
            return
        steps, metrics = self.trainer.global_step, measure(self.trainer, self.model, self.datamodule)
        if not self.trainer.is_global_zero:
            return
        summary = Summary(
            name=f"{self.folder.name}/version_{self.folder.version}",
            task=type(self.datamodule).__name__,
            model=type(self.model).__name__,
            steps=steps,
            seconds=self.checkpoint.seconds if self.checkpoint else self._seconds,
            scores=scores(metrics),
            rows=density_table(self.model.state_dict()),
            lines=files(self.folder, self.checkpoint),
            commands=[
                ("the same run again", f"sparselit fit --config {shlex.quote(shown(self.folder.config))}"),
                ("go on from the last checkpoint", self._resume_command()),
                ("curves", f"tensorboard --logdir {shlex.quote(shown(self.folder.root))}"),
            ],
        )
        write_atomically(self.folder.summary, lambda file: file.write(str(summary).encode()))
        sys.stdout.write(f"\n{summary}")

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

    def _resume_command(self) -> str:
        return shlex.join(self.arguments.again("--ckpt_path", "last"))


def _sentence(error: Exception) -> str:
    """The first sentence of a message of Lightning's, without its back quotes."""
    text = " ".join(str(error).replace("`", "").split())
    return text.partition(". ")[0]


def _say(text: str) -> None:
    sys.stderr.write(f"{text}\n")
