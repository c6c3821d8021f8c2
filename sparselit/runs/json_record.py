"""Typed records and JSON: frozen dataclasses read from parsed JSON, with every inner type checked, and written back.

A dataclass is an object, a ``NamedTuple`` a list of fixed length, ``Mapping[str, X]`` an object with any keys,
``tuple[X, ...]`` a list. A number is kept as it stands (1 stays 1), so that what was read is written back unchanged.
Nothing is guessed: a field that is missing, unknown or of another type is refused by its path in the file.
"""

from __future__ import annotations

import math
import types
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, Field, fields, is_dataclass
from functools import cache
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from sparselit.errors import SparselitError

T = TypeVar("T")
#: A whole number that counts or numbers something.
Count = Annotated[int, "count"]
#: Deepest nesting of free-form parts, such as the arguments of a task.
DEPTH = 32
_LARGEST = 2**63
_Reader = Callable[[Any, int], Any]  # value, version of the file


class WrongField(SparselitError):
    """Something in the JSON does not fit there; the message names its path in the file.

    Args:
        problem: what is wrong with it, as in ``is missing or not a number``.
        quoted: whether the message says ``the field '…'``.
    """

    def __init__(self, problem: str, quoted: bool = True) -> None:
        self.problem, self.quoted, self.path = problem, quoted, ""
        super().__init__(problem)

    def inside(self, step: str) -> WrongField:
        """The same mistake, seen from one level further out; ``step`` is ``name`` or ``[index]``."""
        self.path = step + ("." if self.path and not self.path.startswith("[") else "") + self.path
        return self

    def __str__(self) -> str:
        path = f"the field '{self.path}'" if self.quoted else self.path
        return f"{path} {self.problem}" if self.path else f"it {self.problem}"


def since(version: int, null: bool = False) -> dict[str, Any]:
    """Metadata of a field that files have from a version on; ``None`` in memory where it is absent.

    Args:
        version: files of an older version may lack it.
        null: whether it may also be ``null`` there.
    """
    return {"since": version, "null": null}


def named_numbers(names: Iterable[str], suffix: str = "") -> dict[str, Any]:
    """Metadata of a mapping of numbers whose keys stand among the fields of its owner.

    Args:
        names: keys that there may be.
        suffix: what is written behind each.
    """
    return {"names": tuple(names), "suffix": suffix}


#: Metadata of a field that is absent where it does not apply, in files of any version; ``None`` in memory.
LEFT_OUT = since(_LARGEST)
#: Of a field that is written before those that its class inherits.
FIRST = {"first": True}
#: Of a field that is no part of the JSON.
APART = {"apart": True}


def read(kind: type[T], content: object, version: int = 0) -> T:
    """``content``, as ``json.loads`` gives it, as a record.

    Args:
        kind: a dataclass.
        content: parsed JSON.
        version: of the file.

    Raises:
        WrongField: a field is missing, unknown or of another type; the message names it.
    """
    anything: Any = kind
    value: T = _reader(anything)(content, version)
    return value


def write(record: Any, version: int = 0) -> Any:
    """A record as JSON: dictionaries, lists, texts and numbers; the fields in the order of the class.

    Args:
        record: a dataclass, or what its fields hold.
        version: of the format, on which it depends whether an empty field is written as null or left out.
    """
    if is_dataclass(record) and not isinstance(record, type):
        content: dict[str, Any] = {}
        for part in _ordered(type(record)):
            value, meta = getattr(record, part.name), part.metadata
            if "names" in meta:
                content |= {f"{name}{meta['suffix']}": number for name, number in value.items()}
            elif value is not None or "since" not in meta or (meta["null"] and version >= meta["since"]):
                content[part.name] = write(value, version)
        return content
    if isinstance(record, Mapping):
        return {key: write(value, version) for key, value in record.items()}
    if isinstance(record, list | tuple):
        return [write(value, version) for value in record]
    return record


@cache
def _ordered(kind: type) -> tuple[Field[Any], ...]:
    """The fields of a dataclass that are written, in their order."""
    parts = [part for part in fields(kind) if "apart" not in part.metadata]
    return tuple(sorted(parts, key=lambda part: "first" not in part.metadata))


@cache
def _reader(kind: Any) -> _Reader:
    """How a value of a type is read."""
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return lambda value, version: _free(value, DEPTH)
    if origin is Annotated:
        return _count
    if origin in (Union, types.UnionType):
        (inner,) = [_reader(argument) for argument in arguments if argument is not type(None)]
        return lambda value, version: None if value is None else inner(value, version)
    if origin is Literal:
        return _choice(arguments)
    if origin is tuple:
        return _listed(arguments)
    if origin in (dict, Mapping):
        return _mapped(arguments[1])
    if isinstance(kind, type) and issubclass(kind, tuple):
        return _named_tuple(kind)
    if is_dataclass(kind):
        return _record(kind)
    simple: dict[Any, _Reader] = {str: _text, bool: _truth, int: _count, float: _number}
    return simple[kind]


