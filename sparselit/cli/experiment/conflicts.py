"""What the parser lets pass without a word: refused, or said aloud."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sparselit.cli.experiment.arguments import Layer
from sparselit.cli.experiment.keys import CLASS_KEYS
from sparselit.errors import SparselitError

#: Arguments that the data sets on the model, and where they come from.
LINKS = {"vocab_size": "data.vocab_size", "max_length": "data.max_length"}


def refuse_linked(layers: Sequence[Layer]) -> None:
    """Refuse a value for an argument that the data sets; the parser would drop it.

    Raises:
        SparselitError: names the key and where it stands.
    """
    for layer in layers:
        for target, source in LINKS.items():
            if layer.settings.get(("model", target)) is not None:
                raise SparselitError(f"model.{target} is set by {source}; take it out of {layer.source}")


def refuse_length(trainer: Mapping[str, Any], command: str) -> None:
    """Refuse a number of steps that is no length; training streams have no end, so a run must have one.

    Args:
        trainer: settings of the trainer.
        command: only ``fit`` needs a length.

    Raises:
        SparselitError: names the key and the value.
    """
    steps = trainer.get("max_steps", -1)
    if steps == 0 or steps < -1:
        raise SparselitError(f"trainer.max_steps must be at least 1, got {steps}")
    unlimited = steps == -1 and trainer.get("max_epochs") is None and trainer.get("max_time") is None
    if command == "fit" and unlimited and not trainer.get("fast_dev_run"):
        raise SparselitError("trainer.max_steps is missing: how many optimizer steps to train, e.g. 2000")


def silent_changes(settings: Mapping[str, Any], layers: Sequence[Layer]) -> Iterator[str]:
    """What a later file or option did to an earlier one beyond changing a value.

    Args:
        settings: the merged result.
        layers: what it was merged from, in order.

    Yields:
        A line for each mapping that a number replaced, and for each argument that a change of class dropped.
    """
    for key in CLASS_KEYS:
        chosen = settings.get(key)
        if not chosen:
            continue
        written: dict[str, Any] = {}
        for layer in layers:
            for (group, name), value in layer.settings.items():
                if group == key and name not in ("class_path", "dict_kwargs"):
                    before = written.get(name)
                    if isinstance(before, dict) and isinstance(value, int | float):
                        yield f"{key}.{name}: {value} replaces the mapping {inline(before)}"
                    both = isinstance(before, dict) and isinstance(value, dict)
                    written[name] = {**before, **value} if both else value  # type: ignore[dict-item]
        final = chosen.get("init_args") or {}
        short = chosen["class_path"].rpartition(".")[2]
        for name, value in written.items():
            if value is not None and name not in final and name not in LINKS:
                yield f"{key}.{name}: {inline(value)} is dropped, {short} has no such argument"


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
