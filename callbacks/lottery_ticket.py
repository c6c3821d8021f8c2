"""Lottery tickets: prune a trained model once, and train what is left again from its early weights (Frankle et al.)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from lightning.pytorch import LightningModule, Trainer
from torch import Tensor, nn

from sparselit.errors import SparselitError, check_moment
from sparselit.sparsity.budget import Budget, Rule
from sparselit.sparsity.schedule import steps
from sparselit.sparsity.snapshot import restore_, take

from .one_shot_pruning import OneShotPruning


class LotteryTicket(OneShotPruning):
    """Prunes the smallest weights at one moment, and brings all others back to what they were at an earlier one.

    Frankle & Carbin 2019 (arXiv 1803.03635) go back to the first weights, Frankle et al. 2020 (arXiv 1912.05671) to
    those of an early step. The optimizer forgets its moments; the learning rate goes on as scheduled.

    Args:
        density: share of non-zero weights from that moment on, in (0, 1].
        at: when to prune; a fraction of the run in [0, 1], or optimizer steps above 1.
        rewind: whose weights come back; 0 for the first ones, else as ``at``, which it must come before.
        kwargs: arguments of :class:`GradualPruning`.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    goes_back: ClassVar[bool] = True

    def __init__(
        self, density: float, rules: list[Rule] | None = None, *, at: float = 0.5, rewind: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(density, rules, at=at, **kwargs)
        check_moment("rewind", rewind)
        self.at, self.rewind = at, rewind
        self.ticket: dict[str, Any] | None = None  # the weights that come back, until they have

    @property
    def needs_length(self) -> bool:
        """Whether anything is a fraction of the run."""
        return super().needs_length or 0 < self.rewind <= 1

    def validate(self, module: nn.Module, total_steps: int | None = None) -> list[Budget]:
        """Refuse to go back to a moment that comes after the pruning too."""
        budgets = super().validate(module, total_steps)
        if total_steps is not None and steps(self.rewind, total_steps) >= steps(self.at, total_steps):
            raise SparselitError(f"rewind {self.rewind:g} must come before the moment of pruning, at {self.at:g}")
        return budgets

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Take the first weights where these come back; refuse to go on in a run that did not keep those that do."""
        super().on_train_start(trainer, pl_module)
        if self.ticket is not None or self.step >= steps(self.at, self.total_steps):
            return
        if self.step > self._rewind_step:
            raise SparselitError(
                f"LotteryTicket: the run has passed step {self._rewind_step} without keeping its weights; "
                f"set rewind to a moment after step {self.step}, or begin a run"
            )
        self._take(self.step)

    def prepare(self, tensors: Mapping[str, Tensor], step: int) -> None:
        """Keep the weights that come back."""
        self._take(step)

    def cut(self, tensors: Mapping[str, Tensor], step: int) -> Mapping[str, Tensor] | None:
        """Prune by what the weights are now, then bring those of the ticket back."""
        masks = self.update(tensors, step)
        if self.ticket is not None and self.targets(step) != self.targets(step - 1):
            assert self._module is not None
            restore_(self.ticket, self._module, ())
            for optimizer in self._optimizers:
                optimizer.state.clear()
            self.ticket = None
        for name, weight in tensors.items():
            weight.masked_fill_(~masks[name], 0.0)
        return masks

    def state_dict(self) -> dict[str, Any]:
        """The base's state, and the weights that come back."""
        return {**super().state_dict(), "ticket": self.ticket}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        super().load_state_dict(state_dict)
        self.ticket = state_dict["ticket"]

    @property
    def _rewind_step(self) -> int:
        return round(steps(self.rewind, self.total_steps))

    def _take(self, step: int) -> None:
        if step == self._rewind_step and self._module is not None:
            self.ticket = take(self._module, ())
