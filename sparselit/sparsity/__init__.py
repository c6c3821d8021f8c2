"""Sparsity as pure functions on tensors: schedules, exact budgets, projection, drop and grow, counting."""

from sparselit.sparsity.budget import Budget, Rule, plan
from sparselit.sparsity.density import Row, dead_lines, density_table, total
from sparselit.sparsity.distribution import Shares
from sparselit.sparsity.projection import project_, select, top_k_mask
from sparselit.sparsity.proximal import shrink_
from sparselit.sparsity.regrowth import drop_and_grow, random_scores
from sparselit.sparsity.schedule import Piecewise, Schedule
from sparselit.sparsity.semi_structured import n_of_m

__all__ = [
    "Budget",
    "Piecewise",
    "Row",
    "Rule",
    "Schedule",
    "Shares",
    "dead_lines",
    "density_table",
    "drop_and_grow",
    "n_of_m",
    "plan",
    "project_",
    "random_scores",
    "select",
    "shrink_",
    "top_k_mask",
    "total",
]
