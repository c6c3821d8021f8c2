"""A circuit of synthetic quotes that was found on another machine, by an older version; its prompts are drawn again."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from sparselit.tasks.quotes import Quotes

from sparselit.circuits import Bound, discover, write_circuit
from sparselit.circuits.circuit import Circuit
from sparselit.circuits.files import read_circuit, read_model
from sparselit.data.behaviour import Behaviour

HERE = Path(__file__).parent / "found_elsewhere"
NAME = "step=2000.json"


def found() -> Circuit:
    """The record as it came."""
    return read_circuit(HERE / NAME)


def behaviour(**sizes: int) -> Behaviour:
    """The prompts that the record names; with other sizes, fewer of them."""
    arguments: Mapping[str, Any] = found().task.init_args
    return Quotes(**{**arguments, **sizes}).behaviour()


def with_weights(folder: Path) -> Path:
    """The folder, with the record and its weights in it, and no prompts."""
    folder.mkdir(exist_ok=True)
    shutil.copy(HERE / NAME, folder / NAME)
    packed = (HERE / NAME).with_suffix(".safetensors.gz")
    (folder / packed.stem).write_bytes(gzip.decompress(packed.read_bytes()))
    return folder


def whole(folder: Path) -> Path:
    """The circuit with all its files in a folder."""
    behaviour().write(with_weights(folder) / "prompts")
    return folder / NAME


def small(folder: Path) -> Path:
    """A circuit of the same model that is found here, on a hundred prompts of each split."""
    circuit = found()
    model = read_model(with_weights(folder / "model") / NAME, circuit)
    few = behaviour(discovery=128, selection=128, report=128)
    few = replace(few, splits={split: examples.select(slice(0, 128)) for split, examples in few.splits.items()})
    criterion = [Bound(bound.metric, bound.at_most, bound.at_least) for bound in circuit.criterion]
    write_circuit(folder / NAME, discover(model, few, criterion, circuit.ablation, start=circuit.places), model, few)
    return folder / NAME
