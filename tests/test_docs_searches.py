"""The search that docs/searches.md writes is taken from the page and run."""

from __future__ import annotations

import re
from pathlib import Path

from sparselit.circuits import Bound
from sparselit.circuits import search as searches
from sparselit.circuits.problem import Problem

from .circuits.models import randomised, some_examples

PAGE = (Path(__file__).parents[1] / "docs" / "searches.md").read_text(encoding="utf-8")


def test_the_search_of_the_page_finds_a_certified_circuit() -> None:
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, type[searches.Search]] = {}
    exec(code, names)
    problem = Problem(randomised(), some_examples(), [Bound("task_loss", at_most=3.0)])
    assert problem.works(problem.all_edges())
    found = names["Halving"]().run(problem)
    assert found.complete
    assert problem.works(found.kept)
    assert int(found.kept.sum()) < len(found.kept)


def test_the_page_lists_every_search() -> None:
    classes = {name for name in searches.__all__ if name not in ("Found", "Report", "Search")}
    assert classes == set(re.findall(r"^\| `(\w+)` \|", PAGE, re.MULTILINE))
