"""Every number that a constructor takes is checked there: null, NaN, infinite, negative and absurd ones are refused."""

from __future__ import annotations

import inspect
import types
import typing
from collections.abc import Iterator
from typing import Any, Union

import pytest
import sparselit.callbacks
import sparselit.tasks
from jsonargparse._parameter_resolvers import get_signature_parameters

from sparselit.circuits import search
from sparselit.circuits.criterion import Bound, check_criterion
from sparselit.data.task import Task
from sparselit.errors import SparselitError
from sparselit.modules import SparseTransformer
from sparselit.sparsity.budget import Rule
from sparselit.sparsity.schedule import Schedule
from sparselit.training.discovery import Begin
from sparselit.training.run_checkpoint import RunCheckpoint

#: What a constructor needs beside the argument that is tried.
NEEDED: dict[str, dict[str, Any]] = {
    "density": {"density": 0.1},
    "to": {"to": 0.1},
    "match": {"match": "*"},
    "path": {"path": "nowhere"},
}
CLASSES: list[type] = [
    *(getattr(sparselit.tasks, name) for name in sparselit.tasks.__all__),
    *(getattr(sparselit.callbacks, name) for name in sparselit.callbacks.__all__),
    *(found for name in search.__all__ if isinstance(found := getattr(search, name), type)),
    *(SparseTransformer, Begin, Rule, Schedule, RunCheckpoint),
]
#: Values that no number of ours may have.
BAD: dict[str, Any] = {"NaN": float("nan"), "infinity": float("inf"), "negative": -1, "absurd": 2**70, "text": "many"}


def parameters(cls: type) -> list[Any]:
    """All that a class takes from YAML, what it hands on through ``**kwargs`` included."""
    return list(get_signature_parameters(cls, None))


def parts(hint: Any) -> list[Any]:
    return list(typing.get_args(hint)) if typing.get_origin(hint) in (Union, types.UnionType) else [hint]


def cases() -> Iterator[tuple[type, str, Any]]:
    for cls in CLASSES:
        if inspect.isabstract(cls) or not isinstance(cls, type):
            continue
        for parameter in parameters(cls):
            name, kinds = parameter.name, parts(parameter.annotation)
            if not {int, float} & set(kinds):
                continue
            bad = dict(BAD) if type(None) in kinds else {"null": None, **BAD}
            for what, value in bad.items():
                yield pytest.param(cls, name, value, id=f"{cls.__name__}.{name} {what}")  # type: ignore[misc]


@pytest.mark.parametrize(("cls", "name", "value"), list(cases()))
def test_a_number_that_makes_no_sense_is_refused_by_name(cls: type, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {"vocab_size": 3, "max_length": 5} if cls is SparseTransformer else {}
    taken = {other.name for other in parameters(cls) if other.default is inspect.Parameter.empty}
    for needed in taken - arguments.keys():
        arguments.update(NEEDED.get(needed, {}))
    if cls.__name__ == "Mixture":
        arguments["tasks"] = [sparselit.tasks.Parity(), sparselit.tasks.Minimum()]
    with pytest.raises(SparselitError, match=name.replace("_", "[_ ]")) as caught:
        cls(**{**arguments, name: value})
    assert len(str(caught.value).splitlines()) == 1
    assert len(str(caught.value)) < 200


def test_every_class_that_takes_numbers_is_tried() -> None:
    names = {case.values[0].__name__ for case in cases()}  # type: ignore[attr-defined]
    assert {"Quotes", "AnnealedSparsity", "Auto", "SparseTransformer", "Begin", "CircuitDiscovery"} <= names
    assert issubclass(sparselit.tasks.Quotes, Task)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), True, "many"])
@pytest.mark.parametrize("key", ["at_most", "at_least"])
def test_a_bound_is_a_finite_number(key: str, value: Any) -> None:
    with pytest.raises(SparselitError, match=f"criterion task_loss.{key} must be a (finite )?number, got"):
        Bound("task_loss", **{key: value})


@pytest.mark.parametrize(
    "criterion",
    [
        [],
        [Bound("task_loss", at_most=-0.1)],
        [Bound("task_loss", at_most=2**70)],
        [Bound("kl", at_least=0)],
        [Bound("accuracy", at_least=0.9), Bound("accuracy", at_least=0)],
        [Bound("accuracy", at_most=1)],
        [Bound("accuracy", at_least=1.1)],
        [Bound("accuracy", at_least=99)],
        [Bound("accuracy", at_least=0.9), Bound("accuracy", at_most=0.8)],
        [Bound("kl", at_most=0.1), Bound("task_loss", at_most=1), Bound("kl", at_least=0.2)],
    ],
    ids=str,
)
def test_a_criterion_that_everything_or_nothing_meets_is_refused(criterion: list[Bound]) -> None:
    for check in (check_criterion, lambda bounds: sparselit.callbacks.CircuitDiscovery(criterion=bounds)):
        with pytest.raises(SparselitError, match=r"circuits\.criterion") as caught:
            check(criterion)
        assert len(str(caught.value).splitlines()) == 1
