"""What the parser lets pass without a word: refused, or said aloud."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import yaml

from sparselit.cli.experiment.arguments import Layer
from sparselit.cli.experiment.keys import CLASS_KEYS, TRAINER_LISTS
from sparselit.errors import SparselitError

#: Arguments that the data sets on the model, and where they come from.
LINKS = {"vocab_size": "data.vocab_size", "max_length": "data.max_length"}
#: What the name of a run may be, so that it is a folder's on every system.
_NAME, _LONGEST_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._=+-]*"), 100


def refuse_linked(layers: Sequence[Layer]) -> None:
    """Refuse a value for an argument that the data sets; the parser would drop it.

    Raises:
        SparselitError: names the key and where it stands.
    """
    for layer in layers:
        for target, source in LINKS.items():
            if layer.settings.get(("model", target)) is not None:
                raise SparselitError(f"model.{target} is set by {source}; take it out of {layer.source}")


def check_name(name: object) -> None:
    """Refuse a name of a run that is no name of one folder.

    Args:
        name: what stands under ``name``.

    Raises:
        SparselitError: names it and what may stand in it.
    """
    text = str(name)
    if not isinstance(name, str) or not _NAME.fullmatch(text) or len(text) > _LONGEST_NAME:
        raise SparselitError(
            f"name must be letters, digits and . _ = + - , at most {_LONGEST_NAME} of them, and begin with a letter or "
            f"digit, got {text!r:.60}"
        )


def refuse_precision(trainer: Mapping[str, Any]) -> None:
    """Refuse precisions that put other layers into the model, whose weights are not the ones that are sparsified.

    Args:
        trainer: settings of the trainer.

    Raises:
        SparselitError: names the precision.
    """
    precision = str(trainer.get("precision"))
    if precision.startswith("transformer-engine"):
        raise SparselitError(
            f"trainer.precision: {precision} puts other layers in place of the model's, in which no weight stays zero; "
            "use bf16-mixed"
        )


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


#: Flags of the trainer that take away what a run consists of, and why.
_REFUSED_FLAGS = {
    "barebones": "a run without checkpoints, logged values and summary is none",
    "model_registry": "the checkpoints of a run stay in its folder",
}


def refuse_flags(trainer: Mapping[str, Any]) -> None:
    """Refuse flags of the trainer that could not do what they say.

    Args:
        trainer: settings of the trainer.

    Raises:
        SparselitError: names the flag, and why.
    """
    for name, reason in _REFUSED_FLAGS.items():
        if trainer.get(name):
            raise SparselitError(f"trainer.{name} is not supported: {reason}; leave it out")


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


def replaced_lists(layers: Sequence[Layer]) -> Iterator[str]:
    """A line for each list of classes in the trainer's keys that a later file or option replaced.

    Args:
        layers: what was merged, in order.
    """
    for name in TRAINER_LISTS:
        before: list[str] = []
        for layer in layers:
            given = ("trainer", name) in layer.settings
            names = _class_names(layer.settings.get(("trainer", name)))
            if given and before and names != before:
                yield (
                    f"trainer.{name}: [{', '.join(names)}] replaces [{', '.join(before)}]; "
                    f"--trainer.{name}+=CLASS, or {name}+: in a file, appends"
                )
            before = names if given else before
            before = before + _class_names(layer.settings.get(("trainer", f"{name}+")))


def _class_names(value: Any) -> list[str]:
    """Short names of one class or of a list of them; nothing of what names no class."""
    if isinstance(value, list):
        return [name for part in value for name in _class_names(part)]
    path = value.get("class_path") if isinstance(value, dict) else value
    return [path.rpartition(".")[2]] if isinstance(path, str) else []


def inline(value: Any) -> str:
    """A value as YAML on one line."""
    return yaml.safe_dump(value, default_flow_style=True, width=10_000).removesuffix("...\n").strip()
