"""A configuration is code: the modules that it names are imported. One that was not named may name only known ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from sparselit.cli.experiment.keys import CLASS_KEYS
from sparselit.errors import SparselitError
from sparselit.runs.folder import RUNS

#: Packages whose classes a configuration may name although the user has not named the configuration.
KNOWN = ("sparselit", "lightning", "torch", "torchmetrics")


def refuse_foreign(config: Path, content: Mapping[str, Any]) -> None:
    """Refuse a configuration that lies beside a checkpoint and names modules of somebody else's.

    Runs in ``runs`` of the current folder are the user's own.

    Args:
        config: the file, which the user has not named.
        content: what it holds.

    Raises:
        SparselitError: it lies elsewhere and names such a module.
    """
    if config.resolve().is_relative_to(Path.cwd().resolve() / RUNS):
        return
    for name in _classes(content):
        package, dot, _ = name.partition(".")
        if dot and package not in KNOWN:
            raise SparselitError(
                f"{config} names the class {name!r}, whose module would be imported: a configuration is code;\n"
                f"read it, and if you trust it, name it: --config {config}"
            )


def _classes(content: Any, key: str = "") -> Iterator[str]:
    """Every class that a configuration names."""
    if isinstance(content, Mapping):
        for inner, value in content.items():
            yield from _classes(value, str(inner))
    elif isinstance(content, list):
        for value in content:
            yield from _classes(value, key)
    elif isinstance(content, str) and key in ("class_path", *CLASS_KEYS, "callbacks"):
        yield content
