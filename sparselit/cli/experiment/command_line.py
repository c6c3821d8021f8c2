"""From the words that a user typed to objects: keys, parsing, the checkpoint's hyper-parameters, readable refusals."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import yaml
from lightning.pytorch import Callback, LightningDataModule, LightningModule
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI, ReduceLROnPlateau
from torch.optim import Optimizer

from sparselit.cli.commands import EXPERIMENT
from sparselit.cli.experiment.arguments import Arguments
from sparselit.cli.experiment.conflicts import (
    LINKS,
    check_name,
    inline,
    refuse_flags,
    refuse_length,
    refuse_linked,
    refuse_precision,
    replaced_lists,
    silent_changes,
)
from sparselit.cli.experiment.discover_command import EXPLAINED
from sparselit.cli.experiment.escaped import explained, sentence
from sparselit.cli.experiment.help import OPTIONS, experiment_help
from sparselit.cli.experiment.monitors import refuse_monitors
from sparselit.cli.experiment.parser import ExperimentParser
from sparselit.cli.experiment.reproducible import pin_torch
from sparselit.cli.experiment.resume import Start, differences, find_start
from sparselit.cli.experiment.trainer import ExperimentTrainer
from sparselit.cli.experiment.values import plain_defaults, refuse_no_keys, refuse_values
from sparselit.data.task import Task
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.runs.folder import RUNS, RunFolder, shown
from sparselit.training.discovery import Discovery
from sparselit.training.sparsifier import Sparsifier

MODEL = "sparselit.SparseTransformer"
#: Arguments of our model that the keys ``optimizer`` and ``lr_scheduler`` replace.
OPTIMIZER_KEYS = ("lr", "betas", "eps", "weight_decay", "warmup", "decay", "final_lr", "sharkfin")
#: Optional keys beside Lightning's, each a callback of its own: adding one is one line.
CALLBACK_KEYS: dict[str, type[Callback]] = {"sparsity": Sparsifier, "circuits": Discovery}

TRAINER_DEFAULTS: dict[str, Any] = {
    "max_steps": -1,
    # Training streams have no end: count in optimizer steps, not in epochs.
    "check_val_every_n_epoch": None,
    "val_check_interval": 500,
    "log_every_n_steps": 10,
    "enable_model_summary": False,
    "num_sanity_val_steps": 0,
}


class CommandLine(LightningCLI):
    """LightningCLI up to the point where the objects of one experiment are made; a subclass runs them.

    Args:
        arguments: what the user typed.
    """

    def __init__(self, arguments: Arguments) -> None:
        self.arguments = arguments
        self.start: Start | None = None
        self.notes: list[str] = []  # what happens that the user may not expect; said once nothing was refused
        self._refusal: SparselitError | None = None  # of the last object that could not be made
        self._failure: tuple[str, Exception] | None = None  # of the first that failed: its class, and how
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
            "discover": {"model", "datamodule"},
        }

    def init_parser(self, **kwargs: Any) -> LightningArgumentParser:
        """A parser whose saved files do not begin with Lightning's version."""
        kwargs.setdefault("dump_header", [])
        return super().init_parser(**kwargs)

    def add_core_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Our keys first, then the trainer's long list."""
        parser.add_argument("--name", type=str | None, default=None, help=OPTIONS["name"])
        parser.add_argument(
            "--threads",
            type=int | None,
            default=None,
            help="CPU threads of torch; null for one per core. Small models are fast with 1, also on a busy machine.",
        )
        parser.add_argument("--reproducible", type=bool, default=False, help=OPTIONS["reproducible"])
        parser.add_argument("--effort", type=str | None, default=None, help=OPTIONS["effort"])
        parser.add_argument("--init_from", type=str | None, default=None, help=OPTIONS["init_from"])
        parser.add_argument("--compile", type=bool | dict[str, Any], default=False, help=OPTIONS["compile"])
        parser.add_lightning_class_args(LightningDataModule, "data", subclass_mode=True)
        parser.add_lightning_class_args(LightningModule, "model", subclass_mode=True)
        parser.set_defaults({"model": {"class_path": MODEL}})
        for key, base in CALLBACK_KEYS.items():
            parser.add_lightning_class_args(base, key, subclass_mode=True, required=False)
        for target, source in LINKS.items():
            parser.link_arguments(source, f"model.init_args.{target}", apply_on="instantiate")
        parser.add_lightning_class_args(self.trainer_class, "trainer")
        parser.set_defaults({f"trainer.{key}": value for key, value in self.trainer_defaults.items()})

    @staticmethod
    def configure_optimizers(lightning_module: LightningModule, optimizer: Optimizer, lr_scheduler: Any = None) -> Any:
        """The keys ``optimizer`` and ``lr_scheduler``: as Lightning's, but a schedule counts optimizer steps.

        A stream without end has one epoch. What waits for a monitored value is told of it after each validation.
        """
        if lr_scheduler is None:
            return optimizer
        schedule = {"scheduler": lr_scheduler, "interval": "step", "name": "lr"}
        if isinstance(lr_scheduler, ReduceLROnPlateau):
            trainer = lightning_module.trainer
            refuse_monitors(trainer, lightning_module, getattr(trainer, "datamodule", None), lr_scheduler)
            schedule |= {"monitor": lr_scheduler.monitor, "frequency": trainer.val_check_interval}
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def _add_configure_optimizers_method_to_model(self, subcommand: str | None) -> None:
        """Lightning's step, with the answer of an optimizer or a schedule that cannot be made in one line."""
        own = [key for key in OPTIMIZER_KEYS if key in self.model.hparams]
        chosen = self._get(self.config_init, "optimizer")
        try:
            super()._add_configure_optimizers_method_to_model(subcommand)
        except (ValueError, TypeError) as error:
            raise SparselitError(f"optimizer, lr_scheduler: {sentence(error)}") from error
        if chosen and own and subcommand == "fit":
            self.notes.append(f"optimizer: {chosen['class_path']}; model.{', '.join(own)} do nothing then")

    def _prepare_subcommand_parser(self, klass: type, subcommand: str, **kwargs: Any) -> LightningArgumentParser:
        parser = super()._prepare_subcommand_parser(klass, subcommand, **kwargs)
        assert isinstance(parser, ExperimentParser)
        if subcommand == "fit":
            parser.add_argument("--allow_dense", type=bool, default=False, help=OPTIONS["allow_dense"])
        bases = {"data": Task, "model": LightningModule, **CALLBACK_KEYS}
        purpose = EXPLAINED if subcommand == "discover" else EXPERIMENT[subcommand]
        parser.help_text = lambda: experiment_help(parser, subcommand, purpose, SparseTransformer, bases, tuple(LINKS))
        return parser

    # -- parsing ------------------------------------------------------------------------------------------------------

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, then refuse or report what the parser lets pass without a word."""
        self.config = parser.parse_args(args)
        settings = self.config[self.config.subcommand]
        for key, text in self.arguments.texts.items():
            settings[key] = text  # no file, such as a run's config.yaml, undoes it
        refuse_linked(self.arguments.layers)
        refuse_no_keys(settings)
        refuse_flags(settings.trainer)
        refuse_length(settings.trainer, self.config.subcommand)
        refuse_precision(settings.trainer)
        refuse_values(settings)
        if settings.get("lr_scheduler") and not settings.get("optimizer"):
            raise SparselitError(
                "lr_scheduler needs optimizer; without both, model.lr, warmup and decay are the schedule"
            )
        plain_defaults(settings)
        if settings.reproducible and settings.compile:
            raise SparselitError("reproducible: true pins kernels that compile replaces; set one of them to false")
        if settings.reproducible:
            self.notes += pin_torch(settings.threads)
        elif settings.get("threads") is not None:
            torch.set_num_threads(settings.threads)
        self.notes += (*silent_changes(settings, self.arguments.layers), *replaced_lists(self.arguments.layers))

    def _parse_ckpt_path(self) -> None:
        """Find the checkpoint, and let its hyper-parameters win over the configuration, saying so."""
        settings = self.config[self.config.subcommand]
        if not settings.get("ckpt_path"):
            return
        training = self.config.subcommand == "fit"
        self.start = find_start(settings.ckpt_path, self._root(settings), self._name(settings), training)
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
        """Name of the run: the one that is given, or else the first configuration file's, or the task's."""
        if settings.get("name") is not None:
            check_name(settings.name)
            return str(settings.name)
        if self.arguments.config_files:
            path = self.arguments.config_files[0]
            folder = RunFolder.of(path) if path.name == "config.yaml" else None
            return folder.name if folder else path.stem
        return str(settings.data.class_path).rpartition(".")[2].lower()

    # -- objects --------------------------------------------------------------------------------------------------

    def _add_instantiators(self) -> None:
        super()._add_instantiators()
        self.parser.add_instantiator(self._remember_refusal, object, subclasses=True)

    def _remember_refusal(self, class_type: type, *args: Any, **kwargs: Any) -> Any:
        try:
            return class_type(*args, **kwargs)
        except SparselitError as error:
            self._refusal = error
            raise
        except Exception as error:
            self._failure = self._failure or (class_type.__name__, error)
            raise

    def instantiate_classes(self) -> None:
        """Make the objects; a refusal by one of them comes through jsonargparse's list of types that did not fit."""
        try:
            super().instantiate_classes()
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, SparselitError):
                cause = cause.__cause__
            if cause or self._refusal:
                raise cause or self._refusal from None  # type: ignore[misc]
            if self._failure is None:
                raise
            name, failure = self._failure
            raise explained(failure, training=False, what=name) or failure from None
