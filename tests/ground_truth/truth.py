"""Answers about a case by the naive masked forward pass over its whole domain, and by nothing else."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.criterion import holds, measure
from sparselit.circuits.run.masked import context, masked_logits
from sparselit.circuits.search.problem import Problem

from .cases import Case, Place


class Truth:
    """Answers about a case, by the naive masked forward pass over the whole domain and by nothing else."""

    def __init__(self, case: Case, kind: Any = "zero") -> None:
        self.case = case
        self.problem = Problem.of(case.model, case.domain, case.criterion, kind)
        self.everything = self.problem.all_edges()

    def passes(self, kept: Tensor) -> bool:
        return holds(self.case.criterion, measure(self.problem.naive_logits(kept, self.case.domain), self.case.domain))

    def without(self, kept: Tensor, *edges: int) -> Tensor:
        trial = kept.clone()
        trial[list(edges)] = False
        return trial

    def ness(self) -> Tensor:
        """Weights whose single removal from the full model breaks the criterion."""
        necessary = [i for i in range(len(self.everything)) if not self.passes(self.without(self.everything, i))]
        return torch.isin(torch.arange(len(self.everything)), torch.tensor(necessary))

    def is_minimal(self, kept: Tensor) -> bool:
        return self.passes(kept) and not any(self.passes(self.without(kept, i)) for i in members(kept))

    def places(self, kept: Tensor) -> set[Place]:
        return {self.problem.edges.describe(i) for i in members(kept)}

    def passing(self, sets: Tensor) -> Tensor:
        """Which of many sets pass, boolean (set,); the forward pass of all of them at once.

        Args:
            sets: boolean (set, edge).
        """
        case, problem = self.case, self.problem

        def logits(kept: Tensor) -> Tensor:
            masks, replacement = problem.edges.masks(kept), problem.engine.replacement
            known = context(case.model, replacement, case.domain.tokens, case.domain.length - 1)
            return masked_logits(case.model, masks, known)

        # Something at a pattern makes attention take the explicit path, which can be batched.
        patterns = {name: torch.Tensor.clone for name in case.model.sites if name.endswith("pattern")}
        passed = []
        for some in sets.split(1024):
            with torch.no_grad(), case.model.sites.edited(after=patterns):
                many = torch.func.vmap(logits)(some)
            passed += [holds(case.criterion, measure(each, case.domain)) for each in many]
        return torch.tensor(passed)

    def minimal_circuits(self) -> list[frozenset[int]]:
        """All sets of edges that pass and of which no subset passes, by enumeration of all sets."""
        n = len(self.everything)
        sets = torch.arange(2**n)[:, None].bitwise_right_shift(torch.arange(n)).bitwise_and(1).bool()
        sets = sets[torch.argsort(sets.sum(1), stable=True)]
        found: list[frozenset[int]] = []
        for kept in sets[self.passing(sets)]:
            chosen = frozenset(members(kept))
            if not any(smaller <= chosen for smaller in found):
                found.append(chosen)
        return found


def members(kept: Tensor) -> list[int]:
    return kept.nonzero()[:, 0].tolist()
