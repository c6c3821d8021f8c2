"""A length that changes leaves what has passed passed, and spreads the rest over the steps that are left."""

from __future__ import annotations

import copy
import itertools
import pickle

import pytest

from sparselit.sparsity.length import Length, moment_in
from sparselit.sparsity.schedule import Schedule, as_schedule

SCHEDULES = {
    "fractions": Schedule(to=0.1, begin=0.2, end=0.6),
    "steps": Schedule(to=0.1, begin=8, end=24),
    "mixed": Schedule(to=0.1, begin=4, end=0.6),
    "exponential": Schedule(to=0.1, end=1.0, shape="exponential"),
    "cubic": Schedule(to=0.1, end=0.5, shape="cubic"),
    "cosine": Schedule(to=0.1, end=0.5, shape="cosine"),
    "jumps": Schedule(to=0.1, end=0.8, shape="step"),
    "stages": as_schedule([Schedule(to=0.4, end=0.3), Schedule(to=0.1, begin=0.5, end=0.9)]),
    "constant": as_schedule(0.1),
}
RESUMPTIONS = [[(30, 120)], [(10, 120)], [(40, 120)], [(10, 20)], [(10, 80), (20, 120)], [(10, 120), (30, 60)]]


def resumed(*changes: tuple[int, int], first: int = 40) -> Length:
    length = Length(first)
    for step, steps in changes:
        length = length.resumed(step, steps)
    return length


@pytest.mark.parametrize("schedule", SCHEDULES.values(), ids=SCHEDULES)
@pytest.mark.parametrize("changes", RESUMPTIONS, ids=str)
def test_a_schedule_goes_on_from_the_density_reached_and_never_rises(schedule, changes):
    length = resumed(*changes)
    density = [schedule.at(step, length) for step in range(length + 1)]
    assert all(a >= b for a, b in itertools.pairwise(density))
    before = 40
    for number, (step, steps) in enumerate(changes):
        old = Length(before, length.before[:number])
        assert density[step] == pytest.approx(schedule.at(step, old), abs=1e-12)
        before = steps
    if schedule.end <= 1:
        assert density[-1] == pytest.approx(schedule.to)


@pytest.mark.parametrize("total", [1, 7, 40, 1000])
def test_a_length_without_a_past_is_the_number_itself(total):
    for schedule in SCHEDULES.values():
        if schedule is not SCHEDULES["steps"] and schedule is not SCHEDULES["mixed"]:
            assert [schedule.at(s, Length(total)) for s in range(total)] == [
                schedule.at(s, total) for s in range(total)
            ]
    assert [moment_in(share / 10, Length(total)) for share in range(11)] == [share / 10 * total for share in range(11)]


@pytest.mark.parametrize("changes", RESUMPTIONS, ids=str)
def test_moments_and_positions_are_each_others_inverse(changes):
    length = resumed(*changes)
    for step in range(length):
        assert length.moment(length.position(step)) == pytest.approx(min(step, length.moment(1.0)))
    assert (length.position(0), length.position(length)) == (0.0, 1.0)


def test_the_same_length_or_one_that_was_not_known_leaves_no_past():
    assert Length(40).resumed(10, 40).before == ()
    assert Length(-1).resumed(10, 40).before == ()
    assert Length(40).resumed(0, 80).before == ()


def test_a_copy_has_the_same_past():
    length = resumed((10, 80), (20, 120))
    for other in (copy.deepcopy(length), pickle.loads(pickle.dumps(length))):
        assert (other, other.before) == (length, length.before) == (120, ((10, 40), (20, 80)))
