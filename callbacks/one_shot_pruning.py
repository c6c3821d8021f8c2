"""One-shot magnitude pruning: train dense, prune once, train on what is left (Han et al. 2015, one round)."""

from __future__ import annotations

from typing import Any

from sparselit.errors import check_moment
from sparselit.sparsity.budget import Rule
from sparselit.sparsity.schedule import Schedule

from .gradual_pruning import GradualPruning


class OneShotPruning(GradualPruning):
    """Prunes the smallest weights at one moment and never again.

    Args:
        density: share of non-zero weights from that moment on, in (0, 1].
        at: the moment; a fraction of the run in [0, 1], or optimizer steps above 1.
        kwargs: arguments of :class:`GradualPruning`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, density: float, rules: list[Rule] | None = None, *, at: float = 0.5, **kwargs: Any) -> None:
        check_moment("at", at)
        super().__init__(Schedule(to=density, begin=at, end=at), rules, every_n_steps=1, **kwargs)
