"""The trained models that come with the library: a folder each, with weights, tokenizer, configuration and card."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparselit.errors import SparselitError, suggestion

WEIGHTS, TOKENIZER, CARD, SETTINGS = "weights.safetensors", "tokenizer.json", "card.json", "config.yaml"


def shipped_models() -> dict[str, Path]:
    """The folders of the shipped models by name."""
    root = Path(__file__).parents[1] / "shipped_models"
    return {path.name: path for path in sorted(root.iterdir()) if (path / CARD).is_file()}


def is_shipped(text: str) -> bool:
    """Whether a text means a shipped model: it is the name of one, and no file or folder here is called so."""
    return text in shipped_models() and not Path(text).exists()


def shipped_model(name: str) -> Path:
    """The folder of one of them.

    Raises:
        SparselitError: there is none of that name.
    """
    found = shipped_models()
    if name not in found:
        raise SparselitError(f"no shipped model is called {name!r}{suggestion(name, list(found))}")
    return found[name]


def card(name: str) -> dict[str, Any]:
    """What the card of a shipped model says.

    Args:
        name: of the model.
    """
    return dict(json.loads((shipped_model(name) / CARD).read_text(encoding="utf-8")))
