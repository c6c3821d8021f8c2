"""Train weight-sparse transformers, then find, certify and show the minimal circuit behind each behaviour."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparselit.circuits import Circuit, discover, verify
    from sparselit.discovery import Discovery
    from sparselit.errors import SparselitError
    from sparselit.modules import SparseTransformer
    from sparselit.sparsifier import Sparsifier
    from sparselit.task import Example, Task
    from sparselit.transformer import Transformer

__all__ = [
    "Circuit",
    "Discovery",
    "Example",
    "SparseTransformer",
    "SparselitError",
    "Sparsifier",
    "Task",
    "Transformer",
    "discover",
    "verify",
]

_HOMES = {
    "Circuit": "circuits",
    "Discovery": "discovery",
    "Example": "task",
    "SparseTransformer": "modules",
    "SparselitError": "errors",
    "Sparsifier": "sparsifier",
    "Task": "task",
    "Transformer": "transformer",
    "discover": "circuits",
    "verify": "circuits",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `sparselit --help` needs none of them (PEP 562)."""
    if name == "__version__":
        from importlib.metadata import version

        return version("sparselit")
    if name not in _HOMES:
        raise AttributeError(f"module 'sparselit' has no attribute {name!r}")
    value = getattr(import_module(f"sparselit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
