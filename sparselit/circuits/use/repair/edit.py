"""An edit of a model as data: which weights have which value before and after, to the bit, so that it can be undone.

The checkpoint is never changed: :func:`applied` gives another model. ``docs/reference/edit_file.md`` describes the
file.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparselit.circuits.circuit import model_hash
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place
from sparselit.runs.json_record import Count, read, write
from sparselit.runs.plain_file import read_json

FORMAT, VERSION = "sparselit-edit", 1


class Delta(NamedTuple):
    """One entry of a tensor: its value before and after; the column of a vector's entry is 0."""

    parameter: str
    row: Count
    column: Count
    before: float
    after: float

    @property
    def place(self) -> Place:
        """Parameter, row and column."""
        return self.parameter, self.row, self.column


@dataclass(frozen=True, kw_only=True)
class Provenance:
    """Where an edit comes from.

    Attributes:
        maker: what made it.
        arguments: of the maker.
        circuit: SHA-256 of the circuit's file; empty where there was none.
        prompts: SHA-256 of the prompts that it was fitted to, as text; empty where there were none.
    """

    maker: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    circuit: str = ""
    prompts: str = ""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """Entries of a model's tensors, each with its value before and after.

    Attributes:
        before: hash of the model that it belongs to, see :func:`sparselit.circuits.circuit.model_hash`.
        after: hash of the edited model.
        deltas: by parameter, row and column; each entry once, and none that stays what it is.
        provenance: where it comes from, one entry for each edit that it is composed of.
        scores: what was measured, for the record.
    """

    before: str
    after: str
    deltas: tuple[Delta, ...]
    provenance: tuple[Provenance, ...]
    scores: Mapping[str, Any] = field(default_factory=dict)

    @property
    def norm(self) -> float:
        """Euclidean norm of the change."""
        return math.sqrt(sum((delta.after - delta.before) ** 2 for delta in self.deltas))

    @property
    def undone(self) -> Edit:
        """The edit that takes this one back."""
        deltas = tuple(delta._replace(before=delta.after, after=delta.before) for delta in self.deltas)
        return Edit(before=self.after, after=self.before, deltas=deltas, provenance=self.provenance)

    def as_json(self) -> dict[str, Any]:
        """The content of the file."""
        return {"format": FORMAT, "version": VERSION, **write(self)}


def read_edit(path: Path) -> Edit:
    """Read and validate an edit.

    Raises:
        SparselitError: the file is missing or no edit, or a field is missing, unknown or of another type.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise SparselitError(f"cannot read the edit {path}: {error.strerror}") from error
    except ValueError as error:
        raise SparselitError(f"{path} is not JSON: {error}") from error
    if not isinstance(content, dict) or (content.get("format"), content.get("version")) != (FORMAT, VERSION):
        raise SparselitError(f"{path} is no edit of version {VERSION}: its format is not {FORMAT!r}")
    try:
        edit = read(Edit, {name: value for name, value in content.items() if name not in ("format", "version")})
    except SparselitError as error:
        raise SparselitError(f"{path}: {error}") from error
    if len({delta.place for delta in edit.deltas}) < len(edit.deltas):
        raise SparselitError(f"{path}: an entry is named twice")
    return edit


def between(model: Transformer, other: Transformer, *provenance: Provenance) -> Edit:
    """The edit that makes ``other`` of ``model``.

    Args:
        model: as it is.
        other: the same architecture with other values.
        provenance: where the other one comes from.
    """
    deltas = []
    new = dict(other.named_parameters())
    for name, old in model.named_parameters():
        one, two = (x.detach().cpu().view(len(x), -1) for x in (old, new[name]))
        for row, column in (_bits(one) != _bits(two)).nonzero().tolist():
            deltas.append(Delta(name, row, column, float(one[row, column]), float(two[row, column])))
    return Edit(
        before=model_hash(model.state_dict()),
        after=model_hash(other.state_dict()),
        deltas=tuple(deltas),
        provenance=provenance,
    )


def applied(model: Transformer, edit: Edit, elsewhere: bool = False) -> Transformer:
    """Another model with an edit's values; ``model`` itself is not changed.

    Args:
        model: that the edit belongs to.
        edit: what to change.
        elsewhere: take a model with another hash, as long as every entry has the value that it had.

    Raises:
        SparselitError: the edit belongs to another model, or an entry is missing or has another value.
    """
    if not elsewhere and model_hash(model.state_dict()) != edit.before:
        raise SparselitError(f"the edit belongs to another model, whose hash begins with {edit.before[:12]}")
    other = copy.deepcopy(model)
    parameters = dict(other.named_parameters())
    with torch.no_grad():
        for name, row, column, before, after in edit.deltas:
            tensor = parameters.get(name)
            flat = None if tensor is None else tensor.view(len(tensor), -1)
            if flat is None or row >= flat.shape[0] or column >= flat.shape[1]:
                raise SparselitError(f"the edit changes {name}[{row},{column}], which the model has not")
            if not _same(float(flat[row, column]), before):
                raise SparselitError(
                    f"{name}[{row},{column}] is {float(flat[row, column])!r} and not {before!r}: another edit was there"
                )
            flat[row, column] = after
    if not elsewhere and model_hash(other.state_dict()) != edit.after:
        raise SparselitError("the edited model is not the one that the edit names: its file was changed")
    return other


def composed(model: Transformer, edits: Sequence[Edit]) -> Edit:
    """Several edits as one, applied in their order.

    Args:
        model: that the first belongs to; the others may have been made for it too, where they touch other entries.
        edits: at least one.

    Raises:
        SparselitError: an entry has not the value that an edit found there.
    """
    other = applied(model, edits[0])
    for edit in edits[1:]:
        other = applied(other, edit, elsewhere=True)
    return replace(between(model, other), provenance=tuple(one for edit in edits for one in edit.provenance))


class Difference(NamedTuple):
    """Two edits side by side, by place.

    Attributes:
        first: only in the first.
        same: in both, with the same value after.
        other: in both, with another value after.
        second: only in the second.
    """

    first: list[Place]
    same: list[Place]
    other: list[Place]
    second: list[Place]


def difference(first: Edit, second: Edit) -> Difference:
    """Which entries two edits change alike."""
    one, two = ({delta.place: delta.after for delta in edit.deltas} for edit in (first, second))
    both = [place for place in one if place in two]
    return Difference(
        [place for place in one if place not in two],
        [place for place in both if _same(one[place], two[place])],
        [place for place in both if not _same(one[place], two[place])],
        [place for place in two if place not in one],
    )


def _same(one: float, other: float) -> bool:
    return one == other and math.copysign(1, one) == math.copysign(1, other)


def _bits(x: Tensor) -> Tensor:
    return x.contiguous().view({2: torch.int16, 4: torch.int32, 8: torch.int64}[x.element_size()])
