"""Train weight-sparse transformers, then find, certify and show the minimal circuit behind each behaviour."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sparselit.circuits import Circuit, discover, verify
    from sparselit.data.task import Example, Task
    from sparselit.errors import SparselitError
    from sparselit.interop.shipped import load_model
    from sparselit.model import Transformer
    from sparselit.modules import SparseTransformer
    from sparselit.training.discovery import Discovery
    from sparselit.training.sparsifier import Sparsifier

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
    "load_model",
    "verify",
]

_HOMES = {
    "Circuit": "circuits",
    "Discovery": "training.discovery",
    "Example": "data.task",
    "SparseTransformer": "modules",
    "SparselitError": "errors",
    "Sparsifier": "training.sparsifier",
    "Task": "data.task",
    "Transformer": "model",
    "discover": "circuits",
    "load_model": "interop.shipped",
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
