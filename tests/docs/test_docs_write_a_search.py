"""The search that docs/how_to/write_a_search.md writes is taken from the page and run."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits import Bound, verify
from sparselit.circuits import search as searches
from sparselit.circuits.search.problem import Problem
from tests.circuits.models import randomised, some_behaviour, some_examples

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "write_a_search.md").read_text(encoding="utf-8")


def code_with(text: str) -> str:
    (code,) = (block for block in re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL) if text in block)
    return str(code)


def test_a_plain_state_dict_and_a_file_of_examples_are_searched_from_python(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = randomised(seed=4, density=0.5)
    torch.save(model.state_dict(), "weights.pt")
    drawn = some_behaviour(model, n=400).write(Path("prompts"))["report"].read_text(encoding="utf-8").splitlines()
    rows = {row["prompt"]: row for row in map(json.loads, drawn) if row["prompt"] != row["corrupted"]}
    Path("examples.jsonl").write_text("\n".join(map(json.dumps, rows.values())), encoding="utf-8")
    names: dict[str, Any] = {}
    exec(code_with("FileTask"), names)
    assert names["circuit"].certificate.complete
    assert verify("circuit.json")["holds"]


def test_the_search_of_the_page_finds_a_certified_circuit() -> None:
    names: dict[str, type[searches.Search]] = {}
    exec(code_with("class Halving"), names)
    problem = Problem.of(randomised(), some_examples(), [Bound("task_loss", at_most=3.0)])
    assert problem.works(problem.all_edges())
    found = names["Halving"]().run(problem)
    assert found.complete
    assert problem.works(found.kept)
    assert int(found.kept.sum()) < len(found.kept)


def test_the_page_lists_every_search() -> None:
    public = {name: getattr(searches, name) for name in searches.__all__}
    classes = {name for name, one in public.items() if isinstance(one, type) and issubclass(one, searches.Search)}
    assert classes - {"Search"} == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
