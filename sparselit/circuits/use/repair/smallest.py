"""The smallest change of a few weights that repairs errors: the entries one by one, then their values together.

Orthogonal matching pursuit (Pati et al. 1993) with an exact line search: in each round the entry that lowers the loss
most when it alone changes joins those chosen before, and all of them are fitted again. The number of entries is a hard
limit. At the end the whole change is shrunk as far as the errors stay repaired.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from sparselit.circuits.use.repair.objective import Entries, Objective, gradients
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Place

#: Entries that get an exact line search in each round: those with the largest gradient.
TRIED = 12
#: Changes that a line search tries, in the largest entry of the tensor, beside setting to zero and turning the sign.
GRID = (0.125, 0.25, 0.5, 1.0, 2.0)
_RIDGE, _ROUNDS, _BISECTIONS = 1e-3, 40, 6


def smallest(model: Transformer, candidates: Sequence[Place], objective: Objective, budget: int) -> Transformer:
    """A model in which at most ``budget`` of some entries have other values.

    Args:
        model: as it is.
        candidates: entries that may change, zero ones included.
        objective: what to reach.
        budget: most entries that change, at least 1.
    """
    chosen: list[Place] = []
    values = torch.zeros(0)
    entries = Entries(model, candidates[:1])
    while len(chosen) < budget and (place := _best(model, candidates, chosen, values, objective)) is not None:
        found, value = place
        chosen.append(found)
        entries = Entries(model, chosen)
        values = fitted(entries, torch.cat([values, value[None]]), objective)
        if objective.reached(entries.tensors(values)):
            break
    return entries.model(model, shrunk(entries, values, objective)) if chosen else model


def _best(
    model: Transformer, candidates: Sequence[Place], chosen: list[Place], values: Tensor, objective: Objective
) -> tuple[Place, Tensor] | None:
    """The entry that lowers the loss most when it alone is changed too, and its value; None where none does."""
    changed = Entries(model, chosen).tensors(values) if chosen else {}
    rest = [place for place in candidates if place not in set(chosen)]
    if not rest:
        return None
    every = Entries(model, rest)
    slope = every.of(gradients(objective, (name for name, _, _ in rest), changed)).abs() * every.scale
    with torch.no_grad():
        least, best = float(objective.loss(changed)) - 1e-6, None
        for i in slope.argsort(descending=True, stable=True)[:TRIED].tolist():
            entries = Entries(model, [*chosen, rest[i]])
            for value in steps(every.values[i], every.scale[i]):
                loss = float(objective.loss(entries.tensors(torch.cat([values, value[None]]))))
                if loss < least:
                    least, best = loss, (rest[i], value)
    return best


def steps(value: Tensor, scale: Tensor) -> Tensor:
    """The values that an entry may get in a line search (value,)."""
    grid = torch.tensor([*GRID, *(-step for step in GRID)]) * scale + value
    return torch.cat([grid, torch.stack([torch.zeros_like(value), -value])]) if float(value) else grid


def fitted(entries: Entries, start: Tensor, objective: Objective) -> Tensor:
    """The values of some entries with the least loss, a weak pull towards the old ones included (L-BFGS).

    Args:
        entries: which.
        start: values to begin with (entry,).
        objective: what to reach.
    """
    old, scale = entries.values, entries.scale
    x = ((start - old) / scale).detach().clone().requires_grad_()
    least, best = float("inf"), x.detach().clone()
    solver = torch.optim.LBFGS([x], max_iter=_ROUNDS, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        nonlocal least, best
        solver.zero_grad()
        loss = objective.loss(entries.tensors(old + scale * x)) + _RIDGE * x.square().sum()
        loss.backward()
        if loss.item() < least:
            least, best = loss.item(), x.detach().clone()
        return loss

    solver.step(closure)
    return old + scale * best


@torch.no_grad()
def shrunk(entries: Entries, values: Tensor, objective: Objective) -> Tensor:
    """The part of a change that repairs as many errors, with a loss that is hardly larger, found by bisection.

    Args:
        entries: which change.
        values: their values (entry,).
        objective: what to reach.
    """
    old, low, high = entries.values, 0.0, 1.0
    tensors = entries.tensors(values)
    repaired, loss = objective.repaired(tensors), float(objective.loss(tensors))
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        tensors = entries.tensors(old + middle * (values - old))
        fine = objective.repaired(tensors) >= repaired and float(objective.loss(tensors)) <= 1.1 * loss + 1e-3
        low, high = (low, middle) if fine else (middle, high)
    return old + high * (values - old)
