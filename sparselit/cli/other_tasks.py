"""The other tasks of a circuit's model, whose prompts show what a change does elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.errors import SparselitError
from sparselit.runs.folder import CIRCUITS

if TYPE_CHECKING:
    from sparselit.circuits.loaded import Recorded
    from sparselit.data.examples import Examples


def circuit_name(loaded: Recorded) -> str:
    """What a circuit's task is called: the folder of a mixture's task, or else the class."""
    folder = loaded.path.absolute().parent
    if folder.parent.name == CIRCUITS:
        return folder.name
    return loaded.circuit.task.name


def other_prompts(loaded: Recorded, paths: list[str]) -> dict[str, Examples]:
    """Report splits of other circuits by task: those named, and the other tasks of a mixture."""
    from sparselit.circuits.loaded import load

    folder = loaded.path.absolute().parent
    named = [Path(path) for path in paths]
    if folder.parent.name == CIRCUITS:
        siblings = sorted(folder.parent.glob(f"*/{loaded.path.name}"))
        named += [path for path in siblings if path.parent != folder]
    found: dict[str, Examples] = {}
    for path in named:
        other = load(path)
        if list(other.behaviour.vocabulary) != list(loaded.behaviour.vocabulary):
            raise SparselitError(
                f"{path}: its task has another vocabulary than the circuit's; the model cannot read it"
            )
        longest = other.behaviour.splits["report"].tokens.shape[1]
        if longest > loaded.model.max_length:
            raise SparselitError(f"{path}: its prompts have {longest} tokens, the model reads fewer")
        name = circuit_name(other)
        found[name if name not in found and name != circuit_name(loaded) else str(path)] = other.behaviour.splits[
            "report"
        ]
    return found
