"""Which checkpoint a command starts from, and whether it fits the experiment."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule

from sparselit.cli.experiment import yaml_text
from sparselit.cli.experiment.arguments import BEST, LAST
from sparselit.cli.experiment.conflicts import inline
from sparselit.errors import SparselitError
from sparselit.report.facts import shortened
from sparselit.runs.checkpoint_file import holds_training, load_checkpoint, newest_loadable
from sparselit.runs.folder import RunFolder, checkpoint_files, shown
from sparselit.training.resumption import sparse_shares


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


def find_start(ckpt_path: str, root: Path, name: str, training: bool) -> Start:
    """Read the checkpoint that ``--ckpt_path`` means.

    ``last`` is the newest run of that name, and training goes on in its folder from its newest readable checkpoint; so
    it does in a run's folder that is given. A file starts a new run folder, so that nothing which came after that
    checkpoint is lost; so does ``best``, the file that a ``ModelCheckpoint`` of the newest run has found best.

    Args:
        ckpt_path: ``last``, ``best``, a run's folder, or a file.
        root: folder of all runs.
        name: name of the run.
        training: training is to go on from it, so that files of weights alone are passed over.

    Raises:
        SparselitError: there is none, or none can be read.
    """
    path = Path(ckpt_path)
    if ckpt_path == BEST:
        path = _best_of(RunFolder.newest(root, name, BEST))
        return Start(path, load_checkpoint(path), None, (f"the best checkpoint is {shown(path)}",))
    if ckpt_path != LAST and not path.is_dir():
        return Start(path, load_checkpoint(path), None)
    folder = RunFolder.newest(root, name) if ckpt_path == LAST else RunFolder.of(path)
    if folder is None or not folder.checkpoints():
        raise SparselitError(f"--ckpt_path {ckpt_path}: no run's folder, or one without a checkpoint")
    path, content, damaged = newest_loadable(checkpoint_files(folder.checkpoint_folder), training)
    notes = tuple(f"{shown(other)} cannot be read; falling back to {path.name}" for other in damaged)
    return Start(path, content, folder, notes)


def _best_of(folder: RunFolder) -> Path:
    """The file that a ``ModelCheckpoint`` of a run has found best, as the newest file that it or we have written says.

    Args:
        folder: of the run.

    Raises:
        SparselitError: no such callback monitored anything, several did, or the file is not there any more.
    """
    files = folder.checkpoint_folder.glob("*.ckpt")
    for file in sorted(files, key=lambda path: path.stat().st_mtime_ns, reverse=True):
        try:
            states = load_checkpoint(file).get("callbacks")
        except SparselitError:
            continue
        states = states.values() if isinstance(states, Mapping) else ()
        found = {
            str(state["best_model_path"])
            for state in states
            if isinstance(state, Mapping) and state.get("best_model_path") and state.get("monitor")
        }
        if len(found) > 1:
            raise SparselitError(
                f"--ckpt_path best: several callbacks of the run have one; name one of {sorted(found)}"
            )
        for name in found:
            moved = file.with_name(Path(name).name)
            best = moved if moved.is_file() else Path(name)
            if not best.is_file():
                raise SparselitError(f"--ckpt_path best: {shown(best)} is not there any more")
            return best
    raise SparselitError(
        "--ckpt_path best: the newest run of this configuration has none; add a ModelCheckpoint with a monitor,\n"
        "such as val/loss, or take the newest checkpoint with --ckpt_path last"
    )


def saved_configuration(start: Start) -> Mapping[str, Any]:
    """The configuration of the run that a checkpoint belongs to; empty where there is none that can be read."""
    folder = start.folder or RunFolder.of(start.path)
    try:
        return yaml_text.read(folder.config) if folder else {}
    except SparselitError:
        return {}


def refuse_other_seed(start: Start, seed: object) -> None:
    """Refuse to go on in a run that was begun with another seed: it is another run.

    Args:
        start: where the run goes on.
        seed: of this command.

    Raises:
        SparselitError: the seeds differ; the message names both and the run.
    """
    if start.folder is None:
        return
    before = saved_configuration(start).get("seed_everything")
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


def check_training_state(start: Start, model: LightningModule) -> None:
    """Refuse to train on from what training cannot go on from.

    Args:
        start: where the run goes on.
        model: the module that is to take the weights.

    Raises:
        SparselitError: the state of the optimizer or of the loops is not there, as in what ``sparselit convert``
            writes; or the weights are not finite, so that the first step would end the run.
    """
    if not holds_training(start.content):
        raise SparselitError(
            f"{shown(start.path)} holds a model and no state of its training; fit cannot go on from there"
        )
    for name, _ in model.named_parameters():
        if not bool(start.content["state_dict"][name].isfinite().all()):
            raise SparselitError(
                f"{shown(start.path)} holds NaN or infinity in {name}: its training had diverged; go on from an earlier"
                " checkpoint, or begin again"
            )


def _check_vocabulary(start: Start, data: LightningDataModule) -> None:
    state: Mapping[str, Any] = data.state_dict()
    saved = saved_vocabulary(start.content, data)
    if saved is None or "vocabulary" not in state:
        return
    if not isinstance(saved["vocabulary"], list | tuple):
        raise SparselitError(f"{shown(start.path)} is damaged: the vocabulary in it is no list")
    if list(saved["vocabulary"]) != list(state["vocabulary"]):
        other = str(saved.get("task", "another task")).rpartition(".")[2]
        raise SparselitError(
            f"{shown(start.path)} was trained on {other}, whose vocabulary {_sketch(saved['vocabulary'])}\n"
            f"differs from that of {type(data).__name__}, {_sketch(state['vocabulary'])}"
        )


def saved_vocabulary(content: Mapping[str, Any], data: LightningDataModule) -> Mapping[str, Any] | None:
    """The state of the data that a checkpoint holds, where it has a vocabulary.

    Args:
        content: of the checkpoint.
        data: state of its class is meant; where there is none, that of any other.
    """
    saved = content.get(type(data).__qualname__)
    if saved is None:
        states = [value for value in content.values() if isinstance(value, Mapping) and "vocabulary" in value]
        saved = states[0] if states else None
    return saved if isinstance(saved, Mapping) and "vocabulary" in saved else None


def _sketch(vocabulary: Iterable[Any]) -> str:
    words = list(map(str, vocabulary))
    return f"{shortened(''.join(words), 24, 'begin')} ({len(words)} tokens)"


def adopt_batch_size(start: Start, data: LightningDataModule | None) -> None:
    """Go on with the batch size that a finder had found when the run began.

    Args:
        start: where the run goes on.
        data: its ``batch_size`` is set.
    """
    found = start.content.get("datamodule_hyper_parameters", {}).get("batch_size")
    if data is not None and isinstance(found, int):
        data.batch_size = found  # type: ignore[attr-defined]


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


def setting_changes(start: Start, current: Mapping[str, Any]) -> Iterator[str]:
    """A line for each setting of sparsity, circuits and length that was another in the run that goes on.

    Args:
        start: where it goes on.
        current: the configuration of this command.
    """
    saved = saved_configuration(start)
    for key in _TOLD if saved else ():
        before, now = _by_key(saved, key), _by_key(current, key)
        replaced = key if before.get(key) != now.get(key) else None  # by another class, or by nothing
        for name in sorted(before.keys() | now.keys()):
            if before.get(name) != now.get(name) and replaced in (None, name):
                texts = [shortened(inline(each.get(name)), 40) for each in (now, before)]
                yield f"{name}: {texts[0]} from now on, {texts[1]} until step {start.step}"


#: Settings whose change in the middle of a run is told.
_TOLD = ("sparsity", "circuits", "trainer.max_steps", "trainer.max_epochs")


def _by_key(configuration: Mapping[str, Any], key: str) -> dict[str, Any]:
    """The values below a key by their names in YAML; a class stands under the key itself."""
    value: Any = configuration
    for part in key.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    found: dict[str, Any] = {}

    def collect(name: str, value: Any) -> None:
        if not isinstance(value, Mapping):
            found[name] = value
        elif "class_path" in value:
            found[name] = value["class_path"]
            for part in ("init_args", "dict_kwargs"):
                for inner, each in (value.get(part) or {}).items():
                    collect(f"{name}.{inner}", each)
        else:
            for inner, each in value.items():
                collect(f"{name}.{inner}", each)

    collect(key, value)
    return found


def refuse_dense(start: Start, covered: Collection[str], allowed: bool) -> None:
    """Refuse to go on densely with tensors that a checkpoint holds sparse, unless that was said.

    Args:
        start: where the run goes on.
        covered: names of the tensors that are sparsified now.
        allowed: ``--allow_dense`` was given.

    Raises:
        SparselitError: names the tensors.
    """
    lost = {name: share for name, share in sparse_shares(start.content).items() if name not in covered}
    if lost and not allowed:
        others = f" and {len(lost) - 1} more" if len(lost) > 1 else ""
        name, share = next(iter(lost.items()))
        raise SparselitError(
            f"{shown(start.path)} is sparse and nothing keeps it so: {name} (density {share:.4g}){others};\nkeep its"
            " sparsity: settings, or add --allow_dense true"
        )


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
