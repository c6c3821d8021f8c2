"""Shipped models as models, and as run folders that every command works on."""

from __future__ import annotations

import hashlib
from pathlib import Path

import torch

from sparselit.errors import SparselitError
from sparselit.interop.openai import CHECKPOINT_FORM
from sparselit.interop.sparse_file import from_bytes
from sparselit.model.transformer import Transformer
from sparselit.runs.atomic import write_atomically, write_text
from sparselit.runs.checkpoint_file import newest_loadable
from sparselit.runs.folder import CHECKPOINTS, CONFIG, RUNS, RunFolder, checkpoint_files
from sparselit.runs.shipped import SETTINGS, TOKENIZER, WEIGHTS, card, is_shipped, shipped_model


def load_model(source: str | Path) -> Transformer:
    """A trained model, ready to run.

    Args:
        source: name of a shipped model (``sparselit models``), a checkpoint file, or a run's folder.

    Raises:
        SparselitError: there is none, or its weights are not those that its card states.

    Examples:
        >>> load_model("python_base").config["n_layers"]
        4
    """
    if is_shipped(str(source)):
        return _shipped(str(source))
    path = Path(source)
    folder = RunFolder.of(path) if path.is_dir() else None
    return Transformer.from_checkpoint(
        newest_loadable(checkpoint_files(folder.checkpoint_folder))[0] if folder else path
    )


def unpack(name: str, root: Path = Path(RUNS)) -> Path:
    """A shipped model as an ordinary run folder, from which ``discover``, ``test`` and ``predict`` start.

    Args:
        name: of the model.
        root: folder of all runs.

    Returns:
        The run's folder; one that was unpacked before is taken as it is.

    Raises:
        SparselitError: it cannot be written.
    """
    source, facts = shipped_model(name), card(name)
    settings = (source / SETTINGS).read_text(encoding="utf-8")
    both = hashlib.sha256(f"{facts['sha256']}\n{settings}".encode()).hexdigest()
    folder = RunFolder(root / name / f"shipped_{both[:8]}")
    path = folder.path / CHECKPOINTS / f"step={facts['steps']}.ckpt"
    if path.is_file():
        return folder.path
    model = _shipped(name)
    tokenizer = (source / TOKENIZER).read_text(encoding="utf-8")
    content = {
        "pytorch-lightning_version": CHECKPOINT_FORM,
        "epoch": 0,
        "global_step": facts["steps"],
        "state_dict": {f"transformer.{key}": tensor for key, tensor in model.state_dict().items()},
        "hyper_parameters": model.config,
        "PythonCode": {"tokenizer": tokenizer, "corpus_hash": facts["corpus_hash"]},
    }
    try:
        write_text(folder.path / CONFIG, settings)
        write_atomically(path, lambda file: torch.save(content, file))
    except OSError as error:
        raise SparselitError(f"cannot unpack {name} into {folder.path}: {error.strerror}") from error
    return folder.path


def _shipped(name: str) -> Transformer:
    content, facts = (shipped_model(name) / WEIGHTS).read_bytes(), card(name)
    if hashlib.sha256(content).hexdigest() != facts["sha256"]:
        raise SparselitError(f"the weights of {name} are not those that its card states; install the library again")
    model = Transformer(**facts["model"])
    model.load_state_dict({key: tensor.float() for key, tensor in from_bytes(content).items()})
    return model.eval()
