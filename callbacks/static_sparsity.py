"""A mask that is chosen once, before training, and never changes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

from torch import Tensor

from sparselit.errors import SparselitError, check_seed
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.projection import select
from sparselit.sparsity.regrowth import generator, random_scores
from sparselit.training.method import Density, Gradients
from sparselit.training.sparsifier import Sparsifier


class StaticSparsity(Sparsifier):
    """Fixes which weights live before the first step, at random or by magnitude, and trains only those.

    Args:
        density: share of non-zero weights in (0, 1]; a schedule is refused, because the mask never changes.
        mask: ``random``, or ``magnitude`` for the largest weights at the start.
        seed: seed of the random masks.
        kwargs: arguments of every method, see :class:`~sparselit.training.sparsifier.Sparsifier`.

    Raises:
        SparselitError: the mask is none of the two, or the density changes during the run.
    """

    saves_masks: ClassVar[bool] = True

    def __init__(
        self,
        density: Density,
        rules: list[Rule] | None = None,
        *,
        mask: Literal["random", "magnitude"] = "random",
        seed: int = 0,
        grads: Gradients = "masked",
        **kwargs: Any,
    ) -> None:
        super().__init__(density, rules, grads=grads, **kwargs)
        if mask not in ("random", "magnitude"):
            raise SparselitError(f"mask must be random or magnitude, got {mask!r}")
        self.mask = mask
        check_seed("seed", seed)
        self.seed = seed

    def check(self, budgets: Sequence[Budget]) -> None:
        """Refuse densities that change during the run."""
        for budget in budgets:
            if not budget.density.is_constant:
                raise SparselitError(
                    f"{type(self).__name__} keeps the number of weights of {budget.name}: its density must be a "
                    "number, not a schedule (AnnealedSparsity follows one)"
                )

    def start(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The first masks: k random or largest entries of each tensor, floors inside k."""
        masks = {}
        for budget in self.budgets:
            weight = tensors[budget.name]
            scores = weight.abs()
            if self.mask == "random":
                scores = random_scores(weight.shape, generator(self.seed, 0, budget.name), weight.device)
            masks[budget.name] = select(scores, self.course.entries(budget, 0), floor=budget.floor, per=budget.per)
        return masks

    def go_on(self, tensors: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        """The masks stay in a resumed run too; one of another size is refused."""
        kept = self.targets(self.step)
        masks = {**self.start(tensors), **self.masks}
        for name, mask in masks.items():
            if int(mask.sum()) != kept[name]:
                raise SparselitError(
                    f"{type(self).__name__} keeps the {int(mask.sum())} weights of {name} that the checkpoint has, "
                    f"the density is now {kept[name]} of them; keep the density, or begin a run without --ckpt_path"
                )
        return masks

    def update(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor]:
        """The masks stay."""
        return self.masks
