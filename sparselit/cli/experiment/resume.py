"""Which checkpoint a command starts from, and whether it fits the experiment."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml
from lightning.pytorch import LightningDataModule, LightningModule

from sparselit.cli.experiment.arguments import LAST
from sparselit.errors import SparselitError
from sparselit.report.facts import shortened
from sparselit.runs.checkpoint_file import load_checkpoint, newest_loadable
from sparselit.runs.folder import RunFolder, shown


@dataclass(frozen=True)
class Start:
    """The checkpoint that a command starts from.

    Attributes:
        path: its file.
        content: what it holds.
        folder: the run folder that training goes on in; None to begin a new one.
        notes: lines to show the user.
    """

    path: Path
    content: Mapping[str, Any]
    folder: RunFolder | None
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> int:
        """Optimizer steps taken before the checkpoint was written."""
        return int(self.content.get("global_step", 0))

    @property
    def hyper_parameters(self) -> dict[str, Any]:
        """The model's arguments, those that the data set included."""
        saved = self.content.get("hyper_parameters") or {}
        return {key: value for key, value in saved.items() if not key.startswith("_")}

    @property
    def model_class(self) -> str | None:
        """Class path of the model, if it is known."""
        return (self.content.get("hyper_parameters") or {}).get("_class_path")


def find_start(ckpt_path: str, root: Path, name: str) -> Start:
    """Read the checkpoint that ``--ckpt_path`` means.

    ``last`` is the newest run of that name, and training goes on in its folder from its newest readable checkpoint; so
    it does in a run's folder that is given. A file starts a new run folder, so that nothing which came after that
    checkpoint is lost.

    Args:
        ckpt_path: ``last``, a run's folder, or a file.
        root: folder of all runs.
        name: name of the run.

    Raises:
        SparselitError: there is none, or none can be read.
    """
    path = Path(ckpt_path)
    if ckpt_path != LAST and not path.is_dir():
        return Start(path, load_checkpoint(path), None)
    folder = RunFolder.newest(root, name) if ckpt_path == LAST else RunFolder.of(path)
    if folder is None or not folder.checkpoints():
        raise SparselitError(f"--ckpt_path {ckpt_path}: no run's folder, or one without a checkpoint")
    path, content, damaged = newest_loadable(folder.checkpoints())
    notes = tuple(f"{shown(other)} cannot be read; falling back to {path.name}" for other in damaged)
    return Start(path, content, folder, notes)


def refuse_other_seed(start: Start, seed: object) -> None:
    """Refuse to go on in a run that was begun with another seed: it is another run.

    Args:
        start: where the run goes on.
        seed: of this command.

    Raises:
        SparselitError: the seeds differ; the message names both and the run.
    """
    if start.folder is None or not start.folder.config.is_file():
        return
    try:
        saved = yaml.safe_load(start.folder.config.read_text(encoding="utf-8"))
    except (OSError, ValueError, yaml.YAMLError):
        return
    before = saved.get("seed_everything") if isinstance(saved, Mapping) else None
    if before is not None and before != seed:
        raise SparselitError(
            f"{shown(start.folder.path)} was begun with seed_everything {before}, this command says {seed}; leave"
            " --ckpt_path out to begin a run,\nor name the run to go on in: --ckpt_path RUN_FOLDER"
        )


def check_fit(start: Start, model: LightningModule, data: LightningDataModule | None) -> None:
    """Refuse a checkpoint of another vocabulary or of other shapes before anything is computed.

    Args:
        start: where the run goes on.
        model: the module that is to take the weights.
        data: its vocabulary is compared; None for none.

    Raises:
        SparselitError: in one or two lines, what differs.
    """
    if data is not None:
        _check_vocabulary(start, data)
    saved = start.content["state_dict"]
    own = model.state_dict()
    missing, unknown = sorted(own.keys() - saved.keys()), sorted(saved.keys() - own.keys())
    where = shown(start.path)
    if missing or unknown:
        text = f"lacks {missing[0]!r}" if missing else f"holds {unknown[0]!r}, which the model has not"
        raise SparselitError(f"{where} {text}: it belongs to another model; give it the same model: settings")
    for name, tensor in own.items():
        if tensor.shape != saved[name].shape:
            raise SparselitError(
                f"{where} does not fit: {name} is {tuple(saved[name].shape)} there and {tuple(tensor.shape)} here;"
                " use the same model and data settings"
            )


def check_training_state(start: Start) -> None:
    """Refuse to train on from a checkpoint that is a model only, as ``sparselit convert`` writes it.

    Raises:
        SparselitError: the state of the optimizer or of the loops is not there.
    """
    if not {"optimizer_states", "loops"} <= start.content.keys():
        raise SparselitError(
            f"{shown(start.path)} holds a model and no state of its training; fit cannot go on from there"
        )


def _check_vocabulary(start: Start, data: LightningDataModule) -> None:
    state: Mapping[str, Any] = data.state_dict()
    saved = start.content.get(type(data).__qualname__)
    if saved is None:  # of another class: any data state with a vocabulary
        states = [value for value in start.content.values() if isinstance(value, Mapping) and "vocabulary" in value]
        saved = states[0] if states else None
    if not isinstance(saved, Mapping) or "vocabulary" not in state or "vocabulary" not in saved:
        return
    if list(saved["vocabulary"]) != list(state["vocabulary"]):
        other = str(saved.get("task", "another task")).rpartition(".")[2]
        raise SparselitError(
            f"{shown(start.path)} was trained on {other}, whose vocabulary {_sketch(saved['vocabulary'])}\n"
            f"differs from that of {type(data).__name__}, {_sketch(state['vocabulary'])}"
        )


def _sketch(vocabulary: list[str]) -> str:
    text = "".join(map(str, vocabulary))
    return f"{shortened(text, 24, 'begin')} ({len(vocabulary)} tokens)"


def data_changes(start: Start, data: LightningDataModule | None) -> Iterator[str]:
    """A line for each argument of the data that was another when the checkpoint was written.

    Args:
        start: where the run goes on.
        data: of this command; None for none.
    """
    saved = {key: value for key, value in start.content.get("datamodule_hyper_parameters", {}).items() if key[0] != "_"}
    current = {} if data is None else {key: value for key, value in data.hparams.items() if key[0] != "_"}
    for key, before, now in differences(saved, current):
        yield f"data.{key}: {now} from now on, {before} until step {start.step}"


def differences(saved: Mapping[str, Any], current: Mapping[str, Any]) -> Iterator[tuple[str, Any, Any]]:
    """Keys that both have with different values, as (key, saved value, current value).

    Args:
        saved: values of the checkpoint.
        current: values of this command.
    """
    for key, value in saved.items():
        if key in current and _builtin(current[key]) != _builtin(value):
            yield key, _builtin(value), _builtin(current[key])


def _builtin(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_builtin(item) for item in value]
    if isinstance(value, Mapping):
        return {key: _builtin(item) for key, item in value.items()}
    return value
