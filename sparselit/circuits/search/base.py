"""What every search shares: the base class, and the certificate in which every search ends."""

from __future__ import annotations

import resource
import sys
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import islice

import torch
from torch import Tensor

from sparselit.circuits.criterion import Evaluation, margin
from sparselit.circuits.search.problem import Problem

#: Called as (stage, edges left).
Progress = Callable[[str, int], None]


class _OutOfTime(Exception):
    """The deadline has passed."""


@dataclass
class Found:
    """The outcome of a search.

    Attributes:
        kept: boolean (edge,), the circuit's edges.
        removals: by unit (an edge, or what the problem's granularity removes as one), the metrics when it alone is
            removed from the circuit.
        complete: whether every unit was tried against the final circuit and is necessary.
        tried: of a search that compares several circuits, the edges and biases of each, by what found it.
    """

    kept: Tensor
    removals: dict[str, dict[str, float]] = field(default_factory=dict)
    complete: bool = False
    tried: dict[str, int] = field(default_factory=dict)


class Search(ABC):
    """A way to find a circuit. Subclasses say how candidates are chosen; the certificate is common to all."""

    def run(
        self,
        problem: Problem,
        start: Tensor | None = None,
        progress: Progress | None = None,
        deadline: float | None = None,
    ) -> Found:
        """Search ``problem`` for a circuit from which no single unit can be removed.

        Args:
            problem: what is sought; its criterion must hold on ``start``.
            start: edges to begin with, boolean (edge,); default all.
            progress: called as (stage, edges left) while the search runs.
            deadline: reading of the monotonic clock, seconds, at which to stop.

        Returns:
            The circuit with its certificate. After Ctrl-C or the deadline, the best set so far, not ``complete``.
        """
        began = time.monotonic()
        found = Found(problem.all_edges() if start is None else start.clone())

        def announce(stage: str, edges: int) -> None:
            if progress is not None:
                progress(stage, edges)
            if deadline is not None and time.monotonic() > deadline:
                raise _OutOfTime

        try:
            found.kept = problem.useful(found.kept)  # what goes here changes no logit, so that nothing is evaluated
            problem.focus(found.kept)
            self.shrink(problem, found, announce)
            if not found.complete:
                certify(problem, found, announce)
        except (KeyboardInterrupt, _OutOfTime):
            pass  # the set so far; complete only where it was certified before
        problem.cost.seconds += time.monotonic() - began
        problem.cost.peak_memory = _peak_memory(problem)
        return found

    @abstractmethod
    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        """Remove edges from ``found.kept`` in place, never leaving a set that fails the criterion.

        Args:
            problem: what is sought; :meth:`Problem.works` is the test of a set of edges.
            found: its ``kept`` meets the criterion, and must do so whenever this method ends, by an exception too.
            progress: to be called as (stage, edges left) after each try; it ends the search by raising.
        """


def attempt(problem: Problem, found: Found, trial: Tensor) -> bool:
    """Take ``trial`` for the circuit if the task works with it, without what it leaves useless; one evaluation.

    Args:
        problem: what is sought.
        found: its ``kept`` is replaced on success.
        trial: boolean (edge,), a subset of ``found.kept``.
    """
    trial = problem.useful(trial)
    if torch.equal(trial, found.kept):
        return True
    if not problem.works(trial):
        return False
    found.kept = trial
    problem.focus(trial)
    return True


def without(kept: Tensor, edges: Tensor) -> Tensor:
    """``kept`` (edge,) without the edges of these numbers.

    Args:
        kept: boolean (edge,).
        edges: indices of edges (index,).
    """
    rest = kept.clone()
    rest[edges] = False
    return rest


def certify(problem: Problem, found: Found, progress: Progress) -> None:
    """Try to remove each unit of ``found.kept`` alone, over and over, until every single one is necessary.

    A criterion is not monotone in general: an edge that was necessary may become superfluous once another is gone. So
    the list is walked in a circle until as many units in a row as the circuit has are necessary. Where two units in
    a row go, the next ones are tried together, twice as many each time. An evaluation that was given up early is
    finished at the end, so that the certificate says what each removal does to every example.

    Args:
        problem: what is sought.
        found: ``kept``, ``removals`` and ``complete`` are changed.
        progress: called as (``certificate``, units left).
    """
    problem.focus(found.kept)
    found.removals.clear()
    units = problem.removal_units(found.kept)
    queue = deque(units)
    necessary: dict[str, Evaluation] = {}  # of the present circuit
    size, streak = 1, 0
    while len(necessary) < len(queue):
        group = list(islice(queue, min(size, len(queue) - len(necessary))))
        trial = without(found.kept, torch.cat([units[name] for name in group]))
        evaluation = problem.evaluation(trial)
        if evaluation.holds():
            found.kept = trial
            necessary.clear()
            problem.focus(found.kept)
            units = problem.removal_units(found.kept)
            queue = deque(unit for unit in queue if unit in units)
            streak += 1
            size *= 2 if streak > 1 else 1
        elif len(group) > 1:
            size, streak = 1, 0
        else:
            streak = 0
            necessary[group[0]] = evaluation
            queue.rotate(-1)
        progress("certificate", len(queue))
    for name in units:
        found.removals[name] = necessary[name].values()
        progress("certificate", len(queue))
    found.complete = True


def smallest_failure(problem: Problem, found: Found) -> float:
    """By how much the criterion fails, at the least, when any one unit is removed (positive).

    Args:
        problem: its criterion is the one that fails.
        found: a certified circuit.

    Returns:
        The smallest of the negative margins; 0 where nothing was removed.
    """
    return min((-margin(problem.criterion, values) for values in found.removals.values()), default=0.0)


def _peak_memory(problem: Problem) -> float:
    device = next(problem.model.parameters()).device
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit
