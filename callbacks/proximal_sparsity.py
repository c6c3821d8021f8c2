"""The regularisation route: an L1 or group-L1 penalty drives weights to zero, and a budget bounds what is left."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from sparselit.errors import LARGEST_RATE, SparselitError, check_moment, check_range
from sparselit.sparsity.budget import Rule
from sparselit.sparsity.proximal import Group, shrink_
from sparselit.sparsity.schedule import steps
from sparselit.training.method import Density

from .annealed_sparsity import AnnealedSparsity


class ProximalSparsity(AnnealedSparsity):
    """Pulls every weight towards zero after each step, then keeps at most the budget's largest.

    The proximal gradient method for an L1 penalty of ``strength`` (Parikh & Boyd 2014, §4.2), or for group L1 (Yuan &
    Lin 2006), which empties whole neurons or channels. With ``density: 1.0`` the penalty alone decides how many
    weights live; with a smaller one the budget is an upper bound. From ``until`` on the support is locked and nothing
    is shrunk, so that the weights recover the size that the penalty took.

    Args:
        density: largest share of non-zero weights, in (0, 1], or a schedule.
        rules: exceptions by parameter name; the first match wins. What a rule keeps dense is not shrunk either.
        strength: weight of the penalty; a step shrinks by ``strength`` times the learning rate, at least 0.
        group: what shrinks together: every ``entry``, or each ``row`` or ``column`` as one vector.
        until: moment from which the support is locked; a fraction of the run in [0, 1], or optimizer steps above 1.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        density: Density = 1.0,
        rules: list[Rule] | None = None,
        *,
        strength: float = 0.1,
        group: Group = "entry",
        until: float = 0.8,
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, **kwargs)
        check_range("strength", strength, 0, most=LARGEST_RATE)
        if group not in ("entry", "row", "column"):
            raise SparselitError(f"group must be entry, row or column, got {group!r}")
        check_moment("until", until)
        self.strength, self.group, self.until = strength, group, until
        self._support: dict[str, Tensor] = {}

    @property
    def needs_length(self) -> bool:
        """Whether ``until`` or the density is a fraction of the run."""
        return 0 < self.until <= 1 or super().needs_length

    def prepare(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Shrink by the penalty's share of this step."""
        if not self._is_locked(step):
            for weight in tensors.values():
                shrink_(weight, self.strength * self.learning_rate(weight), self.group)

    def cut(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor] | None:
        """The largest within the budget; once locked, of the support of the step before."""
        if self._is_locked(step):
            for name, weight in tensors.items():
                weight.masked_fill_(~self._support[name], 0.0)
        return super().cut(tensors, step)

    def before_step(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Remember the support before the first locked step, and after a resumption."""
        if self._is_locked(step):
            self._support = {name: weight != 0 for name, weight in tensors.items()}

    def _is_locked(self, step: int) -> bool:
        return step > steps(self.until, self.total_steps)
