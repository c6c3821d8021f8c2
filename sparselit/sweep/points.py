"""The points of a sweep: what its description means, as a list of settings for single runs.

A description is a mapping with ``grid`` (every combination), ``zip`` (values that go together) and ``random`` (draws);
where there are several, every row of one is combined with every row of the others. A list of grids is their union,
which is how a key is given only beside some values of another.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import math
import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sparselit.errors import SparselitError, suggestion

#: More runs than anybody waits for; a slip of the hand.
MOST_POINTS = 100_000
#: Digits of a value between two ends.
_DIGITS = 6
PARTS = ("grid", "zip", "random")
#: Ways to give values between two ends, as in ``{log: [0.01, 1], n: 5}``.
RANGES = ("log", "linear")
#: Ways to draw a value.
DRAWS = ("log", "uniform", "int")


@dataclass(frozen=True)
class Point:
    """One run of a sweep.

    Attributes:
        settings: value by key, as in ``{"model.d_model": 64}``.
        id: a digest of these and of what the sweep is based on; the name of the run.
    """

    settings: Mapping[str, Any]
    id: str

    @property
    def label(self) -> str:
        """The settings for people."""
        return labelled(self.settings)


def labelled(settings: Mapping[str, Any]) -> str:
    """Settings in a line: the last part of each key with its value."""
    return " ".join(f"{key.rpartition('.')[2]}={_short(value)}" for key, value in settings.items())


def points(description: Mapping[str, Any], base: Mapping[str, Any]) -> list[Point]:
    """All points of a description, each once, in its order.

    Args:
        description: the value of the key ``sweep``.
        base: settings that all runs share, by key; they are part of each point's identity.

    Raises:
        SparselitError: the description is none, has no values, or means too many runs.
    """
    unknown = next((key for key in description if key not in PARTS), None)
    if unknown is not None:
        raise SparselitError(f"sweep.{unknown} is unknown{suggestion(str(unknown), PARTS)}; give {', '.join(PARTS)}")
    tables = [_table(part, description[part]) for part in PARTS if description.get(part)]
    if not tables:
        raise SparselitError("the sweep has no values; give sweep.grid: {model.d_model: [32, 64]}")
    count = math.prod(size for size, _ in tables)
    if count > MOST_POINTS:
        raise SparselitError(f"the sweep means {count:,} runs; at most {MOST_POINTS:,} are run")
    found: dict[str, Point] = {}
    for rows in itertools.product(*(rows for _, rows in tables)):
        settings: dict[str, Any] = {}
        for row in rows:
            twice = next((key for key in row if key in settings), None)
            if twice is not None:
                raise SparselitError(f"the sweep gives {twice} in two of {', '.join(PARTS)}; give it once")
            settings |= row
        point = Point(settings, digest([base, settings]))
        found.setdefault(point.id, point)
    return list(found.values())


def digest(content: object) -> str:
    """Ten hexadecimal digits that tell contents apart."""
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:10]


def flattened(content: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """A nested mapping by dotted keys; ``init_args`` are the keys of what has them, as on the command line.

    Args:
        content: a configuration.
        before: key that it stands under.
    """
    rows: dict[str, Any] = {}
    for key, value in content.items():
        name = before if key == "init_args" else f"{before}.{key}" if before else str(key)
        if isinstance(value, Mapping) and value:
            rows |= flattened(value, name)
        else:
            rows[name] = value
    return rows


def _table(part: str, content: object) -> tuple[int, list[Mapping[str, Any]]]:
    """How many rows a part has, and the rows, where they are not too many."""
    if part == "grid":
        grids = content if isinstance(content, list) else [content]
        axes = [_axes(part, grid) for grid in grids]
        size = sum(math.prod(map(len, axis.values())) for axis in axes)
        return size, list(_products(axes)) if size <= MOST_POINTS else []
    if part == "zip":
        axis = _axes(part, content)
        lengths = {len(values) for values in axis.values()}
        if len(lengths) != 1:
            raise SparselitError("sweep.zip needs as many values of each key: they go together")
        rows = [dict(zip(axis, row, strict=True)) for row in zip(*axis.values(), strict=True)]
        return len(rows), list(rows)
    return _random(content)


def _products(axes: Sequence[Mapping[str, Sequence[Any]]]) -> Iterator[Mapping[str, Any]]:
    for axis in axes:
        for row in itertools.product(*axis.values()):
            yield dict(zip(axis, row, strict=True))


def _axes(part: str, content: object) -> dict[str, list[Any]]:
    if not isinstance(content, Mapping) or not content:
        raise SparselitError(f"sweep.{part} must be a mapping from keys to lists, as in {{model.d_model: [32, 64]}}")
    return {str(key): _values(f"sweep.{part}.{key}", values) for key, values in content.items()}


def _values(where: str, content: object) -> list[Any]:
    if isinstance(content, Mapping) and len(content) == 2 and "n" in content:
        (kind,) = (key for key in content if key != "n")
        if kind in RANGES:
            return _spaced(where, str(kind), content[kind], content["n"])
    if not isinstance(content, list) or not content:
        raise SparselitError(f"{where} must be a list of at least one value, or {{log: [0.01, 1], n: 5}}")
    return content


def _spaced(where: str, kind: str, ends: object, n: object) -> list[float]:
    low, high = _ends(where, kind, ends)
    if type(n) is not int or n < 2:
        raise SparselitError(f"{where}: n must be a whole number of at least 2, got {n!r}")
    if n > MOST_POINTS:
        raise SparselitError(f"{where} has {n:,} values; at most {MOST_POINTS:,} runs are run")
    shares = [i / (n - 1) for i in range(n)]
    if kind == "log":
        return [_rounded(low * (high / low) ** share) for share in shares]
    return [_rounded(low + (high - low) * share) for share in shares]


def _ends(where: str, kind: str, ends: object) -> tuple[float, float]:
    numbers: list[Any] = ends if isinstance(ends, list) and len(ends) == 2 else [None, None]
    if not all(isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) for x in numbers):
        raise SparselitError(f"{where}: {kind} needs two numbers, as in {{{kind}: [0.01, 1]}}, got {ends!r}")
    low, high = numbers
    if not low < high or (kind == "log" and low <= 0):
        raise SparselitError(f"{where}: {kind} needs {'0 < ' if kind == 'log' else ''}low < high, got {ends!r}")
    return float(low), float(high)


def _random(content: object) -> tuple[int, list[Mapping[str, Any]]]:
    if not isinstance(content, Mapping) or not content.keys() <= {"n", "seed", "keys"} or not content.get("keys"):
        raise SparselitError("sweep.random needs {n: 20, keys: {model.lr: {log: [0.001, 0.1]}}}, and may have a seed")
    n, seed, keys = content.get("n"), content.get("seed", 0), content["keys"]
    if type(n) is not int or n < 1 or type(seed) is not int:
        raise SparselitError(f"sweep.random: n must be a whole number of at least 1 and seed a whole number, got {n!r}")
    if n > MOST_POINTS or not isinstance(keys, Mapping):
        return n, []
    generator = random.Random(seed)
    return n, [
        {str(key): _drawn(f"sweep.random.keys.{key}", how, generator) for key, how in keys.items()} for _ in range(n)
    ]


def _drawn(where: str, how: object, generator: random.Random) -> Any:
    if isinstance(how, list) and how:
        return generator.choice(how)
    if isinstance(how, Mapping) and len(how) == 1 and next(iter(how)) in DRAWS:
        ((kind, ends),) = how.items()
        low, high = _ends(where, str(kind), ends)
        if kind == "log":
            return _rounded(math.exp(generator.uniform(math.log(low), math.log(high))))
        return generator.randint(int(low), int(high)) if kind == "int" else _rounded(generator.uniform(low, high))
    raise SparselitError(f"{where} must be a list, or one of {', '.join(DRAWS)} with two ends: {{log: [0.001, 0.1]}}")


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


def _short(value: object) -> str:
    text = value.rpartition(".")[2] if isinstance(value, str) else json.dumps(value, default=str)
    return text if len(text) <= 24 else f"{text[:23]}…"
