"""Whether a run kept its promise of sparsity: in every checkpoint, at the end, and down to the configured density."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info, rank_zero_warn
from torch import Tensor


@dataclass(frozen=True)
class Arrival:
    """How far a schedule has come at the end of a run.

    Attributes:
        reached: living entries of all sparsified tensors at the last step.
        goal: living entries at which the schedule ends.
        numel: entries in all.
        step: that step.
        total_steps: the length that the schedule was read with, optimizer steps; -1 where it was not known.
    """

    reached: int
    goal: int
    numel: int
    step: int
    total_steps: int

    @property
    def missed(self) -> bool:
        """Whether the run ends before its schedule."""
        return self.reached != self.goal

    @property
    def target(self) -> float:
        """The density at which the schedule ends, in (0, 1]."""
        return self.goal / self.numel

    def __str__(self) -> str:
        of = f" of {self.total_steps:,}" if self.total_steps > self.step else ""
        return (
            f"density {self.reached / self.numel:.4g} where the target is {self.target:.4g}: the run ends at step "
            f"{self.step:,}{of}, before its schedule"
        )


@dataclass
class Promise:
    """What a sparsifier has found to be denser than it should be.

    Attributes:
        who: name of the sparsifier.
        problems: one line for the first miss and one for the last; empty where all is well.
        announce: called with the first one.
        note: called with what is foreseen before the first step.
        shortfall: why the run has not come to its target; empty where it has.
    """

    who: str
    problems: list[str] = field(default_factory=list)
    announce: Callable[[str], object] = rank_zero_warn
    note: Callable[[str], object] = rank_zero_info
    shortfall: str = ""

    def fall_short(self, text: str) -> None:
        """Say and remember why the run has not come to its target."""
        self.shortfall = text
        self.announce(text)

    def check(self, tensors: Mapping[str, Tensor], budgets: Mapping[str, int], what: str) -> None:
        """Count the non-zero entries of some tensors, and note where there are too many.

        Args:
            tensors: tensors by name, a state dict for example.
            budgets: the most entries of each that may be non-zero.
            what: which tensors these are, for the line.
        """
        found = excess(tensors, budgets)
        if found is None:
            return
        text = f"{what} has {found}: something wrote weights after {self.who}"
        if not self.problems:  # the others follow from it
            self.announce(f"problem: {text}")
        self.problems = [*self.problems[:1], text]


def excess(tensors: Mapping[str, Tensor], budgets: Mapping[str, int]) -> str | None:
    """What there is too much of; one device synchronisation for all tensors.

    Args:
        tensors: tensors by name, a state dict for example.
        budgets: the most entries of each that may be non-zero; a name that is not there is passed over.

    Returns:
        Density, budget and the worst tensor in words; None where every tensor keeps its budget.
    """
    names = [name for name in budgets if name in tensors]
    if not names:
        return None
    device = tensors[names[0]].device
    counts: Sequence[int] = torch.stack([tensors[n].detach().count_nonzero().to(device) for n in names]).tolist()
    over = {name: count for name, count in zip(names, counts, strict=True) if count > budgets[name]}
    if not over:
        return None
    numel = sum(tensors[name].numel() for name in names)
    worst = max(over, key=lambda name: over[name] / budgets[name])
    return (
        f"density {sum(counts) / numel:.4g} where {sum(budgets[n] for n in names) / numel:.4g} was configured "
        f"({worst}: {over[worst]} entries for a budget of {budgets[worst]})"
    )
