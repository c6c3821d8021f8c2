"""The recipe: the settings of an experiment that does not say how long to train, for tasks that nobody tuned."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from sparselit.cli.commands.configs import find_config
from sparselit.cli.experiment import yaml_text
from sparselit.errors import check_choice

#: What an effort changes of ``configs/recipe.yaml``.
EFFORTS: dict[str, dict[str, Any]] = {
    "quick": {"trainer": {"max_steps": 1500}},
    "normal": {},
    "thorough": {"trainer": {"max_steps": 8000}},
}
_NAME, _EFFORT = "recipe", "effort"
_LENGTHS = ("max_steps", "max_epochs", "max_time", "fast_dev_run")


def beneath(command: str, pairs: list[tuple[str, str | None]]) -> list[tuple[str, str | None]]:
    """The options that put the recipe beneath what is typed; none where the experiment states its own length.

    An ``effort`` in words asks for the recipe too, beneath a length that is given as an option.

    Args:
        command: others than ``fit`` need the recipe only where an effort is given.
        pairs: option and value, as typed.

    Raises:
        SparselitError: there is no such effort, or a file is none.
    """
    files = [_content(value) for name, value in pairs if name in ("--config", "-c") and value is not None]
    efforts = [content[_EFFORT] for content in files if content.get(_EFFORT) is not None]
    efforts += [value for name, value in pairs if name == f"--{_EFFORT}" and value is not None]
    for effort in efforts:
        check_choice(_EFFORT, effort, tuple(EFFORTS))
    in_files = any(_states_length(content) for content in files)
    typed = any(name.removeprefix("--trainer.") in _LENGTHS for name, _ in pairs)
    if in_files or (not efforts and (typed or command != "fit")):
        return []
    effort = efforts[-1] if efforts else "normal"
    layers = [yaml_text.read(Path(find_config(_NAME))), {_EFFORT: effort, **EFFORTS[effort]}]
    return [("--config", json.dumps(layer)) for layer in layers]


def _content(value: str) -> dict[str, Any]:
    inline = value.lstrip().startswith("{") or "\n" in value.strip()
    return yaml_text.keys(value, "--config") if inline else yaml_text.read(Path(find_config(value)))


def _states_length(content: dict[str, Any]) -> bool:
    trainer = content.get("trainer")
    return isinstance(trainer, dict) and any(trainer.get(key) for key in _LENGTHS)
