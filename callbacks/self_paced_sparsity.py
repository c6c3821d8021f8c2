"""Annealing that waits: the density follows its schedule only while the model still does its task."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from torch import Tensor

from sparselit.errors import SparselitError
from sparselit.sparsifier import Moments
from sparselit.sparsity.budget import Rule
from sparselit.sparsity.schedule import Schedule

from .annealed_sparsity import AnnealedSparsity


class SelfPacedSparsity(AnnealedSparsity):
    """Top-k projection whose schedule stands still while the running loss is too high.

    Annealed blindly, a model that loses a weight it needs goes on losing weights while it recovers, and collapses. Here
    the schedule has a clock of its own, which advances by one with each optimizer step after which the running loss is
    below ``loss_below``. Let the schedule end well before the run, so that there is time to wait.

    Args:
        density: share of living weights in (0, 1], a schedule over the clock's steps.
        rules: exceptions by parameter name; the first match wins.
        moments: the optimizer's moments of dead entries: ``keep``, ``mask`` or ``reset``.
        loss_below: running training loss under which the density falls, nats, above 0.
        memory: weight of the past in the running loss, in [0, 1); 0.9 averages over about ten batches.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(
        self,
        density: float | Schedule,
        rules: list[Rule] | None = None,
        moments: Moments = "keep",
        loss_below: float = 0.1,
        memory: float = 0.9,
    ) -> None:
        super().__init__(density, rules, moments)
        if not loss_below > 0:
            raise SparselitError(f"loss_below must be positive, got {loss_below}")
        if not 0 <= memory < 1:
            raise SparselitError(f"memory must lie in [0, 1), got {memory}")
        self.loss_below = loss_below
        self.memory = memory
        self.clock = 0
        self.running_loss: float | None = None

    def targets(self, step: int) -> dict[str, int]:
        """Number of living entries of every sparsified tensor at the clock's present position, whatever the step."""
        return super().targets(self.clock)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the clock where the running loss allows it; every process takes the same decision."""
        if isinstance(outputs, dict) and isinstance(outputs.get("loss"), Tensor):
            loss = float(trainer.strategy.reduce(outputs["loss"].detach().float(), reduce_op="mean"))
            past = loss if self.running_loss is None else self.running_loss
            self.running_loss = self.memory * past + (1 - self.memory) * loss
            if max(loss, self.running_loss) < self.loss_below:
                self.clock += 1
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say so where the model did not get as sparse as it was told to."""
        final = {budget.name: budget.k(max(self.total_steps, self.clock), self.total_steps) for budget in self.budgets}
        if sum(final.values()) < sum(self.targets(self.step).values()):
            rank_zero_warn(
                f"the density stopped at {self.density_now:.4g}: the running loss was above {self.loss_below} for "
                f"{self.step - self.clock} of {self.step} steps; train longer, or ask for a higher density"
            )

    def state_dict(self) -> dict[str, Any]:
        """The base's state, the clock and the running loss."""
        return {**super().state_dict(), "clock": self.clock, "running_loss": self.running_loss}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        super().load_state_dict(state_dict)
        self.clock, self.running_loss = state_dict["clock"], state_dict["running_loss"]
