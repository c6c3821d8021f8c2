"""Each obstacle of a run is named with its figure and with keys to try, and only the first of those that follow."""

from __future__ import annotations

import re
from typing import Any

import pytest

from sparselit.report.advice import advice
from sparselit.report.summary import summary
from sparselit.runs.result import Density, MetBound
from tests.report.test_summary import FOLDER
from tests.runs import example


def told(**changes: Any) -> tuple[str, ...]:
    good = {"accuracies": (example.accuracy("report", 100, 100),)}
    return advice(example.result(**good | changes))


def density(reached: float) -> Density:
    return Density(0.2, 0.2, 0.05, reached, ())


OVERFITS = example.circuit(criterion=(MetBound("accuracy", None, 0.99, 0.93, False),))


@pytest.mark.parametrize(
    ("changes", "begins"),
    [
        ({"accuracies": (example.accuracy("report", 51, 100),), "density": density(0.4)}, "not learned: 51.00 %"),
        ({"density": density(0.2)}, "learned, not as sparse as configured: density 0.2, not 0.05"),
        (
            {"circuits": example.circuits(OVERFITS)},
            "the circuit overfits: accuracy 0.93 on the report split, to be ≥ 0.99",
        ),
        ({"circuits": example.circuits(example.circuit(complete=False))}, "the circuit has no certificate"),
        (
            {"accuracies": (example.accuracy("report", 99, 100), example.accuracy("out_of_distribution", 29, 100))},
            "out of distribution far below: 29.00 % right, 99.00 %",
        ),
    ],
)
def test_each_obstacle_has_one_line_with_its_figure_and_keys_to_try(changes: dict[str, Any], begins: str) -> None:
    (line,) = told(**changes)
    assert line.startswith(begins)
    assert re.search(r"; try .*(--\w+|sample\(\))", line)


def test_a_run_that_came_to_its_goal_or_has_not_ended_gets_none() -> None:
    assert told() == ()
    assert told(density=density(0.05)) == ()
    for ended in ("running", "interrupted", "failed"):
        assert told(ended=ended, accuracies=(example.accuracy("report", 51, 100),)) == ()


def test_what_is_learned_by_heart_and_what_cannot_be_learned_better_are_told_apart() -> None:
    chance = example.result(accuracies=(example.accuracy("report", 51, 100),))
    assert advice(chance, trained=1.0)[0].startswith(
        "learned by heart: 100.00 % of the training prompts right, 51.00 %"
    )
    assert not any("learned" in line for line in advice(chance, optimum=0.5))


def test_the_summary_repeats_the_advice() -> None:
    line = "not learned: 51.00 % of the report split right; try --effort thorough or --model.d_model 64"
    text = summary(example.result(advice=(line,)), FOLDER)
    assert "- advice      not learned: 51.00 %" in text
    assert max(map(len, text.splitlines())) <= 80
