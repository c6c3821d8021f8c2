"""Reading and writing ``circuit.json``, with the weights and the prompts beside it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save

from sparselit.circuits.circuit import FORMAT, VERSIONS, Circuit
from sparselit.data.behaviour import SPLITS, Behaviour, prompt_record, read_examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.runs.atomic import write_bytes, write_text

PROMPTS = "prompts"
_FIELDS = {
    "model": dict,
    "task": dict,
    "criterion": list,
    "ablation": dict,
    "nodes": dict,
    "edges": list,
    "biases": list,
    "size": dict,
    "certificate": dict,
    "evidence": dict,
    "search": dict,
}
#: Parts of the evidence: the version that they came with, and their type.
EVIDENCE: dict[str, tuple[int, type | tuple[type, ...]]] = {
    "full_model": (1, dict),
    "sufficiency": (1, dict),
    "held_out": (1, dict),
    "necessity": (1, dict),
    "complement": (1, dict),
    "nulls": (1, dict),
    "unexplained": (1, (int, float)),
    "faithfulness": (2, dict),
    "dark_matter": (2, dict),
    "flags": (2, list),
}
_NULLS = {
    "random_circuits": 1,
    "random_orders": 1,
    "shuffled_answers": 1,
    "untrained_model": 1,
    "magnitude_matched": 2,
}
_INSIDE = ("activations", "attention", "interchange", "random_halves", "relaxation")


def write_circuit(path: str | Path, circuit: Circuit, model: Transformer, behaviour: Behaviour) -> None:
    """Write ``path`` (JSON), the weights beside it (same name, ``.safetensors``) and the prompts in ``prompts/``.

    The paths inside are relative to the file. The same circuit gives the same bytes.
    """
    path = Path(path)
    weights = path.with_suffix(".safetensors")
    circuit.model["weights"], circuit.path = weights.name, path
    prompts = behaviour.write(path.parent / PROMPTS)
    circuit.task["splits"] = {split: prompt_record(file, path.parent) for split, file in prompts.items()}
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    if model.unembed.weight is model.embed.token.weight:
        tensors["unembed.weight"] = tensors["unembed.weight"].clone()
    write_bytes(weights, save(tensors))
    write_text(path, json.dumps(circuit.as_json(), indent=1, ensure_ascii=False) + "\n")


def read_circuit(path: Path) -> Circuit:
    """Read and validate a ``circuit.json``.

    Raises:
        SparselitError: the file is missing, is not JSON, or lacks a field; the message names it.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise SparselitError(f"cannot read the circuit {path}: {error.strerror}") from error
    except ValueError as error:
        raise SparselitError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise SparselitError(f"{path} is not a circuit: its format is not {FORMAT!r}")
    version = content.get("version")
    if type(version) is not int or version not in VERSIONS:
        raise SparselitError(f"{path} has version {version}; this sparselit reads {' and '.join(map(str, VERSIONS))}")
    for field, kind in _FIELDS.items():
        if not isinstance(content.get(field), kind):
            raise SparselitError(f"{path}: the field {field!r} is missing or not a {kind.__name__}")
    for i, edge in enumerate(content["edges"]):
        if not (isinstance(edge, list) and [type(v) for v in edge[:3]] == [str, int, int] and len(edge) == 4):
            raise SparselitError(f"{path}: edges[{i}] is not [parameter, row, column, weight]")
    for i, bias in enumerate(content["biases"]):
        if not (isinstance(bias, list) and [type(v) for v in bias[:2]] == [str, int] and len(bias) == 3):
            raise SparselitError(f"{path}: biases[{i}] is not [parameter, channel, value]")
    _check_evidence(path, content["evidence"], version)
    return Circuit(**{field: content[field] for field in _FIELDS}, version=version, path=path)


def _check_evidence(path: Path, evidence: dict[str, Any], version: int) -> None:
    """Refuse evidence that lacks a part of its version, by the part's name."""
    for name, (since, kind) in EVIDENCE.items():
        if version >= since:
            _check_part(path, f"evidence.{name}", evidence.get(name), kind)
    for name, since in _NULLS.items():
        if version >= since:
            _check_part(path, f"evidence.nulls.{name}", evidence["nulls"].get(name), dict)
    searched = evidence["nulls"].get("searched")
    if searched is not None:
        _check_part(path, "evidence.nulls.searched", searched, dict)
        for name, row in searched.items():
            place = f"evidence.nulls.searched.{name}"
            _check_part(path, place, row, dict)
            _check_part(path, f"{place}.places", row.get("places"), list)
            if row.get("edges") is not None:
                _check_part(path, f"{place}.edges", row["edges"], int)
    if version >= 2:
        for name in _INSIDE:
            _check_part(path, f"evidence.faithfulness.{name}", evidence["faithfulness"].get(name), dict)


def _check_part(path: Path, name: str, value: object, kind: type | tuple[type, ...]) -> None:
    if not isinstance(value, kind) or isinstance(value, bool):
        words = kind.__name__ if isinstance(kind, type) else " or a ".join(k.__name__ for k in kind)
        raise SparselitError(f"{path}: the field '{name}' is missing or not a {words}")


def read_model(path: Path, circuit: Circuit) -> Transformer:
    """The model that ``circuit`` (read from ``path``) belongs to, from the weights beside it.

    Raises:
        SparselitError: the weights are missing, broken or of another architecture.
    """
    weights = path.parent / str(circuit.model.get("weights"))
    if weights.parent != path.parent:
        raise SparselitError(f"the circuit's weights {weights} lie outside of its folder")
    try:
        model = Transformer(**circuit.model["config"])
        model.load_state_dict(load_file(weights), strict=True)
    except (OSError, SafetensorError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise SparselitError(f"cannot load the circuit's weights {weights}: {_first_line(error)}") from error
    return model.eval()


def read_behaviour(path: Path, circuit: Circuit) -> Behaviour:
    """The examples of ``circuit`` (read from ``path``), from the prompt files beside it."""
    task: dict[str, Any] = circuit.task
    try:
        splits = {
            split: read_examples(path.parent / row["file"], task["vocabulary"], task["strata"])
            for split, row in task["splits"].items()
        }
        for split in SPLITS[:3]:
            if split not in splits:
                raise SparselitError(f"{path}: task.splits lacks {split!r}")
        return Behaviour(splits, task["vocabulary"], task["strata"], {k: task[k] for k in ("class_path", "init_args")})
    except (KeyError, TypeError) as error:
        raise SparselitError(f"{path}: the field 'task' lacks {error}") from error


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
