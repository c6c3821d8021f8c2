"""Nulls that need a search: how many edges the same search needs where there is nothing to find.

The size of a circuit says something only beside the size that the same search, ablation and loss give for a target that
the model was never trained for, and for a model that was never trained (Drori 2026). A bound on the divergence from the
full model is a bound of the nulls too: what they must agree with is the full model *relabelled*, the same distribution
with the logits of the task's and of the null's answer exchanged, so that it can be met in principle and is as tight.
Each null's edges are written down, so that ``verify`` can show that the claimed size meets the bounds without repeating
a search.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from sparselit.circuits.claims import KeptPlace, SearchedNull
from sparselit.circuits.criterion import Criterion, holds, is_relative, margin
from sparselit.circuits.evidence.null_targets import applicable, null_bounds, relabelled, subject_of
from sparselit.circuits.evidence.scores import rounded
from sparselit.circuits.search import Found, Progress, Search
from sparselit.circuits.search.learned import furthest
from sparselit.circuits.search.node_masks import heaviside
from sparselit.circuits.search.problem import Problem

#: Longest that the search of one null may take; a later end makes its size an upper bound, not ``complete``.
SECONDS = 300.0
#: Descents to a set of edges that works where the whole model does not: learning rate and steps.
DESCENTS = ((0.1, 100), (0.3, 300))
#: Steps between two tries.
TRY_EVERY = 20


def null_problem(name: str, problem: Problem, bounds: Criterion) -> Problem:
    """The problem of a null; a bound on a divergence compares with :func:`relabelled`.

    Args:
        name: one of :data:`NAMES`.
        problem: the circuit's: the trained model, the ablation, the task's discovery split and the granularity.
        bounds: what the null has to meet, losses and divergences.

    Raises:
        SparselitError: as :func:`subject_of`.
    """
    model, task = problem.model, problem.discovery
    subject, other = subject_of(name, model, task)
    engine = problem.engine.naive if subject is model else problem.engine.naive.in_model(subject)
    reference = relabelled(model, task, other) if is_relative(bounds) else None
    return Problem(engine, other, bounds, problem.granularity, reference)


def searched_nulls(
    problem: Problem,
    kept: Tensor,
    search: Search,
    progress: Progress | None = None,
    seconds: float = SECONDS,
) -> dict[str, SearchedNull]:
    """How many edges the same search needs for each null until loss and divergence hold, on the discovery split.

    Args:
        problem: the circuit's problem.
        kept: the circuit, boolean (edge,).
        search: the search that found it.
        progress: called as (stage, edges left).
        seconds: longest that each may take.

    Returns:
        By null what was found. A null that does not apply is left out.
    """
    bounds = null_bounds(problem.criterion, problem.values(kept)["task_loss"])
    found = {}
    for name in applicable(problem.model, problem.discovery):
        null = null_problem(name, problem, bounds)
        found[name] = _searched(null, search, progress, time.monotonic() + seconds)
    return found


def _searched(problem: Problem, search: Search, progress: Progress | None, deadline: float) -> SearchedNull:
    start, values = working_set(problem, deadline)
    if start is None:
        return _row(problem, None, values)
    result = search.run(problem, start, progress, deadline)
    return _row(problem, result, problem.values(result.kept))


def _row(problem: Problem, found: Found | None, values: Mapping[str, float]) -> SearchedNull:
    kept = None if found is None else found.kept
    weights = None if kept is None else problem.edges.weights(kept)
    places = [] if kept is None else [KeptPlace(*place) for place in problem.edges.places(kept)]
    return SearchedNull(
        bounds=tuple(problem.criterion),
        edges=weights,
        complete=found is not None and found.complete,
        reached=rounded({bound.metric: values[bound.metric] for bound in problem.criterion}),
        split="discovery",
        n=len(problem.discovery.answer),
        places=tuple(places),
    )


def working_set(problem: Problem, deadline: float | None = None) -> tuple[Tensor | None, dict[str, float]]:
    """A set of edges that meets the criterion, also where all edges together do not.

    First all edges, then a supermask (Zhou et al. 2019): one gate for each edge, open or closed in the forward pass,
    and trained through the derivative of a sigmoid to lower the loss alone (of several bounded metrics the one that
    stands worst beside its bound); slowly, then fast. Its seed is fixed.

    Args:
        problem: what is sought; at least one loss or divergence is bounded.
        deadline: reading of the monotonic clock, seconds, at which to give up.

    Returns:
        The edges, boolean (edge,), or None where none were found; and the metrics of the best set that was tried.
    """
    everything = problem.all_edges()
    best = problem.values(everything)
    if holds(problem.criterion, best):
        return everything, best
    for rate, steps in DESCENTS:
        for opened in _supermask(problem, rate, steps):
            values = problem.values(opened)
            if holds(problem.criterion, values):
                return opened, values
            best = max(best, values, key=lambda each: margin(problem.criterion, each))
            if deadline is not None and time.monotonic() > deadline:
                return None, best
    return None, best


def _supermask(problem: Problem, rate: float, steps: int) -> Iterator[Tensor]:
    """The open edges, boolean (edge,), every few steps of a descent on the loss."""
    examples, n = problem.discovery, len(problem.discovery.answer)
    bounds = [bound for bound in problem.criterion if bound.at_most is not None]
    generator = torch.Generator().manual_seed(0)
    gates = torch.ones(len(problem.edges), requires_grad=True)
    optimizer = torch.optim.SGD([gates], lr=rate, momentum=0.9)
    for step in range(1, steps + 1):
        chosen = torch.randint(n, (min(128, n),), generator=generator).to(examples.answer.device)
        some, reference = examples.select(chosen), None if problem.reference is None else problem.reference[chosen]
        with torch.enable_grad():
            loss = furthest(bounds, problem.soft_logits(heaviside(gates), some), some, reference)
            (gradient,) = torch.autograd.grad(loss, gates)
        # All equally fast, as with Adam, both ends of a path close at once, and neither can open the other again.
        gates.grad = gradient / gradient.abs().max().clamp(min=1e-9)
        problem.cost.forwards += 1
        problem.cost.backwards += 1
        optimizer.step()
        if step % TRY_EVERY == 0:
            yield gates.detach() > 0
