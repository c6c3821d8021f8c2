"""Weights that a module computes from its parameters, whose zeros need not be zeros of the weight that is used."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import nn
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _SpectralNorm, _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from sparselit.errors import SparselitError
from sparselit.sparsity.budget import Budget


class _Recomputed(NamedTuple):
    """A weight that is computed: its name, the parameters that it is made of, and what computes it."""

    weight: str
    parts: tuple[str, ...]
    kind: str
    dim: int | None  # of the lengths, where directions and lengths are what it is made of


def refuse_recomputed(module: nn.Module, budgets: Sequence[Budget]) -> None:
    """Refuse to sparsify parameters whose zeros are no zeros of the weight, or make it undefined.

    A direction and a length (weight normalisation) are right where the lengths stay dense and no direction loses its
    last entry. A division by a number (spectral normalisation) keeps every zero. Nothing is known of others.

    Args:
        module: the module.
        budgets: what is sparsified in it.

    Raises:
        SparselitError: names the parameter and the rules that it needs.
    """
    plan = {budget.name: budget for budget in budgets}
    for found in _recomputed(module):
        sparse = [plan[name] for name in found.parts if name in plan]
        if not sparse:
            continue
        if found.dim is None:
            raise SparselitError(
                f"{sparse[0].name} is no weight: {found.kind} computes {found.weight} from it, with other zeros; "
                f"keep it dense with the rule\n{{match: {sparse[0].name}, density: null}}"
            )
        lengths, directions = found.parts
        row = "row" if found.dim == 0 else "column"
        kept = plan.get(directions)
        if lengths in plan or (kept is not None and not (kept.floor and kept.per in (row, "both"))):
            raise SparselitError(
                f"{lengths} and {directions} are lengths and directions of {found.weight}, of which none may be zero; "
                f"add the rules\n{{match: {lengths}, density: null}} and {{match: {directions}, floor: 1, per: {row}}}"
            )


def _recomputed(module: nn.Module) -> Iterator[_Recomputed]:
    for prefix, part in module.named_modules():
        before = f"{prefix}." if prefix else ""
        if parametrize.is_parametrized(part):
            for name, chain in part.parametrizations.items():
                kinds = list(chain)
                if all(isinstance(kind, _SpectralNorm) for kind in kinds):
                    continue
                own = tuple(
                    f"{before}parametrizations.{name}.{key}" for key, _ in chain.named_parameters(recurse=False)
                )
                normalised = len(kinds) == 1 and isinstance(kinds[0], _WeightNorm)
                kind = "weight_norm" if normalised else type(kinds[-1]).__name__.strip("_")
                yield _Recomputed(before + name, own, kind, kinds[0].dim if normalised else None)
        for hook in part._forward_pre_hooks.values():
            if isinstance(hook, WeightNorm):  # as torch has it for older code
                own = (f"{before}{hook.name}_g", f"{before}{hook.name}_v")
                yield _Recomputed(before + hook.name, own, "weight_norm", hook.dim)
