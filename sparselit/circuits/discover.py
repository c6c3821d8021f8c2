"""From a model and a behaviour to a circuit with its evidence."""

from __future__ import annotations

import inspect
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from sparselit.circuits.circuit import (
    Circuit,
    KeptBias,
    KeptEdge,
    Measured,
    ModelRecord,
    SearchRecord,
    TaskRecord,
    model_hash,
)
from sparselit.circuits.claims import Certificate, Removal, extended
from sparselit.circuits.criterion import ROBUST, Criterion, check_criterion, holds, is_relative, measure
from sparselit.circuits.evidence.adversary import adversary
from sparselit.circuits.evidence.collect import collect
from sparselit.circuits.evidence.null_searches import searched_nulls
from sparselit.circuits.evidence.scores import rounded
from sparselit.circuits.run.ablation import Ablation
from sparselit.circuits.run.fast import FastEngine
from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.search import Auto, Found, GroupTesting, Progress, Search
from sparselit.circuits.search.base import smallest_failure
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import integrated_gradients
from sparselit.circuits.size import nodes_of
from sparselit.data.behaviour import Behaviour
from sparselit.errors import SparselitError, check_choice, check_range
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place
from sparselit.runs.machine import MadeOn

#: How much evidence there is to be.
Depth = Literal["quick", "full"]
#: How much the search tightens the bounds, tried in turn until the circuit also holds on the selection split.
TIGHTER = (0.0, 0.3, 0.6, 0.8)


#: With what the stage begins while the evidence is collected, as in ``evidence: random orders``.
EVIDENCE = "evidence: "


class NoCircuitError(SparselitError):
    """No circuit meets the criterion; the message says why."""


def discover(
    model: Transformer,
    behaviour: Behaviour,
    criterion: Criterion = ROBUST,
    ablation: str | Mapping[str, Any] | Ablation = "mean",
    search: Search | None = None,
    margin: float = 0.1,
    progress: Progress | None = None,
    max_seconds: float | None = None,
    granularity: Granularity = "weight",
    start: Sequence[Place] = (),
    evidence: Depth = "quick",
) -> Circuit:
    """Find, confirm and document a circuit.

    The search removes edges on the discovery split under bounds tightened by ``margin``, because a minimal circuit sits
    on its bound. The circuit must then meet the stated bounds on the selection split, otherwise the search is repeated
    under tighter ones. The evidence comes from the report split.

    Args:
        model: the full model; it is not changed.
        behaviour: the splits.
        criterion: the stated bounds; default :data:`ROBUST`.
        ablation: what a removed edge contributes: a kind's name, its arguments, or an :class:`Ablation`.
        search: how to search; default :class:`Auto`.
        margin: how far the search's bounds are moved towards perfection, in [0, 1).
        progress: called as (stage, edges left) while the search runs, and the evidence after it, see :data:`EVIDENCE`.
        max_seconds: longest the searches may take together; None for no limit.
        granularity: what is removed and certified as one.
        start: an earlier circuit's edges and biases; the search begins with them and what must be added.
        evidence: ``quick``: all that needs no search; ``full``: also how many edges the same search needs for a
            constant, a nonsense and a swapped target and for an untrained model (up to five minutes each), and the
            worst of the other edges put back.

    Returns:
        The circuit. When time ran out, or after Ctrl-C, it is one that holds on the discovery split, its certificate is
        not ``complete``, and nothing else is promised. Where no certified circuit of the discovery split holds on the
        selection split, it is a larger one that holds on both, again without certificate.

    Raises:
        NoCircuitError: the full model does not meet the criterion.
    """
    check_range("circuits.margin", margin, 0, 1, below=True)
    check_choice("circuits.evidence", evidence, get_args(Depth))
    check_criterion(criterion)
    search = search or Auto()
    deadline = None if max_seconds is None else time.monotonic() + max_seconds
    engine = FastEngine.of(model, ablation, behaviour.splits)
    seed: Tensor | None = None  # edges to begin with, where there are some; some may have died since
    if start:
        seed = torch.isin(torch.arange(len(engine.edges)), engine.edges.numbers(start))
    for tighter in TIGHTER:
        bounds = [bound.tightened(1 - (1 - margin) * (1 - tighter)) for bound in criterion]
        problem = Problem(engine, behaviour.splits["discovery"], bounds, granularity)
        _require(bounds, problem.values(problem.all_edges()), "discovery")
        if tighter == TIGHTER[0]:  # where the model fails, no search is worth its time
            _require(criterion, _on_selection(problem, problem.all_edges(), criterion, behaviour), "selection")
        grown = None if seed is None else regrown(problem, seed)
        found = search.run(problem, grown, progress, deadline)
        if not found.complete or holds(criterion, _on_selection(problem, found.kept, criterion, behaviour)):
            return _document(problem, found, behaviour, criterion, search, evidence, progress)
        seed = found.kept
    found = _on_both_splits(problem, found.kept, criterion, behaviour, progress)
    return _document(problem, found, behaviour, criterion, search, "quick", progress)


class _Both(Problem):
    """A problem that a set of edges solves where it solves two."""

    def __init__(self, first: Problem, second: Problem) -> None:
        vars(self).update(vars(first))
        self.second = second
        second.cost = first.cost

    def works(self, kept: Tensor) -> bool:
        """Whether both criteria hold."""
        return super().works(kept) and self.second.works(kept)

    def focus(self, kept: Tensor) -> None:
        """Announce it to both."""
        super().focus(kept)
        self.second.focus(kept)


