"""The floors of docs/architecture.md, checked on the import statements."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
#: Which first parts of `sparselit.*` each part may import beside itself.
WORDS = {"errors", "examples"}
TENSORS = WORDS | {"sites", "transformer", "sparsity", "circuits", "checkpoint"}
ALLOWED = {
    "sites": WORDS,
    "examples": set(),
    "errors": set(),
    "transformer": WORDS | {"sites", "checkpoint"},
    "sparsity": WORDS,
    "circuits": TENSORS,
    "interop": TENSORS,
}


def imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module)
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def files_of(part: str) -> list[Path]:
    folder = ROOT / "sparselit" / part
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [folder.with_suffix(".py")]


@pytest.mark.parametrize("part", ALLOWED)
def test_the_lower_floors_import_downwards_only_and_never_lightning(part: str) -> None:
    for path in files_of(part):
        for name in imports(path):
            assert not name.startswith(("lightning", "pytorch_lightning")), f"{path} imports {name}"
            if name.startswith("sparselit."):
                assert name.split(".")[1] in ALLOWED[part] | {part}, f"{path} imports {name}"


def test_the_core_never_imports_a_plug_in_by_name() -> None:
    for path in (ROOT / "sparselit").rglob("*.py"):
        assert not any(name.startswith(("sparselit.tasks", "sparselit.callbacks")) for name in imports(path)), path


def test_only_the_command_line_imports_the_command_line() -> None:
    for path in [p for folder in ("sparselit", "tasks", "callbacks") for p in (ROOT / folder).rglob("*.py")]:
        if (ROOT / "sparselit" / "cli") not in path.parents:
            assert not any(name.startswith("sparselit.cli") for name in imports(path)), path


def test_verify_imports_no_search_and_no_fast_path() -> None:
    names = imports(ROOT / "sparselit" / "circuits" / "verify.py")
    for forbidden in ("search", "compact", "problem", "ranking", "discover"):
        assert not any(forbidden in name.split(".") for name in names), forbidden
