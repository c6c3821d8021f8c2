"""From when on circuits are sought while a model trains."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from sparselit.errors import SparselitError, check_range, check_whole
from sparselit.model.transformer import Transformer
from sparselit.training.circuit_metrics import searched
from sparselit.training.method import Method


@dataclass
class Begin:
    """From when on circuits are sought; both conditions must hold.

    Args:
        density: largest share of non-zero weights over all matrices at which a search is worth its time, in (0, 1];
            where the schedule of the sparsity ends above it, the density at which it ends.
        step: first optimizer step.
    """

    density: float = 1.0
    step: int = 0

    def __post_init__(self) -> None:
        check_range("circuits.begin.density", self.density, 0, 1, above=True)
        check_whole("circuits.begin.step", self.step, 0)

    def attainable(self, module: nn.Module, model: Transformer, methods: Sequence[Method]) -> float:
        """The largest density at which a search begins, such that one begins at all.

        Args:
            module: what is trained.
            model: the transformer in it, which is searched.
            methods: what makes it sparse.

        Returns:
            ``density``, or the density at which the schedules end where that is larger; in (0, 1].

        Raises:
            SparselitError: nothing makes the model that sparse.
        """
        lowest = lowest_density(module, model, methods)
        if lowest > self.density and not methods:
            raise SparselitError(
                f"circuits.begin.density is {self.density:.4g}, and nothing makes the model sparser than {lowest:.4g}: "
                "add sparsity:, or set it to 1"
            )
        return max(lowest, self.density)

    def why_none(self, step: int, density: float, every_n_steps: int) -> str:
        """Why no step was searched in a run that has ended.

        Args:
            step: its last optimizer step.
            density: of the model then.
            every_n_steps: steps between two searches.
        """
        if step < self.step:
            return f"no step was searched: circuits.begin.step is {self.step:,}, the run ended at step {step:,}"
        if density > self.density:
            return (
                f"no step was searched: the density came down to {density:.4g}, circuits.begin.density is "
                f"{self.density:.4g}"
            )
        return f"no step was searched: the run ended at step {step:,}, circuits.every_n_steps is {every_n_steps:,}"


def lowest_density(module: nn.Module, model: Transformer, methods: Sequence[Method]) -> float:
    """The smallest share of non-zero weights over all searched matrices that schedules lead to, in (0, 1].

    Args:
        module: what is trained.
        model: the transformer in it.
        methods: what makes it sparse.
    """
    lowest: dict[int, int] = {}
    for method in methods:
        tensors = method.tensors(module)
        lowest |= {id(tensors[budget.name]): budget.entries(budget.density.lowest) for budget in method.budgets}
    weights = searched(model)
    kept = [lowest[id(weight)] if id(weight) in lowest else int(weight.count_nonzero()) for weight in weights]
    return sum(kept) / sum(weight.numel() for weight in weights)
