"""Values that the parser lets pass and nothing can use: null for a number, NaN, infinity, numbers without end."""

from __future__ import annotations

import math
import types
from collections.abc import Iterator, Mapping
from enum import Enum
from pydoc import ErrorDuringImport, locate
from typing import Any, Union, get_args, get_origin

from jsonargparse import Namespace
from jsonargparse._parameter_resolvers import get_signature_parameters

from sparselit.cli.experiment.conflicts import LINKS
from sparselit.cli.experiment.translation import type_words
from sparselit.errors import LARGEST_SEED, SparselitError, check_range, check_whole

_MOST = 10**12
#: The trainer's numbers: the smallest value and the largest.
TRAINER_RANGES: dict[str, tuple[int, float]] = {
    "accumulate_grad_batches": (1, 10**6),
    "max_steps": (-1, _MOST),
    "min_steps": (0, _MOST),
    "max_epochs": (-1, _MOST),
    "min_epochs": (0, _MOST),
    "fast_dev_run": (0, 10**6),
    "overfit_batches": (0, 10**6),
    "limit_train_batches": (0, _MOST),
    "limit_val_batches": (0, _MOST),
    "limit_test_batches": (0, _MOST),
    "limit_predict_batches": (0, _MOST),
    "val_check_interval": (0, _MOST),
    "check_val_every_n_epoch": (1, _MOST),
    "num_sanity_val_steps": (-1, _MOST),
    "log_every_n_steps": (0, _MOST),
    "reload_dataloaders_every_n_epochs": (0, _MOST),
    "num_nodes": (1, 10**6),
    "gradient_clip_val": (0, 10**6),
}
_MOST_THREADS = 1024
#: Keys of the trainer of which zero is refused although it is the limit of the range.
_ABOVE_ZERO = ("val_check_interval",)


def refuse_no_keys(settings: Namespace) -> None:
    """Refuse a single value where the trainer's keys are meant.

    Raises:
        SparselitError: names the value.
    """
    if not isinstance(settings.get("trainer"), Namespace):
        raise SparselitError(f"trainer must hold keys such as max_steps, got {settings.get('trainer')!r:.40}")


def refuse_values(settings: Namespace) -> None:
    """Refuse numbers that no class can use, before any is made.

    Args:
        settings: what was parsed of one command.

    Raises:
        SparselitError: names the key and the value.
    """
    for key, value in _leaves(settings.as_dict()):
        if isinstance(value, float) and not math.isfinite(value):
            raise SparselitError(f"{key} must be a finite number, got {value}")
        if isinstance(value, int) and abs(value) >= 2**63:
            raise SparselitError(f"{key} must be below 2^63, got {str(value)[:40]}")
    for key, cls, arguments in _classes(settings.as_dict()):
        _refuse_nulls(key, cls, arguments)
    seed = settings.get("seed_everything")
    if seed is not None and not isinstance(seed, bool):
        check_whole("seed_everything", seed, 0, most=LARGEST_SEED)
    if settings.get("threads") is not None:
        check_whole("threads", settings.threads, 1, most=_MOST_THREADS)
    for key, (low, most) in TRAINER_RANGES.items():
        value = settings.trainer.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool):
            check_range(f"trainer.{key}", value, low, above=key in _ABOVE_ZERO, most=most)


def plain_defaults(settings: Namespace) -> None:
    """Put texts in place of members of an enumeration where a text is meant, which cannot be saved otherwise.

    Args:
        settings: what was parsed of one command; changed in place.
    """
    for value in list(settings.values()):
        for part in value if isinstance(value, list) else [value]:
            if isinstance(part, Namespace):
                plain_defaults(part)
    arguments = settings.get("init_args")
    if not isinstance(settings.get("class_path"), str) or not isinstance(arguments, Namespace):
        return
    for parameter in _parameters(settings.class_path):
        value = arguments.get(parameter.name)
        if isinstance(value, Enum) and isinstance(value, str) and parameter.annotation is str:
            arguments[parameter.name] = str(value.value)


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Keys as they stand in YAML, without ``init_args``, and their values."""
    if isinstance(value, Mapping):
        for name, part in value.items():
            yield from _leaves(part, _joined(key, str(name)))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _leaves(part, key)
    else:
        yield key, value


def _classes(value: Any, key: str = "") -> Iterator[tuple[str, str, Mapping[str, Any]]]:
    """Everything that is given as a class with its arguments: key, class path and arguments."""
    if isinstance(value, Mapping):
        if isinstance(value.get("class_path"), str) and isinstance(value.get("init_args"), Mapping):
            yield key, value["class_path"], value["init_args"]
        for name, part in value.items():
            yield from _classes(part, _joined(key, str(name)))
    elif isinstance(value, list | tuple):
        for part in value:
            yield from _classes(part, key)


def _refuse_nulls(key: str, class_path: str, arguments: Mapping[str, Any]) -> None:
    nulls = [name for name, value in arguments.items() if value is None and (key != "model" or name not in LINKS)]
    if not nulls:
        return
    for parameter in _parameters(class_path):
        if parameter.name in nulls and parameter.default is not None and not _takes_null(parameter.annotation):
            kind = type_words(str(parameter.annotation))
            raise SparselitError(f"{_joined(key, parameter.name)}: expected {kind}, got null")


def _parameters(class_path: str) -> list[Any]:
    """What a class takes; nothing where it is no class, which is refused where it is made."""
    try:
        found: Any = locate(class_path)
        return list(get_signature_parameters(found, None))
    except (ErrorDuringImport, TypeError, ValueError, AttributeError):
        return []


def _takes_null(annotation: Any) -> bool:
    if annotation in (Any, None, type(None)) or not (isinstance(annotation, type) or get_origin(annotation)):
        return True  # also where there is no type
    return get_origin(annotation) in (Union, types.UnionType) and type(None) in get_args(annotation)


def _joined(key: str, name: str) -> str:
    if name in ("init_args", "dict_kwargs"):
        return key
    return f"{key}.{name}" if key else name
