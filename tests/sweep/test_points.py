"""What a sweep's description means."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselit.errors import SparselitError
from sparselit.sweep.points import flattened, points

KEYS = st.sampled_from(["model.d_model", "model.lr", "seed_everything", "sparsity.density.to"])
GRIDS = st.dictionaries(KEYS, st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), min_size=1)


@given(GRIDS)
def test_a_grid_is_every_combination_once_and_ids_depend_on_nothing_but_the_settings(grid: dict[str, Any]) -> None:
    found = points({"grid": grid}, {})
    size = 1
    for values in grid.values():
        size *= len(values)
    assert len(found) == len({point.id for point in found}) == size
    assert all(point.settings[key] in grid[key] for point in found for key in grid)
    backwards = points({"grid": dict(reversed(grid.items()))}, {})
    assert {point.id for point in found} == {point.id for point in backwards}
    assert {point.id for point in found}.isdisjoint(point.id for point in points({"grid": grid}, {"model.bias": True}))


def test_parts_are_combined_grids_in_a_list_are_joined_and_equal_points_are_one() -> None:
    description = {
        "grid": [{"a": [1, 2]}, {"a": [2], "b": [5]}],
        "zip": {"c": [1, 2], "d": [3, 4]},
    }
    rows = [dict(point.settings) for point in points(description, {})]
    assert rows[:2] == [{"a": 1, "c": 1, "d": 3}, {"a": 1, "c": 2, "d": 4}]
    assert len(rows) == 6
    assert points({"grid": [{"a": [1]}, {"a": [1]}]}, {}) == points({"grid": {"a": [1]}}, {})


def test_values_between_two_ends_and_draws() -> None:
    (first, *_, last) = points({"grid": {"x": {"log": [0.002, 0.2], "n": 5}}}, {})
    assert (first.settings["x"], last.settings["x"]) == (0.002, 0.2)
    assert [p.settings["x"] for p in points({"grid": {"x": {"linear": [0, 1], "n": 3}}}, {})] == [0.0, 0.5, 1.0]
    keys = {"lr": {"log": [0.001, 0.1]}, "n": {"int": [1, 3]}, "kind": ["a", "b"], "x": {"uniform": [0, 1]}}
    one, other = (points({"random": {"n": 20, "seed": seed, "keys": keys}}, {}) for seed in (0, 1))
    assert one == points({"random": {"n": 20, "keys": keys}}, {}) != other
    assert all(0.001 <= point.settings["lr"] <= 0.1 and point.settings["n"] in (1, 2, 3) for point in one)


def test_init_args_are_the_keys_of_what_has_them() -> None:
    content = {"model": {"class_path": "A", "init_args": {"d": {"e": 1}}}, "trainer": {"callbacks": [1]}, "x": {}}
    assert flattened(content) == {"model.class_path": "A", "model.d.e": 1, "trainer.callbacks": [1], "x": {}}


@pytest.mark.parametrize(
    ("description", "said"),
    [
        ({}, "no values"),
        ({"gird": {}}, "did you mean 'grid'"),
        ({"grid": {"a": []}}, r"sweep\.grid\.a must be a list"),
        ({"grid": {"a": 3}}, "must be a list"),
        ({"grid": {"a": {"log": [0, 1], "n": 3}}}, "0 < low < high"),
        ({"grid": {"a": {"log": [1], "n": 3}}}, "two numbers"),
        ({"grid": {"a": {"linear": [0, 1], "n": 1}}}, "n must be"),
        ({"grid": {"a": {"linear": [0, 1], "n": 10**6}}}, "at most 100,000"),
        ({"grid": {key: list(range(10)) for key in "abcdef"}}, "1,000,000 runs"),
        ({"zip": {"a": [1], "b": [1, 2]}}, "go together"),
        ({"grid": {"a": [1]}, "zip": {"a": [1]}}, "a in two of"),
        ({"random": {"n": 2}}, r"sweep\.random needs"),
        ({"random": {"n": 0, "keys": {"a": [1]}}}, "at least 1"),
        ({"random": {"n": 2, "keys": {"a": {"lgo": [1, 2]}}}}, "log, uniform, int"),
    ],
)
def test_mistakes_are_refused_by_name(description: dict[str, Any], said: str) -> None:
    with pytest.raises(SparselitError, match=said):
        points(description, {})
