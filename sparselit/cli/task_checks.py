"""``sparselit tasks --check``: which tasks measure what they say, and what the simplest rules score on each."""

from __future__ import annotations

import inspect
import os
import sys
import textwrap
from collections.abc import Iterator
from importlib import import_module
from typing import Any

from sparselit.cli.command_parser import listing
from sparselit.cli.experiment.plugins import load_plugins
from sparselit.data.soundness import Soundness, examine
from sparselit.data.task import Task
from sparselit.errors import SparselitError, suggestion
from sparselit.report.facts import shortened

#: Sizes that show every fault and are drawn in a second.
SIZES = {"pool": 4096, "discovery": 512, "selection": 512, "report": 2048}
_COLUMNS = {
    "majority": "major.",
    "last token": "last",
    "fixed position": "pos.",
    "bag of characters": "bag",
    "answer visible": "seen",
}
_LEGEND = (
    ("n", "held-out prompts; of few of them a share says little"),
    ("chance", "one answer among all"),
    ("major.", "always the most frequent answer"),
    ("last", "by the last token"),
    ("pos.", "by the token at one fixed position"),
    ("bag", "by how often each token occurs"),
    ("seen", "of two candidates, the one that stands in the prompt (chance: 50)"),
)


def check(names: list[str]) -> None:
    """Check tasks and print a table; leaves with exit code 1 where one is unsound.

    Args:
        names: classes by short name or import path, or JSON-lines files; all tasks that need no argument if empty.

    Raises:
        SparselitError: a name means nothing, or a task breaks its contract.
    """
    if os.getcwd() not in sys.path:  # a user's own tasks stand there
        sys.path.append(os.getcwd())
    load_plugins()
    tasks = [(name, _task(name)) for name in names] or list(_all())
    head = "".join(f"{title:>8}" for title in ("n", "chance", *_COLUMNS.values()))
    sys.stdout.write(f"{'% of held-out prompts':<23}{head}\n")
    unsound = 0
    for name, task in tasks:
        found = examine(task)
        unsound += bool(found.faults)
        sys.stdout.write(_row(name, found))
        sys.stdout.flush()
    sys.stdout.write("\n" + listing(_LEGEND) + "* gives it away, which is what the task is about\n")
    if unsound:
        sys.stdout.write(f"\n{unsound} of {len(tasks)} tasks unsound\n")
        sys.stdout.flush()
        sys.exit(1)


def _row(name: str, found: Soundness) -> str:
    """The table's line for one task, and what there is to say below it."""
    cells = [f"{found.n:>7,} ", f"{100 * found.chance:>7.1f} "]
    cells += [f"{100 * found.accuracies[key]:>7.1f}{'*' if key in found.excused else ' '}" for key in _COLUMNS]
    name = shortened(name, 22)
    lines = [f"{name:<22} {''.join(cells)}".rstrip()]
    notes = [f"fault: {fault}" for fault in found.faults]
    notes += [f"* {_COLUMNS[key]}: {reason}" for key, reason in found.excused.items()]
    if found.verified < found.corrupted:
        verified = f"{found.verified:,} of {found.corrupted:,} corrupted prompts verified"
        notes.append(f"{verified}; solve(prompt) verifies all")
    for note in notes:
        lines += textwrap.wrap(note, 79, initial_indent="  ", subsequent_indent="    ")
    return "".join(f"{line}\n" for line in lines)


def _all() -> Iterator[tuple[str, Task]]:
    """Every task that is loaded and can be made without arguments."""
    classes = {kind.__name__: kind for kind in subclasses(Task)}
    for name, kind in sorted(classes.items()):
        required = [
            p for p in inspect.signature(kind).parameters.values() if p.default is p.empty and p.kind < p.VAR_POSITIONAL
        ]
        if not name.startswith("_") and not required:
            yield name, _made(kind)


def _task(name: str) -> Task:
    """The task that a word of the command line means."""
    classes = {kind.__name__: kind for kind in subclasses(Task)}
    if name.endswith(".jsonl"):
        return _made(classes["FileTask"], path=name)
    if name in classes:
        return _made(classes[name])
    module, _, short = name.rpartition(".")
    try:
        kind = getattr(import_module(module), short) if module else None
    except (ImportError, AttributeError) as error:
        raise SparselitError(f"no task is called {name!r}: {error}") from error
    if not (isinstance(kind, type) and issubclass(kind, Task)):
        raise SparselitError(f"no task is called {name!r}{suggestion(name, list(classes))}")
    return _made(kind)


def _made(kind: type[Task], **arguments: Any) -> Task:
    try:
        return kind(**SIZES, **arguments)
    except TypeError as error:
        raise SparselitError(f"{kind.__name__} cannot be made without arguments: {error}") from error


def subclasses(base: type[Task]) -> Iterator[type[Task]]:
    """Every class below a class of tasks, as far as it is loaded."""
    for kind in base.__subclasses__():
        yield kind
        yield from subclasses(kind)
