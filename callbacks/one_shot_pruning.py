"""One-shot magnitude pruning: train dense, prune once, train on what is left (Han et al. 2015, one round)."""

from __future__ import annotations

from sparselit.sparsity.budget import Rule
from sparselit.sparsity.distribution import Distribution
from sparselit.sparsity.schedule import Schedule
from sparselit.training.sparsifier import Gradients, Moments

from .gradual_pruning import GradualPruning


class OneShotPruning(GradualPruning):
    """Prunes the smallest weights at one moment and never again.

    Args:
        density: share of non-zero weights from that moment on, in (0, 1].
        rules: exceptions by parameter name; the first match wins.
        moments: the optimizer's moments of dead entries: ``keep``, ``mask`` or ``reset``.
        at: the moment; a fraction of the run in [0, 1], or optimizer steps above 1.
        grads: the gradient that the optimizer sees: ``masked`` to the live entries, or ``dense``.
        distribution: how the tensors share the living entries: ``uniform``, ``er`` or ``erk``.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        density: float,
        rules: list[Rule] | None = None,
        moments: Moments = "mask",
        at: float = 0.5,
        grads: Gradients = "masked",
        distribution: Distribution = "uniform",
    ) -> None:
        schedule = Schedule(to=density, begin=at, end=at)
        super().__init__(schedule, rules, moments, every_n_steps=1, grads=grads, distribution=distribution)
