"""Reading and writing ``circuit.json``, with the weights and the prompts beside it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sparselit.circuits.circuit import Circuit, EdgeSet
from sparselit.data.behaviour import Behaviour, prompt_record, read_examples
from sparselit.data.splits import HELD_OUT
from sparselit.errors import SparselitError
from sparselit.model.precision import load_exactly
from sparselit.model.transformer import Transformer
from sparselit.runs.atomic import write_bytes, write_text
from sparselit.runs.folder import PROMPTS
from sparselit.runs.inside import inside
from sparselit.runs.plain_file import LARGEST, read_json

#: Largest file that is taken for weights, bytes.
LARGEST_WEIGHTS = 2**36


def write_circuit(path: str | Path, circuit: Circuit, model: Transformer, behaviour: Behaviour) -> Circuit:
    """Write ``path`` (JSON), the weights beside it (same name, ``.safetensors``) and the prompts in ``prompts/``.

    The paths inside are relative to the file. The same circuit gives the same bytes.

    Args:
        path: of the circuit's file.
        circuit: it is not changed.
        model: the full model.
        behaviour: the examples.

    Returns:
        The circuit as it stands in the file, with the names of the files beside it.
    """
    path = Path(path)
    weights = path.with_suffix(".safetensors")
    prompts = behaviour.write(path.parent / PROMPTS)
    splits = {split: prompt_record(file, path.parent) for split, file in prompts.items()}
    written = replace(
        circuit,
        model=replace(circuit.model, weights=weights.name),
        task=replace(circuit.task, splits=splits),
        path=path,
    )
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if model.unembed.weight is model.embed.token.weight:
        tensors["unembed.weight"] = tensors["unembed.weight"].clone()
    write_bytes(weights, save(tensors))
    write_text(path, json.dumps(written.as_json(), indent=1, ensure_ascii=False) + "\n")
    return written


def read_circuit(path: str | Path) -> Circuit:
    """Read and validate a ``circuit.json``.

    Raises:
        SparselitError: the file is missing, too large, no JSON or no circuit, or a field is missing, unknown or of
            another type; the message names it.
    """
    path = Path(path)
    try:
        content = read_json(path)
    except OSError as error:
        raise SparselitError(f"cannot read the circuit {path}: {error.strerror}") from error
    except ValueError as error:
        raise SparselitError(f"{path} is not JSON: {error}") from error
    try:
        return replace(Circuit.from_json(content), path=path)
    except SparselitError as error:
        raise SparselitError(f"{path}: {error}") from error


def read_model(path: Path, circuit: EdgeSet) -> Transformer:
    """The model that ``circuit`` (read from ``path``) belongs to, from the weights beside it.

    Args:
        path: the circuit's file.
        circuit: what was read from it.

    Raises:
        SparselitError: the weights are missing, broken or of another architecture.
    """
    weights = inside(path.parent, circuit.model.weights, "the circuit's weights", LARGEST_WEIGHTS)
    try:
        model = Transformer(**circuit.model.config)
        load_exactly(model, load_file(weights))
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise SparselitError(f"cannot load the circuit's weights {weights}: {_first_line(error)}") from error
    return model.eval()


def read_behaviour(path: Path, circuit: EdgeSet) -> Behaviour:
    """The examples of ``circuit`` (read from ``path``), from the prompt files beside it.

    Args:
        path: the circuit's file.
        circuit: what was read from it.

    Raises:
        SparselitError: a prompt file is missing or broken, or one of the three splits is not there.
    """
    task = circuit.task
    for split in HELD_OUT:
        if split not in task.splits:
            raise SparselitError(f"{path}: task.splits lacks {split!r}")
    splits = {
        split: read_examples(inside(path.parent, row.file, "the prompts", LARGEST), task.vocabulary, task.strata)
        for split, row in task.splits.items()
    }
    origin = {"class_path": task.class_path, "init_args": dict(task.init_args)}
    origin |= {} if task.corpus is None else {"corpus": task.corpus}
    return Behaviour(splits, task.vocabulary, task.strata, origin)


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
