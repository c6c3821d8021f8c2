"""What the checkpoint of a resumed run says of its sparsity, whichever callback of ours wrote it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from torch import Tensor

from sparselit.sparsity.budget import Budget
from sparselit.sparsity.length import Length


class Anew(NamedTuple):
    """A schedule that another one has replaced in the middle of the run.

    Attributes:
        ceiling: the density that was reached then, or the new target where that is higher; in (0, 1].
        since: how many earlier lengths of the run the new schedule knows nothing of.
    """

    ceiling: float
    since: int


@dataclass
class Course:
    """How far the schedules of a run have come, and what they were; a sparsifier keeps one in its state.

    Attributes:
        length: the length of the run, with those it had before.
        schedules: the schedule of each sparsified tensor, as text that can be compared.
        anew: tensors whose schedule was replaced, by name.
        shares: share of living entries of each tensor when the run was resumed, in [0, 1].
    """

    length: Length = field(default_factory=lambda: Length(-1))
    schedules: dict[str, str] = field(default_factory=dict)
    anew: dict[str, Anew] = field(default_factory=dict)
    shares: dict[str, float] = field(default_factory=dict)

    def resume(self, budgets: Iterable[Budget], step: int, total_steps: int) -> list[str]:
        """Go on with these budgets; what the schedules have passed stays passed.

        A schedule that is another one now is read over the whole run, and never asks for more than the density that was
        reached, unless its target does.

        Args:
            budgets: the plan from now on.
            step: optimizer steps taken so far.
            total_steps: the length of the run from now on, -1 where it is not known.

        Returns:
            Names of the tensors with another schedule.
        """
        self.length = self.length.resumed(step, total_steps)
        changed = []
        for budget in budgets:
            text = repr(budget.density)
            if self.shares and text != self.schedules.get(budget.name):
                changed.append(budget.name)
                self.anew.pop(budget.name, None)
                reached = self.shares.get(budget.name, 1.0)
                if reached and not budget.density.rises:
                    self.anew[budget.name] = Anew(max(reached, budget.density.to), len(self.length.before))
            self.schedules[budget.name] = text
        self.shares = {}
        return changed

    def entries(self, budget: Budget, step: int) -> int:
        """Number of entries of a tensor that stay after ``step`` optimizer steps."""
        anew = self.anew.get(budget.name)
        if anew is None:
            return budget.k(step, self.length)
        length = Length(self.length, self.length.before[anew.since :])
        return budget.entries(min(anew.ceiling, budget.density.at(step, length)))

    def state(self) -> dict[str, Any]:
        """Plain containers."""
        return {
            "total_steps": int(self.length),
            "before": [list(pair) for pair in self.length.before],
            "schedules": dict(self.schedules),
            "anew": {name: list(anew) for name, anew in self.anew.items()},
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Take over what :meth:`state` gave; of several sparsifiers' states, one after the other."""
        self.length = Length(state["total_steps"], state["before"])
        self.schedules.update(state["schedules"])
        self.anew.update({name: Anew(*anew) for name, anew in state["anew"].items()})


def sparsity_states(checkpoint: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The states of all sparsifiers in a checkpoint, by key: the class, and what its rules match."""
    states = checkpoint.get("callbacks")
    if not isinstance(states, Mapping):
        return {}
    wanted = {"step", "kept", "masks", "course"}
    return {str(k): state for k, state in states.items() if isinstance(state, Mapping) and wanted <= state.keys()}


def living_shares(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Share of living entries of each tensor: what a sparsifier kept, or else what is not zero; in [0, 1]."""
    tensors = {name: t for name, t in checkpoint.get("state_dict", {}).items() if isinstance(t, Tensor) and t.numel()}
    kept: dict[str, int] = {}
    for state in sparsity_states(checkpoint).values():
        kept.update(state["kept"])
    return {name: kept.get(name, int(t.count_nonzero())) / t.numel() for name, t in tensors.items()}


def sparse_shares(checkpoint: Mapping[str, Any]) -> dict[str, float]:
    """Share of living entries of each tensor that a sparsifier has thinned out so far; in (0, 1)."""
    thinned = {name for state in sparsity_states(checkpoint).values() for name in state["kept"]}
    return {name: share for name, share in living_shares(checkpoint).items() if name in thinned and share < 1}
