"""N:M sparsity: exactly n weights of every m neighbours live."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from sparselit.errors import SparselitError, check_whole
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.semi_structured import n_of_m
from sparselit.training.sparsifier import Sparsifier

_LARGEST_GROUP = 1024


class SemiStructuredSparsity(Sparsifier):
    """Keeps the ``n`` largest of every ``m`` neighbouring weights along the input channels after every step.

    Zhou et al. 2021 (arXiv 2102.04010) with the projection in place of the straight-through estimator: gradients and
    moments stay dense. 2:4 is the pattern of the sparse kernels of NVIDIA's Ampere and later; see ``compress`` in
    ``sparselit.sparsity.semi_structured``.

    Args:
        n: weights of a group that live, in [1, m].
        m: weights of a group; dim 1 of every sparsified tensor must be a multiple of it.
        rules: tensors that stay dense (``density: null``); other densities and floors have no meaning here.
        kwargs: ``moments`` and ``grads``, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, n: int = 2, m: int = 4, rules: list[Rule] | None = None, **kwargs: Any) -> None:
        check_whole("m", m, 1, most=_LARGEST_GROUP)
        check_whole("n", n, 1)
        if n > m:
            raise SparselitError(f"n must lie in [1, m], got n {n} and m {m}")
        super().__init__(n / m, rules, distribution="uniform", **kwargs)
        self.n, self.m = n, m
        for rule in self.rules:
            if rule.density not in (None, "default") or rule.floor or rule.distribution:
                raise SparselitError(
                    f"rules: {rule.match!r}: {n} of {m} is the density of every tensor; a rule can only keep one dense "
                    "(density: null)"
                )

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse tensors that do not divide into groups."""
        for budget in budgets:
            if len(budget.shape) < 2 or budget.shape[1] % self.m:
                raise SparselitError(
                    f"{budget.name} of shape {tuple(budget.shape)} has no groups of {self.m} along dim 1; keep it "
                    f"dense with the rule {{match: {budget.name}, density: null}}"
                )

    def update(self, tensors: Mapping[str, Tensor], step: int) -> dict[str, Tensor]:
        """The largest entries of every group."""
        return {name: n_of_m(weight.abs(), self.n, self.m) for name, weight in tensors.items()}
