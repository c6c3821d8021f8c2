"""The benchmark of the recipe: every shipped task has its row, a run is measured once, and a failure is a row too."""

from __future__ import annotations

from pathlib import Path

import pytest

import benchmarks.recipe as recipe
from sparselit.cli.commands.configs import shipped
from sparselit.cli.commands.tasks import installed_tasks
from tests.runs import example


def test_every_task_and_its_tuned_configuration_exist() -> None:
    assert set(recipe.TASKS) <= {name for name, _ in installed_tasks()}
    assert set(recipe.TASKS.values()) <= set(shipped())
    assert len(recipe.TASKS) == 19


def test_a_run_that_is_recorded_is_not_repeated_and_stands_in_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[tuple[str, int]] = []

    def measured(task: str, seed: int) -> dict[str, object]:
        ran.append((task, seed))
        return {"exit": 0, "cpu": 1.0, **recipe.facts(example.result())}

    monkeypatch.setattr(recipe, "RECORD", tmp_path / "recipe.jsonl")
    monkeypatch.setattr(recipe, "measured", measured)
    for _ in range(2):
        recipe.main(["--only", "Minimum", "Parity", "--seeds", "0"])
    assert ran == [("Minimum", 0), ("Parity", 0)]
    capsys.readouterr()
    recipe.main(["--table"])
    head, rule, *rows = capsys.readouterr().out.splitlines()
    assert len({line.count("|") for line in (head, rule, *rows)}) == 1
    assert rows[0].startswith("| Minimum | 0 | 99.50 %")


def test_a_run_without_a_circuit_has_a_row_that_says_so() -> None:
    rows = [
        {"task": "Parity", "seed": 0, **recipe.facts(example.result(circuits=None, density=None))},
        {"task": "Copying", "seed": 0, "exit": 2, "problem": "error: no space"},
    ]
    _, _, copying, parity = recipe.table(rows)
    assert "| none | - | no |" in parity
    assert copying.startswith("| Copying | 0 | - | - | none | - | no |")
