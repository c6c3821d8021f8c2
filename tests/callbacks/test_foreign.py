"""Every method on modules that are not ours: each matrix has exactly its budget, or the module is refused by name."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from sparselit.callbacks import AnnealedSparsity, SnipSparsity, StaticSparsity

from sparselit.errors import SparselitError
from sparselit.sparsity import Rule
from tests.callbacks.foreign import FOREIGN, Foreign, OldWeightNorm, Orthogonal, WeightNormalised
from tests.callbacks.methods import RETURNING, STEPS, Member, fit, members

pytestmark = [
    pytest.mark.filterwarnings("ignore:the density (stopped|was reached)"),
    pytest.mark.filterwarnings("ignore:.*weight_norm. is deprecated"),
]

MEMBERS = {name: member for name, member in members().items() if name not in RETURNING}
#: Modules that no method can make sparse as they are, and what the message says.
REFUSED = {
    "WeightNormalised": "are lengths and directions of body.0.weight, of which none may be zero",
    "OldWeightNorm": "are lengths and directions of body.0.weight, of which none may be zero",
    "Orthogonal": "is no weight: Orthogonal computes body.0.weight from it, with other zeros",
    "Complex": "phase holds complex numbers, which are not sparsified",
    "Lazy": "body.0.weight has no shape yet",
}
#: Modules with a matrix that has no groups of four.
NO_GROUPS = ("Recurrent", "Convolutional")


@pytest.mark.parametrize("kind", FOREIGN.values(), ids=FOREIGN)
@pytest.mark.parametrize("member", MEMBERS.values(), ids=MEMBERS)
def test_every_matrix_has_its_budget_or_the_module_is_refused(member: Member, kind: type[Foreign]) -> None:
    module, sparsifier = kind(), member.usual()
    refusal = REFUSED.get(kind.__name__)
    if member.name == "SemiStructuredSparsity" and kind.__name__ in NO_GROUPS:
        refusal = "has no groups of 4"
    if refusal is not None:
        with pytest.raises(SparselitError, match=refusal) as error:
            fit(module, sparsifier, max_steps=STEPS)
        assert len(str(error.value).splitlines()) <= 2
        return
    fit(module, sparsifier, max_steps=STEPS)
    counts = {name: int(weight.count_nonzero()) for name, weight in sparsifier.tensors(module).items()}
    assert counts.keys() == {name for name, weight in module.named_parameters() if weight.ndim > 1 and weight.numel()}
    for name, k in sparsifier.targets(STEPS).items():
        mask = sparsifier.masks.get(name)
        assert counts[name] <= k
        assert not member.is_exact or (counts[name] if mask is None else int(mask.sum())) == k
    assert all(torch.isfinite(weight).all() for weight in module.parameters())


@pytest.mark.parametrize("sparsity", [AnnealedSparsity, StaticSparsity, SnipSparsity])
@pytest.mark.parametrize("kind", [WeightNormalised, OldWeightNorm])
def test_with_the_rules_that_are_named_a_normalised_weight_is_sparse(kind: type[Foreign], sparsity: Any) -> None:
    with pytest.raises(SparselitError) as error:
        fit(kind(), sparsity(0.25), max_steps=STEPS)
    lengths, directions = re.findall(r"match: ([\w.]+),", str(error.value))
    rules = [Rule(lengths, density=None), Rule(directions, floor=1)]
    module, sparsifier = kind(), sparsity(0.25, rules)
    fit(module, sparsifier, max_steps=STEPS)
    module(torch.randn(3, 8), torch.zeros(3, dtype=torch.long))  # computes the weight
    weight = module.body[0].weight  # type: ignore[union-attr, index]
    assert int(weight.count_nonzero()) == int(sparsifier.tensors(module)[directions].count_nonzero()) == 24
    assert all(torch.isfinite(parameter).all() for parameter in module.parameters())


def test_with_the_rule_that_is_named_the_others_are_sparse() -> None:
    with pytest.raises(SparselitError) as error:
        fit(Orthogonal(), AnnealedSparsity(0.25), max_steps=STEPS)
    (name,) = re.findall(r"match: ([\w.]+),", str(error.value))
    module, sparsifier = Orthogonal(), AnnealedSparsity(0.25, [Rule(name, density=None)])
    fit(module, sparsifier, max_steps=STEPS)
    assert {n: int(w.count_nonzero()) for n, w in sparsifier.tensors(module).items()} == {"body.2.weight": 12}