def _number(value: Any, version: int) -> Any:
    if type(value) is float and math.isfinite(value):
        return value
    if type(value) is int and abs(value) < _LARGEST:
        return value
    raise WrongField("is missing or not a number")


def _count(value: Any, version: int) -> Any:
    if type(value) is not int or not 0 <= value < _LARGEST:
        raise WrongField("is missing or not a count")
    return value


def _text(value: Any, version: int) -> Any:
    if type(value) is not str:
        raise WrongField("is missing or not a text")
    return value


def _truth(value: Any, version: int) -> Any:
    if type(value) is not bool:
        raise WrongField("is missing or not true or false")
    return value


def _free(value: Any, depth: int) -> Any:
    """Any JSON: finite numbers, nesting within bounds."""
    if depth < 0:
        raise WrongField("is nested too deeply")
    if isinstance(value, dict):
        for key, part in value.items():
            try:
                _free(part, depth - 1)
            except WrongField as wrong:
                raise wrong.inside(str(key)) from None
    elif isinstance(value, list):
        for i, part in enumerate(value):
            try:
                _free(part, depth - 1)
            except WrongField as wrong:
                raise wrong.inside(f"[{i}]") from None
    elif value is not None and not isinstance(value, str | bool):
        _number(value, 0)
    return value


def _choice(choices: tuple[Any, ...]) -> _Reader:
    def reader(value: Any, version: int) -> Any:
        if type(value) is not str or value not in choices:
            raise WrongField(f"is missing or none of {', '.join(choices)}")
        return value

    return reader


def _listed(arguments: tuple[Any, ...]) -> _Reader:
    inner, length = _reader(arguments[0]), None if arguments[1:] == (...,) else len(arguments)
    words = "a list" if length is None else f"a list of {length}"

    def reader(value: Any, version: int) -> Any:
        if type(value) is not list or length not in (None, len(value)):
            raise WrongField(f"is missing or not {words}")
        found, i = [], 0
        try:
            for i, part in enumerate(value):  # noqa: B007 the index is for the message
                found.append(inner(part, version))
        except WrongField as wrong:
            raise wrong.inside(f"[{i}]") from None
        return tuple(found)

    return reader


def _mapped(kind: Any) -> _Reader:
    inner = _reader(kind)

    def reader(value: Any, version: int) -> Any:
        if type(value) is not dict:
            raise WrongField("is missing or not a dict")
        found = {}
        for key, part in value.items():
            try:
                found[key] = inner(part, version)
            except WrongField as wrong:
                raise wrong.inside(key) from None
        return found

    return reader


def _named_tuple(kind: Any) -> _Reader:
    names = kind._fields
    inner = [_reader(hint) for hint in get_type_hints(kind, include_extras=True).values()]
    words = f"is not [{', '.join(names)}]"

    def reader(value: Any, version: int) -> Any:
        if type(value) is not list or len(value) != len(names):
            raise WrongField(words, quoted=False)
        found: list[Any] = []
        try:
            for part, read_part in zip(value, inner, strict=True):
                found.append(read_part(part, version))
        except WrongField as wrong:
            raise (wrong.inside(f"[{len(found)}]") if wrong.path else WrongField(words, quoted=False)) from None
        return kind._make(found)

    return reader


def _record(kind: Any) -> _Reader:
    hints = get_type_hints(kind, include_extras=True)
    parts = [(part, _reader(_given(hints[part.name], part))) for part in _ordered(kind) if "names" not in part.metadata]
    known = {part.name for part, _ in parts}
    groups = [part for part in _ordered(kind) if "names" in part.metadata]

    def reader(value: Any, version: int) -> Any:
        if type(value) is not dict:
            raise WrongField("is missing or not a dict")
        found: dict[str, Any] = {}
        name = ""
        try:
            for part, inner in parts:
                name = part.name
                if name not in value and version < part.metadata.get("since", 0):
                    continue
                found[name] = inner(value.get(name, MISSING), version)
            rest = {name: number for name, number in value.items() if name not in known}
            for part in groups:
                keys = {f"{key}{part.metadata['suffix']}": key for key in part.metadata["names"]}
                numbers: dict[str, Any] = {}
                for name in [other for other in rest if other in keys]:
                    numbers[keys[name]] = _number(rest.pop(name), version)
                found[part.name] = numbers
            if rest:
                name = next(iter(rest))
                raise WrongField("is unknown")
        except WrongField as wrong:
            raise wrong.inside(name) from None
        try:
            record = kind(**found)
        except SparselitError as error:  # of a class that checks its values
            raise WrongField(f"is wrong: {error}") from error
        for name, given in found.items():
            if getattr(record, name) is not given:  # of a class that fills in defaults
                raise WrongField(f"is to be written out: {getattr(record, name)!r}").inside(name)
        return record

    return reader


def _given(hint: Any, part: Field[Any]) -> Any:
    """The type of a field where it is given: ``None`` stands for its absence, unless it may be ``null``."""
    if "since" not in part.metadata or part.metadata["null"]:
        return hint
    (inner,) = [argument for argument in get_args(hint) if argument is not type(None)]
    return inner
