"""Schedules: their ends, their shapes, and the values they refuse."""

from __future__ import annotations

import math
import pickle

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselit.errors import SparselitError
from sparselit.sparsity import Piecewise, Schedule
from sparselit.sparsity.schedule import SHAPES

densities = st.floats(1e-4, 1.0)
moments = st.floats(0, 1)


def square_root(u: float) -> float:
    return math.sqrt(u)


class Late:
    def __call__(self, u: float) -> float:
        return u**4


def too_far(u: float) -> float:
    return 1 + u


@given(densities, densities, moments, moments, st.sampled_from(sorted(SHAPES)), st.integers(1, 5000))
def test_every_shape_goes_monotonically_from_start_to_target(start, to, a, b, shape, total):
    schedule = Schedule(to=to, start=start, begin=min(a, b), end=max(a, b), shape=shape)
    at = [schedule.at(round(i * total / 20), total) for i in range(21)]
    assert at[-1] == to
    assert at[0] == (start if max(a, b) > 0 else to)
    assert all(min(start, to) <= density <= max(start, to) for density in at)
    ordered = sorted(at, reverse=start > to)
    assert at == pytest.approx(ordered)


@pytest.mark.parametrize(
    ("shape", "halfway"),
    [
        ("linear", 0.505),
        ("cubic", 0.01 + 0.99 * 0.5**3),
        ("cosine", 0.505),
        ("exponential", 0.1),
        (f"{__name__}.square_root", 1 - 0.99 * math.sqrt(0.5)),
        (f"{__name__}.Late", 1 - 0.99 * 0.5**4),
    ],
)
def test_the_shapes_differ_where_they_should(shape, halfway):
    schedule = Schedule(to=0.01, begin=0.2, end=0.6, shape=shape)
    assert schedule.at(40, 100) == pytest.approx(halfway)
    assert pickle.loads(pickle.dumps(schedule)).at(40, 100) == schedule.at(40, 100)


def test_moments_up_to_one_are_fractions_and_above_one_are_steps():
    in_steps = Schedule(to=0.1, begin=100, end=200)
    assert [in_steps.at(s, -1) for s in (0, 100, 150, 200)] == pytest.approx([1, 1, 0.55, 0.1])
    whole = Schedule(to=0.1, end=1)
    assert [whole.at(s, 50) for s in (0, 25, 50)] == pytest.approx([1, 0.55, 0.1])
    mixed = Schedule(to=0.1, begin=10, end=0.5)
    assert mixed.at(30, 100) == pytest.approx(0.55)


def test_a_constant_needs_no_length_and_stays_constant_towards_another_target():
    constant = Schedule.constant(0.3)
    assert constant.at(0, -1) == constant.at(10**9, -1) == 0.3
    assert constant.towards(0.2).at(0, -1) == 0.2
    assert Schedule(to=0.1, begin=5, end=9).towards(0.2) == Schedule(to=0.2, begin=5, end=9)


def test_begin_equal_to_end_is_a_jump():
    assert [Schedule(to=0.1, begin=5, end=5).at(s, -1) for s in (4, 5)] == [1, 0.1]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"to": 0}, r"density\.to must lie in \(0, 1\], got 0"),
        ({"to": 2}, r"density\.to must lie in \(0, 1\], got 2"),
        ({"to": math.nan}, "got nan"),
        ({"to": True}, "got True"),
        ({"to": "abc"}, "got 'abc'"),
        ({"to": 0.1, "start": 1.5}, r"density\.start must lie in \(0, 1\], got 1\.5"),
        ({"to": 0.1, "begin": -1}, r"density\.begin must be a fraction .* got -1"),
        ({"to": 0.1, "end": 1.5}, "whole number of steps, got 1.5"),
        ({"to": 0.1, "end": math.inf}, "got inf"),
        ({"to": 0.1, "begin": 0.6, "end": 0.5}, "must not lie after"),
        ({"to": 0.1, "begin": 60, "end": 50}, "must not lie after"),
        ({"to": 0.1, "shape": "linea"}, "one of linear, cubic, cosine, exponential"),
        ({"to": 0.1, "shape": "no.such.place"}, "cannot be imported"),
        ({"to": 0.1, "shape": "math.pi"}, "one of linear"),
    ],
)
def test_values_out_of_range_are_named(values, message):
    with pytest.raises(SparselitError, match=message):
        Schedule(**values)


def test_a_plain_number_out_of_range_is_named():
    for bad in (0, 2):
        with pytest.raises(SparselitError, match=rf"^density must lie in \(0, 1\], got {bad}$"):
            Schedule.constant(bad)


def test_fractions_without_the_length_of_the_run_are_refused():
    with pytest.raises(SparselitError, match=r"set trainer\.max_steps"):
        Schedule(to=0.1, begin=0, end=0.5).at(3, -1)


def test_begin_after_end_in_different_units_is_refused_when_the_length_is_known():
    with pytest.raises(SparselitError, match=r"got 80 and 0\.5 in 100 steps"):
        Schedule(to=0.1, begin=80, end=0.5).check(100)


def test_a_shape_that_leaves_the_range_is_refused():
    with pytest.raises(SparselitError, match="progress in"):
        Schedule(to=0.1, shape=f"{__name__}.too_far").at(5, 10)


def test_a_staircase_jumps_by_equal_amounts_at_equal_distances():
    schedule = Schedule(to=0.2, begin=10, end=50, shape="step", jumps=4)
    at = [schedule.at(step, -1) for step in (0, 19, 20, 29, 30, 39, 40, 49, 50, 99)]
    assert at == pytest.approx([1, 1, 0.8, 0.8, 0.6, 0.6, 0.4, 0.4, 0.2, 0.2])
    once = Schedule(to=0.2, begin=10, end=40, shape="step", jumps=1)
    assert [once.at(step, -1) for step in (9, 39, 40)] == [1, 1, 0.2]
    with pytest.raises(SparselitError, match=r"density\.jumps must be at least 1, got 0"):
        Schedule(to=0.1, jumps=0)


def test_stages_follow_each_other_and_rest_in_between():
    schedule = Piecewise.of(
        [
            Schedule(to=0.5, begin=10, end=20),
            Schedule(to=0.1, begin=0.3, end=0.4, shape="step", jumps=2),
            Schedule(to=0.2, begin=60, end=60),
        ]
    )
    at = [schedule.at(step, 100) for step in (0, 15, 20, 34, 35, 59, 60, 100)]
    assert at == pytest.approx([1, 0.75, 0.5, 0.5, 0.3, 0.1, 0.2, 0.2])
    assert (schedule.lowest, schedule.to, schedule.needs_length, schedule.is_constant) == (0.1, 0.2, True, False)
    half = schedule.towards(0.1)
    assert [half.at(step, 100) for step in (0, 20, 59, 100)] == pytest.approx([1, 0.25, 0.05, 0.1])
    assert pickle.loads(pickle.dumps(schedule)) == schedule


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "needs at least one"),
        ([Schedule(to=0.5, end=9), Schedule(to=0.1, start=0.7, begin=10, end=20)], "stage 2 starts at 0.5"),
        ([Schedule(to=0.5, end=20), Schedule(to=0.1, begin=10, end=30)], "stage 2 begins at step 10, before stage 1"),
    ],
)
def test_stages_that_make_no_sense_are_refused(stages, message):
    with pytest.raises(SparselitError, match=message):
        Piecewise.of(stages).check(100)
