"""The JSON Schema (draft 2020-12) of a typed record, from the same types by which :mod:`.json_record` reads it."""

from __future__ import annotations

import types
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Annotated, Any, Literal, Union, get_args, get_origin, get_type_hints


def schema_of(kind: type, title: str, **constants: object) -> dict[str, Any]:
    """The schema of a file that holds one record.

    Args:
        kind: a dataclass.
        title: of the schema.
        constants: fields beside those of the record, with the one value that each has.
    """
    record = _schema(kind)
    fixed = {name: {"const": value} for name, value in constants.items()}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        **record,
        "properties": {**fixed, **record["properties"]},
        "required": [*fixed, *record["required"]],
    }


def _schema(kind: Any) -> dict[str, Any]:
    origin, arguments = get_origin(kind), get_args(kind)
    if kind is Any:
        return {}
    if origin is Annotated:
        return {"type": "integer", "minimum": 0}
    if origin in (Union, types.UnionType):
        (inner,) = [argument for argument in arguments if argument is not type(None)]
        return {"anyOf": [_schema(inner), {"type": "null"}]}
    if origin is Literal:
        return {"enum": list(arguments)}
    if origin is tuple:
        return _listed(arguments)
    if origin in (dict, Mapping):
        return {"type": "object", "additionalProperties": _schema(arguments[1])}
    if isinstance(kind, type) and issubclass(kind, tuple):
        return _listed(tuple(get_type_hints(kind, include_extras=True).values()))
    if is_dataclass(kind):
        return _record(kind)
    return {"type": {str: "string", bool: "boolean", int: "integer", float: "number"}[kind]}


def _listed(arguments: tuple[Any, ...]) -> dict[str, Any]:
    if arguments[1:] == (...,):
        return {"type": "array", "items": _schema(arguments[0])}
    n = len(arguments)
    return {"type": "array", "prefixItems": [*map(_schema, arguments)], "items": False, "minItems": n, "maxItems": n}


def _record(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind, include_extras=True)
    properties, required = {}, []
    for part in fields(kind):
        if "apart" in part.metadata:
            continue
        left_out = "since" in part.metadata and not part.metadata["null"]
        hint = hints[part.name]
        if left_out:
            (hint,) = [argument for argument in get_args(hint) if argument is not type(None)]
        else:
            required.append(part.name)
        properties[part.name] = _schema(hint)
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}
