"""The length of a run, which may change when it is resumed: what the run has passed by then stays passed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


class Length(int):
    """A number of optimizer steps that knows the lengths which the run was thought to have before.

    A fraction of a run is read with the length that was known at that moment. From the step of a resumption on, what is
    left of the run is spread over the steps that are left: a transition that was over stays over, one that was half
    done goes on from there.

    Args:
        steps: the length, optimizer steps; -1 where it is not known.
        before: earlier lengths in the order of time, each as (last step at which it was believed, length).

    Examples:
        >>> longer = Length(120, before=[(30, 40)])
        >>> longer.position(30), longer.position(75), longer.position(120)
        (0.75, 0.875, 1.0)
        >>> longer.moment(0.5), longer.moment(0.875)
        (20.0, 75.0)
    """

    before: tuple[tuple[int, int], ...]

    def __new__(cls, steps: int, before: Sequence[Sequence[int]] = ()) -> Length:
        """An integer with a past."""
        self = super().__new__(cls, steps)
        self.before = tuple((int(until), int(length)) for until, length in before)
        return self

    def __getnewargs__(self) -> tuple[Any, ...]:
        """What a copy is made of."""
        return int(self), self.before

    def resumed(self, step: int, steps: int) -> Length:
        """The length after a resumption.

        Args:
            step: optimizer steps taken so far.
            steps: the length from now on.
        """
        changed = steps != self and self > 0 and step > 0
        return Length(steps, [*self.before, (step, int(self))] if changed else self.before)

    def position(self, step: float) -> float:
        """The share of the run, in [0, 1], that has passed after so many optimizer steps."""
        share, since = 0.0, 0
        for until, length in (*self.before, (self, self)):
            left = length - since
            passed = min(step, until) - since
            share += (1 - share) * (min(1.0, passed / left) if left > 0 else 1.0)
            if step <= until:
                break
            since = until
        return min(1.0, share)

    def moment(self, share: float) -> float:
        """The first moment, in optimizer steps, at which a share of the run in [0, 1] has passed."""
        begun, since = 0.0, 0
        for until, length in (*self.before, (self, self)):
            left = max(0, length - since)
            wanted = since + (share - begun) / (1 - begun) * left if begun < 1 else float(since)
            if wanted <= until:
                return wanted
            begun, since = self.position(until), until
        return float(max(self, since))


def moment_in(fraction: float, total_steps: int) -> float:
    """A fraction of a run in optimizer steps.

    Args:
        fraction: share of the run, in [0, 1].
        total_steps: length of the run, optimizer steps.
    """
    changed = isinstance(total_steps, Length) and total_steps.before
    return total_steps.moment(fraction) if changed else fraction * total_steps  # type: ignore[attr-defined]
