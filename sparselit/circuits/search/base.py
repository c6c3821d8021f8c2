"""What every search shares: the base class, and the certificate in which every search ends."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

from torch import Tensor

from sparselit.circuits.criterion import holds, margin
from sparselit.circuits.problem import Problem

#: Called as (stage, edges left).
Report = Callable[[str, int], None]


class _OutOfTime(Exception):
    """The deadline has passed."""


@dataclass
class Found:
    """The outcome of a search.

    Attributes:
        kept: boolean (edge,), the circuit's edges.
        removals: by edge, the metrics when it alone is removed from the circuit.
        complete: whether every edge was tried against the final circuit and is necessary.
    """

    kept: Tensor
    removals: dict[int, dict[str, float]] = field(default_factory=dict)
    complete: bool = False


class Search(ABC):
    """A way to find a circuit. Subclasses say how candidates are chosen; the certificate is common to all."""

    def run(
        self,
        problem: Problem,
        start: Tensor | None = None,
        report: Report | None = None,
        deadline: float | None = None,
    ) -> Found:
        """Search ``problem`` for a circuit from which no single edge can be removed.

        Args:
            problem: what is sought; its criterion must hold on ``start``.
            start: edges to begin with, boolean (edge,); default all.
            report: called as (stage, edges left) while the search runs.
            deadline: reading of the monotonic clock, seconds, at which to stop.

        Returns:
            The circuit with its certificate. After Ctrl-C or the deadline, the best set so far, not ``complete``.
        """
        found = Found(problem.all_edges() if start is None else start.clone())

        def tell(stage: str, edges: int) -> None:
            if report is not None:
                report(stage, edges)
            if deadline is not None and time.monotonic() > deadline:
                raise _OutOfTime

        try:
            self.shrink(problem, found, tell)
            certify(problem, found, tell)
        except (KeyboardInterrupt, _OutOfTime):
            found.complete = False
        return found

    @abstractmethod
    def shrink(self, problem: Problem, found: Found, report: Report) -> None:
        """Remove edges from ``found.kept`` in place, never leaving a set that fails the criterion."""


def certify(problem: Problem, found: Found, report: Report) -> None:
    """Try to remove each edge of ``found.kept`` alone, over and over, until every single one is necessary.

    A criterion is not monotone in general: an edge that was necessary may become superfluous once another is gone. So
    the list is walked in a circle until as many edges in a row as the circuit has are necessary.
    """
    problem.focus(found.kept)
    queue = deque(found.kept.nonzero()[:, 0].tolist())
    found.removals.clear()
    while len(found.removals) < len(queue):
        edge = queue.popleft()
        trial = found.kept.clone()
        trial[edge] = False
        values = problem.values(trial)
        if holds(problem.criterion, values):
            found.removals.clear()  # first, so that Ctrl-C never leaves removals from a larger set
            found.kept = trial
            problem.focus(found.kept)
        else:
            found.removals[edge] = values
            queue.append(edge)
        report("certificate", len(queue))
    found.complete = True


def smallest_failure(problem: Problem, found: Found) -> float:
    """By how much the criterion fails, at the least, when any one edge is removed (positive)."""
    return min((-margin(problem.criterion, values) for values in found.removals.values()), default=0.0)
