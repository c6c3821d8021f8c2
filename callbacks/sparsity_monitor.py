"""What the sparsity of each tensor really is, while a model trains."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from sparselit.errors import check_whole
from sparselit.sparsity.density import Row, Turnover, dead_lines, density_table, total
from sparselit.training.sparsifier import sparsifiers_of
from sparselit.training.steps import is_last_step, is_logging_step


class SparsityMonitor(Callback):
    """Logs the density of every matrix, its dead rows and columns and how its support moves.

    Works with or without a sparsifier. Logged per parameter with at least two dimensions: ``density/<name>``,
    ``dead_rows/<name>`` (output neurons, dim 0), ``dead_columns/<name>`` (input channels, dim 1), ``threshold/<name>``
    (smallest living magnitude), ``churn/<name>`` (share of the living entries that were dead at the measurement
    before) and ``ever_live/<name>`` (share of entries that lived at any measurement); and per rule of a sparsifier
    ``rule_density/<pattern>`` and ``rule_target/<pattern>``.

    The figures go to the loggers in one piece, which is far cheaper than a ``log`` for each of them
    (``benchmarks/logging_cost.py``), and to ``trainer.callback_metrics``.

    Args:
        every_n_steps: optimizer steps between two measurements, at least 1, the last step of a run being measured too;
            null for the trainer's ``log_every_n_steps``.

    Raises:
        SparselitError: a value is out of range; the message names it.
    """

    def __init__(self, every_n_steps: int | None = 50) -> None:
        if every_n_steps is not None:
            check_whole("every_n_steps", every_n_steps, 1)
        self.every_n_steps = every_n_steps
        self._turnover: dict[str, Turnover] = {}
        self._seen = 0  # global step at the end of the previous batch; accumulation leaves it unchanged

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A resumed run has measured the step that it begins at."""
        self._seen = trainer.global_step

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Count and log at the cadence."""
        if self._is_due(trainer):
            matrices = {name: p.detach() for name, p in pl_module.named_parameters() if p.ndim >= 2}
            values = _by_rule(trainer, pl_module)
            for row in density_table(matrices):
                measured = self._measure(row, matrices[row.name])
                values.update({f"{key}/{row.name}": value for key, value in measured.items()})
            metrics = {name: torch.tensor(value) for name, value in values.items()}
            trainer.callback_metrics.update(metrics)
            trainer._logger_connector.log_metrics(metrics)

    def _is_due(self, trainer: Trainer) -> bool:
        before, self._seen = self._seen, trainer.global_step
        if self.every_n_steps is None:
            return is_logging_step(trainer)
        return self._seen != before and (self._seen % self.every_n_steps == 0 or is_last_step(trainer))

    def _measure(self, row: Row, weight: Tensor) -> dict[str, float]:
        rows, columns = dead_lines(weight)
        turnover = self._turnover.setdefault(row.name, Turnover())
        churn = turnover.observe(weight)
        magnitude = weight.abs()
        smallest = magnitude.masked_fill_(magnitude == 0, float("inf")).min() if row.nonzero else 0.0
        return {
            "density": row.density,
            "dead_rows": float(rows),
            "dead_columns": float(columns),
            "threshold": float(smallest),
            "churn": churn,
            "ever_live": turnover.ever,
        }

    def state_dict(self) -> dict[str, Any]:
        """The supports seen so far, one bit an entry."""
        return {"turnover": {name: turnover.state() for name, turnover in self._turnover.items()}}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self._turnover = {name: Turnover.of(state) for name, state in state_dict.get("turnover", {}).items()}


def _by_rule(trainer: Trainer, module: LightningModule) -> dict[str, float]:
    """Density and target of the tensors of each rule, over all sparsifiers."""
    found: dict[str, float] = {}
    for sparsifier in sparsifiers_of(trainer):
        tensors, kept = sparsifier.tensors(module), sparsifier.targets(sparsifier.step)
        for rule in dict.fromkeys(budget.rule for budget in sparsifier.budgets if budget.rule):
            budgets = [budget for budget in sparsifier.budgets if budget.rule == rule]
            rows = density_table({budget.name: tensors[budget.name] for budget in budgets})
            found[f"rule_density/{rule}"] = total(rows).density
            found[f"rule_target/{rule}"] = sum(kept[b.name] for b in budgets) / sum(b.numel for b in budgets)
    return found
