"""Sparsity as pure functions on tensors: schedules, exact budgets, projection, drop and grow, counting."""

from sparselit.sparsity.budget import Budget, Rule, plan
from sparselit.sparsity.density import Row, dead_lines, density_table, total
from sparselit.sparsity.projection import project_, select, top_k_mask
from sparselit.sparsity.regrowth import drop_and_grow, random_scores
from sparselit.sparsity.schedule import Schedule

__all__ = [
    "Budget",
    "Row",
    "Rule",
    "Schedule",
    "dead_lines",
    "density_table",
    "drop_and_grow",
    "plan",
    "project_",
    "random_scores",
    "select",
    "top_k_mask",
    "total",
]
