"""``sparselit tasks``: the tasks, read from their source files without importing torch."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from importlib.metadata import entry_points
from importlib.util import find_spec
from pathlib import Path

from sparselit.cli.command_parser import PlainParser, listing

PLUGINS = "sparselit.plugins"


def run(argv: list[str]) -> None:
    """Print one line for each task, or check some."""
    parser = PlainParser("tasks", "List the tasks: the values of data.class_path; or check that they are sound.")
    explained = "check these tasks (names, import paths or .jsonl files), or all: solvable, balanced, without leaks and"
    parser.add_argument("--check", nargs="*", metavar="NAME", help=f"{explained} without shortcuts; exit code 1 if not")
    names = parser.parse_args(argv).check
    if names is not None:
        from sparselit.cli.task_checks import check  # torch

        check(names)
        return
    plugins = [(plugin.name, f"plug-in {plugin.value}") for plugin in entry_points(group=PLUGINS)]
    sys.stdout.write(listing([*sorted(installed_tasks()), *plugins]))
    sys.stdout.write("\nTrain on one:        sparselit fit --data NAME\n")
    sys.stdout.write("Write your own:      sparselit new task NAME\n")
    sys.stdout.write("Options of a task:   sparselit fit --data.help NAME\n")
    sys.stdout.write("Is a task sound?     sparselit tasks --check NAME\n")


def installed_tasks() -> Iterator[tuple[str, str]]:
    """Name and first docstring line of each class that ``sparselit.tasks`` exports."""
    spec = find_spec("sparselit.tasks")
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        exported = _exported(Path(folder, "__init__.py"))
        for path in sorted(Path(folder).glob("*.py")):
            for node in ast.parse(path.read_text(encoding="utf-8")).body:
                if isinstance(node, ast.ClassDef) and node.name in exported:
                    yield node.name, (ast.get_docstring(node) or "").partition("\n")[0]


def _exported(path: Path) -> set[str]:
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == "__all__" for t in node.targets):
            return set(ast.literal_eval(node.value))
    return set()
