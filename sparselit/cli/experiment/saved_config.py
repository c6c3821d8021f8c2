"""The configuration that a run leaves: complete, and it loads to the values that the run was made with."""

from __future__ import annotations

from typing import Any

import torch
import yaml
from jsonargparse import ArgumentParser, Namespace

from sparselit.cli.experiment import yaml_text
from sparselit.errors import SparselitError

#: What the parser writes in place of a value that it has no text for.
_MARKER = "Unable to serialize instance"


def saved_text(parser: ArgumentParser, settings: Namespace) -> str:
    """The settings of a run as YAML.

    Args:
        parser: of the command.
        settings: what was parsed, defaults included.

    Raises:
        SparselitError: a value has no text; the message names its key.
    """
    text: str = parser.dump(settings, skip_unset=False, skip_validation=True)
    if _MARKER not in text:
        return text
    return yaml_text.dump(_mended(yaml.safe_load(text), settings.as_dict(), ""))


def _mended(written: Any, meant: Any, key: str) -> Any:
    """What was written, with the values that the parser had no text for."""
    if isinstance(written, dict):
        return {name: _mended(part, meant.get(name), f"{key}.{name}".lstrip(".")) for name, part in written.items()}
    if isinstance(written, list):
        return [_mended(part, other, key) for part, other in zip(written, meant, strict=True)]
    if not (isinstance(written, str) and written.startswith(_MARKER)):
        return written
    if isinstance(meant, str | torch.device):
        return str(meant)
    raise SparselitError(f"{key}: {meant!r:.60} cannot be saved in the run's configuration; give it as a text")