def _on_both_splits(
    problem: Problem, kept: Tensor, criterion: Criterion, behaviour: Behaviour, progress: Progress | None
) -> Found:
    """The last resort where each circuit of the discovery split misses the criterion on the selection split.

    As few of the most important edges are added as the stated bounds need on both splits, and groups of edges that
    neither needs are removed. There is no certificate: on one split alone some edges may not be needed.
    """
    stated = problem.on(problem.discovery, criterion)
    stated.cost = problem.cost
    both = _Both(stated, stated.on(behaviour.splits["selection"], criterion))
    found = Found(regrown(both, kept))
    both.focus(found.kept)
    with suppress(KeyboardInterrupt):
        GroupTesting().shrink(both, found, progress or (lambda stage, left: None))
    problem.engine = stated.engine
    return found


def _require(bounds: Criterion, values: Mapping[str, float], split: str) -> None:
    """Refuse a full model that does not meet the bounds."""
    failing = next((bound for bound in bounds if not bound.holds(values[bound.metric])), None)
    if failing is not None:
        raise NoCircuitError(
            f"the full model does not meet the criterion on the {split} split: {failing.metric} is "
            f"{values[failing.metric]:.4g}, the search needs {failing}"
        )


def _on_selection(problem: Problem, kept: Tensor, criterion: Criterion, behaviour: Behaviour) -> dict[str, float]:
    """The metrics on the selection split, which the search has not seen."""
    selection = behaviour.splits["selection"]
    reference = problem.logits(problem.all_edges(), selection) if is_relative(criterion) else None
    return measure(problem.logits(kept, selection), selection, reference)


def regrown(problem: Problem, kept: Tensor) -> Tensor:
    """``kept`` (edge,) with as many more of the most important edges as the criterion needs, by bisection.

    A search that begins here instead of with all edges has little left to do. All edges together meet the criterion;
    fewer may, which is tried.

    Args:
        problem: its criterion must hold on all edges.
        kept: edges to begin with, boolean (edge,).

    Returns:
        A superset of ``kept``, boolean (edge,).
    """
    importance = integrated_gradients(problem).masked_fill(kept, torch.inf)
    order = torch.argsort(importance, descending=True, stable=True)
    low, high = int(kept.sum()), len(order)

    def prefix(length: int) -> Tensor:
        chosen = torch.zeros_like(kept)
        chosen[order[:length]] = True
        return chosen

    if problem.works(prefix(low)):
        return prefix(low)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if problem.works(prefix(middle)) else (middle, high)
    return prefix(high)


def _document(
    problem: Problem,
    found: Found,
    behaviour: Behaviour,
    criterion: Criterion,
    search: Search,
    evidence: Depth,
    progress: Progress | None,
) -> Circuit:
    """The circuit as data, with certificate and evidence."""
    circuit, kept = problem.keeping(found.kept), found.kept
    model, edges = circuit.model, circuit.edges
    full = evidence == "full" and found.complete
    searched = searched_nulls(problem, kept, search, progress) if full else None
    spent = problem.cost
    evaluations, forwards, backwards = spent.evaluations, spent.forwards, spent.backwards
    size = circuit.size

    def told(part: str) -> None:
        if progress is not None:
            with suppress(KeyboardInterrupt):  # by which a callback ends a search, which is over
                progress(f"{EVIDENCE}{part}", size.edges)

    put_back = adversary(problem, kept, told=told) if full else None
    told("scores")
    report = problem.on(behaviour.splits["report"], criterion)
    report.focus(kept)
    proof = collect(circuit, behaviour, criterion, searched, report.works, told, put_back)
    values = proof.held_out.metrics
    return Circuit(
        model=ModelRecord(hash=model_hash(model.state_dict()), config=model.config),
        task=TaskRecord(
            class_path=behaviour.task.get("class_path", ""),
            init_args=behaviour.task.get("init_args", {}),
            vocabulary=tuple(behaviour.vocabulary),
            strata=tuple(behaviour.strata),
            corpus=behaviour.task.get("corpus"),
        ),
        criterion=tuple(extended(Measured, bound, value=values[bound.metric]) for bound in criterion),
        ablation=problem.ablation,
        nodes=nodes_of(edges, kept),
        edges=tuple(KeptEdge(*place, _weight(model, place)) for place in edges.places(kept & ~edges.is_bias)),
        biases=tuple(KeptBias(*place[:2], _weight(model, place)) for place in edges.places(kept & edges.is_bias)),
        size=size,
        certificate=Certificate(
            split="discovery",
            n=len(problem.discovery.answer),
            criterion=tuple(problem.criterion),
            granularity=problem.granularity,
            complete=found.complete,
            removals=tuple(
                Removal(unit, {b.metric: rounded(values)[b.metric] for b in problem.criterion})
                for unit, values in found.removals.items()  # all of them, where the certificate is complete
            ),
            min_margin=round(smallest_failure(problem, found), 6),
        ),
        evidence=proof,
        search=SearchRecord(
            class_path=f"{type(search).__module__}.{type(search).__qualname__}",
            init_args={name: getattr(search, name) for name in inspect.signature(type(search)).parameters},
            evaluations=evaluations,
            forwards=forwards,
            backwards=backwards,
            tried=found.tried or None,
        ),
        made_on=MadeOn.here(next(model.parameters()).device),
    )


def _weight(model: Transformer, place: Place) -> float:
    name, row, column = place
    parameter = model.get_parameter(name).detach()
    return float(parameter[row] if parameter.ndim == 1 else parameter[row, column])
