"""``fit --init_from``: a run that begins with the weights of another model, and with nothing else of it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningDataModule, LightningModule
from torch import Tensor

from sparselit.cli.experiment.conflicts import LINKS, inline
from sparselit.cli.experiment.resume import differences, saved_vocabulary
from sparselit.errors import SparselitError
from sparselit.interop.openai import CONFIG_FILE, load_openai
from sparselit.interop.shipped import unpack
from sparselit.model.transformer import Transformer
from sparselit.report.facts import counted, percent
from sparselit.runs.checkpoint_file import load_checkpoint, newest_loadable
from sparselit.runs.folder import RunFolder, checkpoint_files, shown
from sparselit.runs.shipped import is_shipped
from sparselit.training.initial_weights import plain_names, take_weights

#: Arguments of the transformer that say how it begins, and not what it is.
_NO_SHAPE = {*LINKS, "init_std"}


@dataclass(frozen=True)
class Source:
    """A model to begin with.

    Attributes:
        path: its file, or its folder.
        state: its tensors by name.
        content: what else the file holds, as the vocabulary of its data.
    """

    path: Path
    state: dict[str, Tensor]
    content: Mapping[str, Any]


def find_source(text: str) -> Source:
    """Read the weights that ``--init_from`` means.

    Args:
        text: a checkpoint; a run's folder, for its newest checkpoint; a folder that ``sparselit convert`` takes; or the
            name of a shipped model.

    Raises:
        SparselitError: there is no such thing, or it cannot be read.
    """
    path = unpack(text) if is_shipped(text) else Path(text)
    if not text.strip() or not path.exists():
        raise SparselitError(
            f"init_from {text!r} does not exist; name a checkpoint, a run's folder, a model's folder or a"
            " shipped model (`sparselit models`)"
        )
    try:
        if not path.is_dir():
            content = load_checkpoint(path)
        elif (path / CONFIG_FILE).is_file():
            tensors = load_openai(path).state_dict()
            return Source(path, {f"transformer.{name}": tensor for name, tensor in tensors.items()}, {})
        elif (folder := RunFolder.of(path)) is not None and folder.checkpoints():
            path, content, _ = newest_loadable(checkpoint_files(folder.checkpoint_folder))
        else:
            raise SparselitError(f"{shown(path)} holds neither a run's checkpoints nor a {CONFIG_FILE}")
    except SparselitError as error:
        raise SparselitError(f"init_from: {error}") from None
    return Source(path, plain_names(content["state_dict"]), content)


def begin_from(text: str, model: LightningModule, data: LightningDataModule | None) -> Iterator[str]:
    """Give a model the weights of another one.

    Args:
        text: as for :func:`find_source`.
        model: changed in place.
        data: its vocabulary says which rows of a table are which tokens; None for none.

    Yields:
        Lines on what was taken, in part, not at all.

    Raises:
        SparselitError: as :func:`find_source`, or no tensor fits, or one holds a number that is not finite.
    """
    source = find_source(text)
    where = shown(source.path)
    for name, tensor in source.state.items():
        if tensor.is_floating_point() and not tensor.isfinite().all():
            raise SparselitError(f"init_from: {where} holds numbers that are not finite in {name}")
    taken = take_weights(model, source.state, _vocabularies(source, data))
    if not taken.whole and not taken.part:
        there, here = next(iter(source.state), "no tensor"), next(iter(taken.new), "no tensor")
        raise SparselitError(
            f"init_from: no tensor of {where} fits this model: it holds {there}, here is {here};\ngive a checkpoint of"
            " the same class of model, or other model: settings"
        )
    counts = f"{counted(len(taken.whole), 'tensor')} whole, {len(taken.part)} in part, {len(taken.new)} new"
    yield f"weights of {where}, and nothing else of it: {counts}, {len(taken.unused)} not used"
    yield from (f"  {line}" for line in taken.lines())
    saved = {
        key: value for key, value in (source.content.get("hyper_parameters") or {}).items() if key != "_class_path"
    }
    shapes = Transformer.config_keys() - _NO_SHAPE
    for key, before, now in differences(saved, model.hparams):
        if key in shapes:
            yield f"  model.{key}: {inline(now)} here, {inline(before)} there"
    matrices = [source.state[name] for name in (*taken.whole, *taken.part) if source.state[name].ndim > 1]
    total = sum(tensor.numel() for tensor in matrices)
    share = sum(int(tensor.count_nonzero()) for tensor in matrices) / total if total else 1.0
    if share < 0.99:
        yield f"  {percent(share)} of its matrices is not zero; what stays zero from now on is for sparsity: to say"


def _vocabularies(source: Source, data: LightningDataModule | None) -> tuple[Sequence[str], Sequence[str]] | None:
    state: Mapping[str, Any] = {} if data is None else data.state_dict()
    there = None if data is None else saved_vocabulary(source.content, data)
    return (state["vocabulary"], there["vocabulary"]) if there is not None and "vocabulary" in state else None
