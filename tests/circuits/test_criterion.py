"""Metrics against their definitions, bounds, and the interval of a share."""

from __future__ import annotations

import math
from itertools import product

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sparselit.circuits import Bound
from sparselit.circuits.criterion import holds, hopeless, margin, measure
from sparselit.errors import SparselitError
from sparselit.statistics.intervals import wilson

from .models import VOCABULARY, some_examples


def test_metrics_equal_their_definitions() -> None:
    examples = some_examples(50)
    logits = torch.randn(50, VOCABULARY, generator=torch.Generator().manual_seed(1))
    task, pair, right = [], [], 0
    for row, answer, wrong in zip(logits.tolist(), examples.answer.tolist(), examples.wrong.tolist(), strict=True):
        task.append(math.log(sum(map(math.exp, row))) - row[answer])
        pair.append(math.log(1 + math.exp(row[wrong] - row[answer])))
        right += max(range(VOCABULARY), key=row.__getitem__) == answer
    values = measure(logits, examples)
    assert values.pop("calibrated_loss") <= values["answer_loss"]
    assert values == pytest.approx(
        {"task_loss": sum(task) / 50, "answer_loss": sum(pair) / 50, "accuracy": right / 50}, rel=1e-5
    )


@pytest.mark.parametrize(("scale", "shift"), [(1.0, 0.0), (20.0, 3.0), (0.05, -1.0), (-1.0, 0.5)])
def test_calibration_finds_the_best_scale_and_shift_of_the_difference(scale: float, shift: float) -> None:
    """Against a grid; a distorted difference costs nothing."""
    examples, g = some_examples(200), torch.Generator().manual_seed(3)
    sign = (examples.answer > examples.wrong) * 2.0 - 1
    difference = 0.7 * sign + torch.randn(200, generator=g)  # of the larger token's logit and the smaller one's
    grid = min(
        float(torch.nn.functional.softplus(-sign * (a / 20 * difference + b / 20)).mean())
        for a in range(80 if scale > 0 else 1)  # what says the opposite is worth nothing
        for b in range(-70, 71)
    )
    gap = (difference - shift) / scale * sign
    logits = torch.zeros(200, VOCABULARY).scatter(1, examples.answer[:, None], gap[:, None])
    found = measure(logits, examples)["calibrated_loss"]
    assert grid - 2e-3 <= found <= grid + 1e-3


def test_what_tells_the_answers_apart_perfectly_is_calibrated_to_almost_no_loss() -> None:
    examples = some_examples(50)
    logits = torch.zeros(50, VOCABULARY).scatter(1, examples.answer[:, None], 0.01)
    values = measure(logits, examples)
    assert values["answer_loss"] == pytest.approx(math.log(2), abs=0.01)
    assert values["calibrated_loss"] < 0.02


@pytest.mark.parametrize(
    ("bound", "allowed", "refused"),
    [
        (Bound("task_loss", at_most=0.15), [0.0, 0.1, 0.15], [0.1500001, 9.0, math.inf, math.nan]),
        (Bound("accuracy", at_least=0.99), [0.99, 1.0], [0.9899, 0.0, math.nan]),
        (Bound("accuracy", at_least=0.0), [0.0, 1.0], [math.nan]),
    ],
)
def test_a_bound_holds_on_its_own_value_and_never_for_nan(
    bound: Bound, allowed: list[float], refused: list[float]
) -> None:
    assert all(bound.holds(value) for value in allowed)
    assert not any(bound.holds(value) for value in refused)


def test_all_bounds_must_hold_and_the_margin_is_the_smallest() -> None:
    criterion = [Bound("task_loss", at_most=0.5), Bound("accuracy", at_least=0.9)]
    good, bad = {"task_loss": 0.2, "accuracy": 0.95}, {"task_loss": 0.2, "accuracy": 0.85}
    assert (holds(criterion, good), margin(criterion, good)) == (True, pytest.approx(0.05))
    assert (holds(criterion, bad), margin(criterion, bad)) == (False, pytest.approx(-0.05))


@given(st.floats(0.0, 0.99), st.floats(0.01, 1.0))
def test_a_tightened_bound_lies_between_the_bound_and_perfection(share: float, value: float) -> None:
    loss = Bound("task_loss", at_most=value).tightened(share)
    accuracy = Bound("accuracy", at_least=value).tightened(share)
    assert loss.at_most == pytest.approx(value * (1 - share))
    assert accuracy.at_least is not None
    assert value <= accuracy.at_least <= 1
    assert 1 - accuracy.at_least == pytest.approx((1 - value) * (1 - share))


OUTCOMES = list(product([0.0, 0.25, 1.0], repeat=5))


@pytest.mark.parametrize("metric", ["task_loss", "answer_loss", "accuracy"])
@pytest.mark.parametrize("bound", [0.0, 0.2, 0.5, 0.9, 1.0])
@pytest.mark.parametrize("side", ["at_most", "at_least"])
def test_only_what_the_examples_to_come_cannot_mend_is_hopeless(metric: str, bound: float, side: str) -> None:
    criterion, n = Bound(metric, **{side: bound}), 5
    for seen in range(1, n + 1):
        for prefix in {outcome[:seen] for outcome in OUTCOMES}:
            ends = [sum(outcome) / n for outcome in OUTCOMES if outcome[:seen] == prefix]
            given_up = hopeless(criterion, sum(prefix), seen, n)
            assert not (given_up and any(map(criterion.holds, ends)))
            # A loss may yet become as large as one likes, an accuracy never passes 1 and never needs at_most.
            if seen == n and not criterion.holds(ends[0]) and (metric == "accuracy") == (side == "at_least"):
                assert given_up


def test_work_is_given_up_as_soon_as_it_can_be() -> None:
    assert hopeless(Bound("accuracy", at_least=0.9), total=8, seen=10, n=19)
    assert not hopeless(Bound("accuracy", at_least=0.9), total=9, seen=10, n=20)
    assert hopeless(Bound("task_loss", at_most=0.1), total=2.1, seen=1, n=20)
    assert not hopeless(Bound("task_loss", at_most=0.1), total=1.9, seen=1, n=20)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"metric": "loss", "at_most": 0.1},
            "'loss' is unknown; choose from task_loss, answer_loss, calibrated_loss, accuracy",
        ),
        ({"metric": "accuracy"}, "the criterion on accuracy needs either at_most or at_least"),
        ({"metric": "accuracy", "at_most": 1.0, "at_least": 0.5}, "needs either at_most or at_least"),
    ],
)
def test_an_unusable_bound_is_refused(arguments: dict[str, object], message: str) -> None:
    with pytest.raises(SparselitError, match=message):
        Bound(**arguments)


def test_a_bound_reads_as_it_is_meant() -> None:
    assert str(Bound("task_loss", at_most=0.15)) == "task_loss ≤ 0.15"
    assert str(Bound("accuracy", at_least=0.0)) == "accuracy ≥ 0"


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    # Newcombe 1998, table I, method 3
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (1, 29, 0.0061, 0.1718)],
)
def test_the_interval_equals_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)


@given(st.integers(1, 1000), st.floats(0, 1))
def test_the_interval_lies_in_the_unit_interval_holds_the_share_and_mirrors(n: int, share: float) -> None:
    successes = round(share * n)
    low, high = wilson(successes, n)
    assert 0 <= low <= successes / n + 1e-12
    assert successes / n - 1e-12 <= high <= 1
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=1e-9)


def test_without_trials_nothing_is_known() -> None:
    assert wilson(0, 0) == (0.0, 1.0)
