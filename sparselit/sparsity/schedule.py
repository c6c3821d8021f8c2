"""How a density changes over a run: from one value to another between two moments, along a shape, or in stages."""

from __future__ import annotations

import importlib
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache

from sparselit.errors import SparselitError, check_moment, check_range, check_whole
from sparselit.sparsity.length import Length, moment_in

#: Progress in [0, 1] made at time u in [0, 1] of the transition. ``exponential`` is linear in the logarithm,
#: and ``step`` is cut into jumps.
SHAPES: dict[str, Callable[[float], float]] = {
    "linear": lambda u: u,
    "cubic": lambda u: 1 - (1 - u) ** 3,  # Zhu & Gupta 2017 (arXiv 1710.01878), equation 1
    "cosine": lambda u: (1 - math.cos(math.pi * u)) / 2,
    "exponential": lambda u: u,
    "step": lambda u: u,
}


@dataclass
class Schedule:
    """A density that goes from ``start`` to ``to`` between the moments ``begin`` and ``end`` of the run.

    Moments are fractions of the run up to 1 (1 is the whole run, written as an integer or not) and whole numbers of
    optimizer steps above 1. Fractions need the length of the run, ``trainer.max_steps``.

    Args:
        to: density at the end, share of non-zero weights in (0, 1].
        begin: moment until which the density is ``start``; a fraction of the run in [0, 1], or steps above 1.
        end: moment from which the density is ``to``; a fraction of the run in [0, 1], or steps above 1.
        start: density at the beginning, in (0, 1].
        shape: ``linear``, ``cubic``, ``cosine``, ``exponential`` (geometric), ``step``, or the path of a function or
            class (called without arguments) that maps the elapsed share of the transition to the progress, both in
            [0, 1].
        jumps: number of equal jumps of the shape ``step``, each after an equal share of the transition and the last one
            at ``end``, at least 1.

    Raises:
        SparselitError: a value is out of range; the message names it.

    Examples:
        >>> schedule = Schedule(to=0.1, begin=0.2, end=0.6)
        >>> [round(schedule.at(step, total_steps=100), 2) for step in (0, 20, 40, 60, 100)]
        [1.0, 1.0, 0.55, 0.1, 0.1]
    """

    to: float
    begin: float = 0.0
    end: float = 1.0
    start: float = 1.0
    shape: str = "linear"
    jumps: int = 4

    def __post_init__(self) -> None:
        check_density("density.to", self.to)
        check_density("density.start", self.start)
        for key in ("begin", "end"):
            value = getattr(self, key)
            check_moment(f"density.{key}", value)
            if value > 1 and value != int(value):
                raise SparselitError(f"density.{key} above 1 is a whole number of steps, got {value}")
        if (self.begin > 1) == (self.end > 1) and self.begin > self.end:
            raise SparselitError(f"density.begin must not lie after density.end, got {self.begin} and {self.end}")
        check_whole("density.jumps", self.jumps, 1)
        _find_shape(self.shape)

    @classmethod
    def constant(cls, density: float) -> Schedule:
        """The schedule of a plain number: this density from the first step on."""
        check_density("density", density)
        return cls(to=density, begin=0.0, end=0.0, start=density)

    @property
    def is_constant(self) -> bool:
        """Whether the density never changes."""
        return self.start == self.to

    @property
    def lowest(self) -> float:
        """The smallest density of the whole run."""
        return min(self.start, self.to)

    @property
    def rises(self) -> bool:
        """Whether the density is larger at some moment than before."""
        return self.to > self.start

    def towards(self, density: float) -> Schedule:
        """The same schedule with another target; a constant stays a constant."""
        return Schedule.constant(density) if self.is_constant else replace(self, to=density)

    @property
    def needs_length(self) -> bool:
        """Whether the schedule can be read only when the length of the run is known."""
        return not self.is_constant and any(0 < moment <= 1 for moment in (self.begin, self.end))

    def check(self, total_steps: int) -> None:
        """Refuse a schedule that does not fit a run.

        Args:
            total_steps: length of the run, optimizer steps; -1 if it is not known.

        Raises:
            SparselitError: a fraction is used and the length is unknown, or ``begin`` lies after ``end``.
        """
        if self.is_constant:
            return
        if self.needs_length and total_steps < 1:
            raise SparselitError(
                "the density's schedule uses fractions of the run, whose length is not known: set trainer.max_steps"
            )
        begin, end = self._moments(total_steps)
        if begin > end:
            raise SparselitError(
                f"density.begin must not lie after density.end, got {self.begin} and {self.end} in {total_steps} steps"
            )

    def at(self, step: int, total_steps: int) -> float:
        """Density after ``step`` optimizer steps.

        Args:
            step: number of applied optimizer steps, 0 before the first one.
            total_steps: length of the run, optimizer steps; -1 if it is not known.

        Returns:
            The density, in (0, 1].

        Raises:
            SparselitError: see :meth:`check`.
        """
        self.check(total_steps)
        if self.is_constant:
            return self.to
        begin, end = self._moments(total_steps)
        if step >= end:
            return self.to
        if step <= begin:
            return self.start
        progress = _find_shape(self.shape)(self._elapsed(step, begin, end, total_steps))
        if self.shape == "step":
            progress = math.floor(progress * self.jumps) / self.jumps
        if not 0 <= progress <= 1:
            raise SparselitError(f"density.shape {self.shape} must give a progress in [0, 1], got {progress}")
        if self.shape == "exponential":
            density = self.start * (self.to / self.start) ** progress
        else:
            density = self.start + (self.to - self.start) * progress
        return min(max(density, self.lowest), max(self.start, self.to))  # rounding must not leave the range

    def _elapsed(self, step: int, begin: float, end: float, total_steps: int) -> float:
        """Elapsed share of the transition; of a run whose length has changed, what is left of it is spread anew."""
        if self.needs_length and isinstance(total_steps, Length) and total_steps.before:
            begin, end, now = (total_steps.position(moment) for moment in (begin, end, step))
            return min(1.0, (now - begin) / (end - begin)) if end > begin else 1.0
        return (step - begin) / (end - begin)

    def _moments(self, total_steps: int) -> tuple[float, float]:
        """``begin`` and ``end`` in optimizer steps."""
        return steps(self.begin, total_steps), steps(self.end, total_steps)


