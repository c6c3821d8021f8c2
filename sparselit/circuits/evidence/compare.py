"""A claim beside what was recomputed: which figures differ, and by how much they may.

Sums in float32 depend on their order, and that on the instruction set and the number of threads. On the machine that a
circuit was found on, a figure has to agree at the digits that are written, but for the noise of that order; on another
machine each kind of figure has its own tolerance. Counts, names, nodes and lists must be equal everywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any

from sparselit.runs.json_record import write


@dataclass(frozen=True)
class Tolerance:
    """By how much a figure may differ from the recomputed one: ``absolute`` plus a ``share`` of it."""

    absolute: float
    share: float

    def allows(self, claimed: float, value: float) -> bool:
        """Whether a claim is the recomputed value, up to this."""
        return abs(claimed - value) <= self.absolute + self.share * abs(value)


#: Of a share of examples and its interval: it is a count, divided.
SHARES = Tolerance(1e-6, 0.0)
#: Of means over a whole split, and of all else (worst examples, ratios, variances): on the same machine, on others.
MEANS = {True: Tolerance(3e-6, 3e-6), False: Tolerance(1e-5, 1e-4)}
OTHERS = {True: Tolerance(1e-5, 2e-5), False: Tolerance(1e-4, 1e-3)}
#: Names of the figures that are means over a split.
_MEANS = ("task_loss", "answer_loss", "kl", "value", "task_loss_interval", "answer_loss_interval", "kl_interval")


def tolerance(path: str, same_machine: bool) -> Tolerance:
    """What a figure may differ by.

    Args:
        path: of the figure in the file, as in ``evidence.held_out.kl``.
        same_machine: the circuit was found on this machine.
    """
    if "accuracy" in path:
        return SHARES
    name = path.rpartition(".")[2].partition("[")[0]
    mean = name in _MEANS and not path.startswith("evidence.dark_matter")
    return (MEANS if mean else OTHERS)[same_machine]


def as_far_as(claimed: Any, again: Any, version: int) -> Any:
    """A recomputed record without what a file of an older version does not have, and may lack.

    Args:
        claimed: the record as the file has it.
        again: the same, recomputed.
        version: of the file.
    """
    if not (is_dataclass(again) and is_dataclass(claimed)) or isinstance(again, type):
        if isinstance(again, Mapping) and isinstance(claimed, Mapping):
            return {key: as_far_as(claimed.get(key), value, version) for key, value in again.items()}
        return again
    known: dict[str, Any] = {}
    for part in fields(again):
        if part.init and getattr(claimed, part.name, None) is None and part.metadata.get("since", 0) > version:
            known[part.name] = None
        elif part.init:
            known[part.name] = as_far_as(getattr(claimed, part.name, None), getattr(again, part.name), version)
    return replace(again, **known)


def differences(path: str, claimed: Any, value: Any, same_machine: bool) -> Iterator[str]:
    """Paths of the leaves at which a claim differs from the recomputed value.

    Args:
        path: of both in the file.
        claimed: JSON, as the file has it.
        value: JSON, recomputed.
        same_machine: the circuit was found on this machine.
    """
    if isinstance(value, Mapping):
        if not isinstance(claimed, Mapping):
            yield path
            return
        for key in dict.fromkeys([*value, *claimed]):
            if key not in claimed or key not in value:
                yield f"{path}.{key}"
            else:
                yield from differences(f"{path}.{key}", claimed[key], value[key], same_machine)
    elif isinstance(value, list):
        if not isinstance(claimed, list) or len(claimed) != len(value):
            yield path
            return
        for i, (one, other) in enumerate(zip(claimed, value, strict=True)):
            yield from differences(f"{path}[{i}]", one, other, same_machine)
    elif isinstance(value, float) and isinstance(claimed, int | float) and not isinstance(claimed, bool):
        if not tolerance(path, same_machine).allows(claimed, value):
            yield path
    elif claimed != value:
        yield path


def false_claims(claimed: Any, again: Any, same_machine: bool) -> Iterator[str]:
    """The paths of a file whose claims differ from what is recomputed; what is not recomputed is equal in both.

    Args:
        claimed: the circuit as its file has it; it has a version.
        again: the same, recomputed.
        same_machine: the circuit was found on this machine.
    """
    version = claimed.version
    known = as_far_as(claimed, again, version)
    for part in fields(claimed):
        if "apart" not in part.metadata:
            mine, recomputed = (write(getattr(each, part.name), version) for each in (claimed, known))
            yield from differences(part.name, mine, recomputed, same_machine)
