"""docs/reference/lightning.md: a row for each flag and built-in callback of the installed Lightning, with its test."""

from __future__ import annotations

import ast
import inspect
import re
from pathlib import Path

import pytest
from lightning.pytorch import Trainer, callbacks

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/reference/lightning.md").read_text(encoding="utf-8")
_ROW = re.compile(r"^\| `(\w+)` \| ([\w ]+) \| (.*) \| `(tests/[\w/]+\.py)::(\w+)` \|$", re.MULTILINE)
FLAGS = [name for name in inspect.signature(Trainer.__init__).parameters if name != "self"]


def rows(heading: str) -> list[tuple[str, ...]]:
    part = PAGE.partition(f"## {heading}\n")[2].partition("\n## ")[0]
    found = [match.groups() for match in _ROW.finditer(part)]
    assert len(found) == part.count("\n| `")
    return found


@pytest.mark.parametrize(
    ("heading", "names"), [("Flags of the Trainer", FLAGS), ("Built-in callbacks", callbacks.__all__)]
)
def test_the_table_is_complete_and_each_row_names_a_test(heading: str, names: list[str]) -> None:
    found = rows(heading)
    assert [name for name, *_ in found] == list(names)
    for name, state, reason, file, test in found:
        assert state in ("works", "works in part", "refused"), name
        assert reason or state == "works", f"{name} is refused without a reason"
        text = (ROOT / file).read_text(encoding="utf-8")
        tests = {node.name for node in ast.parse(text).body if isinstance(node, ast.FunctionDef)}
        assert test in tests, f"{name}: {file} has no {test}"
        assert name in text, f"{name}: {file} does not name it"