@dataclass
class Piecewise(Schedule):
    """Schedules one after the other; in YAML, a list of them in place of the one.

    Each stage starts at the density at which the one before it ended; before a stage begins, the density stays there.

    Args:
        stages: at least one schedule, in the order of time; ``start`` has a meaning in the first one only.
    """

    to: float = 1.0
    stages: list[Schedule] = field(default_factory=list)

    @classmethod
    def of(cls, stages: Sequence[Schedule]) -> Piecewise:
        """The schedule made of these stages.

        Args:
            stages: in the order of time.

        Raises:
            SparselitError: there is none, or a later one says where it starts.
        """
        if not stages:
            raise SparselitError("density: a list of stages needs at least one {to: ...}")
        chained = [stages[0]]
        for number, stage in enumerate(stages[1:], start=2):
            before = chained[-1].to
            if stage.start not in (1.0, before):
                raise SparselitError(
                    f"density: stage {number} starts at {before}, where the one before it ends; its start must not be "
                    f"given, got {stage.start}"
                )
            chained.append(replace(stage, start=before))
        return cls(to=chained[-1].to, start=chained[0].start, stages=chained)

    @property
    def is_constant(self) -> bool:
        """Whether the density never changes."""
        return all(stage.is_constant for stage in self.stages)

    @property
    def lowest(self) -> float:
        """The smallest density of the whole run."""
        return min(stage.lowest for stage in self.stages)

    @property
    def rises(self) -> bool:
        """Whether the density is larger at some moment than before."""
        return any(stage.rises for stage in self.stages)

    def towards(self, density: float) -> Schedule:
        """Every stage's density scaled so that the last one ends at ``density``, at most 1."""
        scaled = [replace(stage, start=1.0, to=min(1.0, stage.to * density / self.to)) for stage in self.stages]
        scaled[0] = replace(scaled[0], start=self.stages[0].start)
        return Schedule.constant(density) if self.is_constant else Piecewise.of(scaled)

    @property
    def needs_length(self) -> bool:
        """Whether the schedule can be read only when the length of the run is known."""
        return any(stage.needs_length for stage in self.stages)

    def check(self, total_steps: int) -> None:
        """Refuse stages that do not fit a run, or overlap.

        Args:
            total_steps: length of the run, optimizer steps; -1 if it is not known.

        Raises:
            SparselitError: see :meth:`Schedule.check`; or a stage begins before the one before it ends.
        """
        for stage in self.stages:
            stage.check(total_steps)
        moments = [stage._moments(total_steps) for stage in self.stages]
        for number in range(1, len(moments)):
            if moments[number][0] < moments[number - 1][1]:
                raise SparselitError(
                    f"density: stage {number + 1} begins at step {moments[number][0]:g}, before stage {number} ends "
                    f"at step {moments[number - 1][1]:g}; set its begin"
                )

    def at(self, step: int, total_steps: int) -> float:
        """Density after ``step`` optimizer steps: that of the last stage that has begun."""
        self.check(total_steps)
        begun = [stage for stage in self.stages[1:] if step >= stage._moments(total_steps)[0]]
        return (begun[-1] if begun else self.stages[0]).at(step, total_steps)


def as_schedule(density: float | Schedule | list[Schedule]) -> Schedule:
    """A plain number as the schedule that is constant, a list as one in stages."""
    if isinstance(density, list):
        return Piecewise.of(density)
    return density if isinstance(density, Schedule) else Schedule.constant(density)


def steps(moment: float, total_steps: int) -> float:
    """A moment in optimizer steps: up to 1 a fraction of ``total_steps``, above 1 the steps themselves.

    Args:
        moment: a fraction of the run in [0, 1], or a number of optimizer steps above 1.
        total_steps: optimizer steps of the run.
    """
    return moment if moment > 1 or moment == 0 else moment_in(moment, total_steps)


def check_density(key: str, value: object) -> None:
    """Refuse what is not a density.

    Args:
        key: name of the value in the message.
        value: what should be a number in (0, 1].

    Raises:
        SparselitError: it is not.
    """
    check_range(key, value, 0, 1, above=True)


@lru_cache
def _find_shape(shape: str) -> Callable[[float], float]:
    """The progress function of a shape's name or path."""
    if shape in SHAPES:
        return SHAPES[shape]
    module, _, name = shape.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), name) if module else None
    except (ImportError, AttributeError, ValueError) as error:
        raise SparselitError(f"density.shape {shape!r} cannot be imported: {error}") from error
    if isinstance(found, type):
        found = found()
    if not callable(found):
        raise SparselitError(f"density.shape must be one of {', '.join(SHAPES)} or a class path, got {shape!r}")
    return found
