"""Checkpoints in the format of OpenAI's ``circuit_sparsity`` release: ``beeg_config.json`` and ``final_model.pt``."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sparselit.errors import SparselitError
from sparselit.interop.openai_config import Config, openai_config, transformer_arguments
from sparselit.model.transformer import Transformer
from sparselit.runs.atomic import write_atomically, write_text
from sparselit.runs.checkpoint_file import load_checkpoint, read_tensors
from sparselit.runs.plain_file import read_json

CONFIG_FILE, WEIGHTS_FILE = "beeg_config.json", "final_model.pt"
LOGITS_BIAS = "final_logits_bias"
POSITIONS = "transformer.wpe.weight"
TIED = ("transformer.wte.weight", "lm_head.weight")
#: Lightning reads a checkpoint in the form of the version that it names.
CHECKPOINT_FORM = "2.6.0"
#: Of models that were trained without fused attention: the causal mask, a constant.
MASK_BUFFER = re.compile(r"transformer\.h\.\d+\.attn\.bias")


def load_openai(folder: str | Path) -> Transformer:
    """Load a model of the release; nothing in its files is executed.

    Args:
        folder: holds ``beeg_config.json`` and ``final_model.pt``.

    Returns:
        The model in evaluation mode, in single precision on the CPU, with the release's logits.

    Raises:
        SparselitError: a file is missing or damaged, an option has no equal here, or a tensor is missing, left
            over or of another shape; the message names it.
    """
    folder = Path(folder)
    config = read_config(folder)
    path = folder / WEIGHTS_FILE
    state = read_tensors(path)
    if not isinstance(state, dict) or not all(isinstance(tensor, Tensor) for tensor in state.values()):
        raise SparselitError(f"{str(path)!r} is no dictionary of tensors")
    state = {name: tensor for name, tensor in state.items() if not MASK_BUFFER.fullmatch(name)}
    try:
        arguments = transformer_arguments(config, unembed_bias=LOGITS_BIAS in state)
        with torch.device("meta"):  # no memory, until the file's own tensors become the parameters
            model = Transformer(**arguments)
        if arguments["tied"]:  # one tensor, which may have been written once only
            for name, other in (TIED, TIED[::-1]):
                if name not in state and other in state:
                    state[name] = state[other]
        _fill(model, state)
    except SparselitError as error:
        raise SparselitError(f"{folder}: {error}") from None
    return model.eval()


def read_config(folder: str | Path) -> Config:
    """The content of a folder's ``beeg_config.json``.

    Raises:
        SparselitError: the folder or the file is missing, or is not an object of options.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise SparselitError(f"{str(folder)!r} is no folder; name one that holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    path = folder / CONFIG_FILE
    try:
        config = read_json(path)
    except FileNotFoundError:
        raise SparselitError(f"{str(path)!r} does not exist; a checkpoint of this format has one") from None
    except (OSError, ValueError) as error:
        raise SparselitError(f"{str(path)!r} cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if not isinstance(config, dict):
        raise SparselitError(f"{str(path)!r} holds no object of options")
    return config


def save_openai(model: Transformer, folder: str | Path, others: Mapping[str, Any] | None = None) -> None:
    """Write a model in the release's format.

    Args:
        model: a transformer; positions that are no parameters are written as a table.
        folder: made where it is missing; files of the same names are replaced.
        others: options for ``beeg_config.json`` that do not change the forward pass, as ``tokenizer_name``.

    Raises:
        SparselitError: the release cannot express the model, or a file cannot be written.
    """
    folder = Path(folder)
    config = openai_config(model, others)
    parameters = {name: p.detach().cpu() for name, p in model.named_parameters(remove_duplicate=False)}
    state = {
        theirs: torch.cat([parameters[name] for name in ours]).clone() for theirs, ours in tensor_names(model).items()
    }
    if POSITIONS not in state:
        table = model.sinusoid if model.d_concatenated else model.embed.sinusoid
        zeros = torch.zeros(model.max_length, model.d_model)
        state[POSITIONS] = zeros if table is None else table.detach().cpu().clone()
    text = json.dumps(config, indent=1) + "\n"
    try:
        write_atomically(folder / WEIGHTS_FILE, lambda file: torch.save(state, file))
        write_text(folder / CONFIG_FILE, text)
    except OSError as error:
        raise SparselitError(f"cannot write {folder}: {error.strerror}") from error


def openai_to_checkpoint(folder: str | Path, path: str | Path) -> Transformer:
    """Convert a folder of the release to a checkpoint that every command reads.

    Args:
        folder: holds ``beeg_config.json`` and ``final_model.pt``.
        path: the checkpoint's file; it is replaced where it exists.

    Returns:
        The model.

    Raises:
        SparselitError: as :func:`load_openai`, or the file cannot be written.
    """
    model = load_openai(folder)
    content = {
        "pytorch-lightning_version": CHECKPOINT_FORM,
        "epoch": 0,
        "global_step": 0,
        "state_dict": {f"transformer.{name}": tensor for name, tensor in model.state_dict().items()},
        "hyper_parameters": model.config,
        "openai_config": read_config(folder),  # for the way back: the tokenizer's name and the like
    }
    try:
        write_atomically(Path(path), lambda file: torch.save(content, file))
    except OSError as error:
        raise SparselitError(f"cannot write {path}: {error.strerror}") from error
    return model


def checkpoint_to_openai(path: str | Path, folder: str | Path) -> Transformer:
    """Convert a checkpoint of ``sparselit fit``, or one that was converted before, to a folder of the release.

    Args:
        path: checkpoint file.
        folder: made where it is missing; files of the same names are replaced.

    Returns:
        The model.

    Raises:
        SparselitError: the checkpoint cannot be read, or as :func:`save_openai`.
    """
    others = load_checkpoint(path).get("openai_config")
    model = Transformer.from_checkpoint(path)
    save_openai(model, folder, others if isinstance(others, dict) else None)
    return model


def tensor_names(model: Transformer) -> dict[str, tuple[str, ...]]:
    """The release's name of each tensor, and the parameters of ``model`` that stand in it, one below the other."""
    names: dict[str, tuple[str, ...]] = {
        "transformer.wte.weight": ("embed.token.weight",),
        POSITIONS: ("positions.weight" if model.d_concatenated else "embed.position.weight",),
    }
    for i in range(len(model.layers)):
        ours, theirs = f"layers.{i}", f"transformer.h.{i}"
        for block, number in (("attn", 1), ("mlp", 2)):
            for kind in ("weight", "bias"):
                names[f"{theirs}.ln_{number}.{kind}"] = (f"{ours}.{block}.norm.{kind}",)
                names[f"{theirs}.ln_p{number}.{kind}"] = (f"{ours}.{block}.position_norm.{kind}",)
        for kind in ("weight", "bias"):
            names[f"{theirs}.attn.c_attn.{kind}"] = tuple(f"{ours}.attn.{letter}.{kind}" for letter in "qkv")
            names[f"{theirs}.attn.c_proj.{kind}"] = (f"{ours}.attn.o.{kind}",)
            names[f"{theirs}.mlp.c_fc.{kind}"] = (f"{ours}.mlp.up.{kind}",)
            names[f"{theirs}.mlp.c_proj.{kind}"] = (f"{ours}.mlp.down.{kind}",)
        names[f"{theirs}.attn.attn_imp.sink_logit"] = (f"{ours}.attn.sink",)
    for kind in ("weight", "bias"):
        names[f"transformer.ln_f.{kind}"] = (f"norm.{kind}",)
    names |= {
        "lm_head.weight": ("unembed.weight",),
        LOGITS_BIAS: ("unembed.bias",),
        "bigram_table": ("bigram.weight",),
    }
    present = {name for name, _ in model.named_parameters(remove_duplicate=False)}
    return {theirs: ours for theirs, ours in names.items() if present.issuperset(ours)}


@torch.no_grad()
def _fill(model: Transformer, state: dict[str, Tensor]) -> None:
    """Make the release's tensors the parameters of ``model``, one after the other; ``state`` is empty afterwards."""
    names = tensor_names(model)
    for what, found in (("is missing", names.keys() - state.keys()), ("is unknown", state.keys() - names.keys())):
        if found:
            more = f", with {len(found) - 1} more" if len(found) > 1 else ""
            raise SparselitError(f"by the configuration the tensor {min(found)}{more} {what} in {WEIGHTS_FILE}")
    if model.config["tied"] and not torch.equal(*(state[name] for name in TIED)):
        raise SparselitError(f"tied_unembed is true, but {' and '.join(TIED)} differ")
    for theirs, ours in names.items():
        parameters = [model.get_parameter(name) for name in ours]
        tensor = state.pop(theirs)
        tensor = tensor.to_dense() if tensor.layout != torch.strided else tensor
        expected = (sum(len(p) for p in parameters), *parameters[0].shape[1:])
        if tuple(tensor.shape) != expected or not tensor.is_floating_point():
            raise SparselitError(
                f"the tensor {theirs} is {tensor.dtype} of shape {tuple(tensor.shape)}; "
                f"the configuration needs real numbers of shape {expected}"
            )
        for name, part in zip(ours, tensor.split([len(p) for p in parameters]), strict=True):
            own = part.to(torch.float32, memory_format=torch.contiguous_format, copy=len(ours) > 1)
            module, _, leaf = name.rpartition(".")
            setattr(model.get_submodule(module), leaf, nn.Parameter(own))
    if model.config["tied"]:
        model.unembed.weight = model.embed.token.weight
