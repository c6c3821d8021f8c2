"""Two costs at once, against their definitions."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparselit.statistics.frontier import centre, front, hypervolume, interval, resampled

COSTS = st.tuples(st.floats(0, 10), st.floats(1, 1e4))
POINTS = st.lists(COSTS, min_size=1, max_size=12)


@given(POINTS)
def test_the_front_is_what_no_other_point_beats(points: list[tuple[float, float]]) -> None:
    named = {str(i): point for i, point in enumerate(points)}
    best = front(named)
    assert best
    for name, point in named.items():
        beaten = any(o[0] <= point[0] and o[1] <= point[1] and o != point for o in named.values())
        if name in best:
            assert not beaten
        else:
            assert beaten or any(named[other] == point for other in best)


@given(POINTS, COSTS)
def test_the_hypervolume_grows_with_better_points_and_not_with_beaten_ones(
    points: list[tuple[float, float]], more: tuple[float, float]
) -> None:
    corner = (11.0, 1e5)
    area = hypervolume(points, corner)
    assert area > 0
    assert hypervolume([*points, more], corner) >= area - 1e-9
    beaten = (points[0][0] + 0.5, points[0][1] * 2)
    assert hypervolume([*points, beaten], corner) == pytest.approx(area)
    first, second = points[0]
    assert hypervolume([(first, second)], (first + 2, second * 100)) == pytest.approx(4.0)


def test_centres_and_resamples() -> None:
    assert centre([(1.0, 10.0), (3.0, 1000.0)]) == pytest.approx((2.0, 100.0))
    draws = resampled({"one": [(1.0, 10.0)], "two": [(1.0, 10.0), (2.0, 10.0)]})
    assert {draw["one"] for draw in draws} == {centre([(1.0, 10.0)])}
    means = interval(1.5, [draw["two"][0] for draw in draws])
    assert (means.low, means.high) == (1.0, 2.0)
    assert draws == resampled({"one": [(1.0, 10.0)], "two": [(1.0, 10.0), (2.0, 10.0)]})
