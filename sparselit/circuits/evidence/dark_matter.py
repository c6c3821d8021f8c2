"""Dark matter: what circuits leave unexplained, of one task and of all known circuits of a model together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import torch
from torch import Tensor

from sparselit.circuits.circuit import Edge
from sparselit.circuits.claims import DarkMatter
from sparselit.circuits.evidence.faithfulness import EXAMPLES, Subject, fraction_unexplained
from sparselit.circuits.evidence.scores import DIGITS
from sparselit.circuits.run.ablation import Ablation, prepare, real_positions, real_rows
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges
from sparselit.runs.json_record import write


def dark_matter(subject: Subject) -> DarkMatter:
    """The unexplained shares of a circuit on some examples: 0 is a perfect circuit, 1 an empty one (or a mean).

    Returns:
        ``task_loss``: (circuit - full) / (empty - full); ``kl``: the circuit's divergence from the full model over the
        empty circuit's; both null where the full model is no better than an empty circuit. ``residual``: by site of
        the residual stream, the fraction of the full model's variance, over all channels and positions of the
        prompts, that the circuit's value leaves unexplained; null where it does not vary. ``n``.
    """
    circuit, full, empty = (
        subject.measured(subject.logits(kept))
        for kept in (subject.kept, subject.everything, torch.zeros_like(subject.kept))
    )
    sites = [site for site in subject.model.sites if site == "embed" or site.endswith(".residual")]
    real = real_positions(subject.examples)
    mine, theirs = (subject.recorded(edges, sites) for edges in (subject.kept, subject.everything))
    return DarkMatter(
        task_loss=_share(circuit["task_loss"] - full["task_loss"], empty["task_loss"] - full["task_loss"]),
        kl=_share(circuit["kl"], empty["kl"]),
        residual={
            site: fraction_unexplained(*(real_rows(x[site], real).double() for x in (mine, theirs))) for site in sites
        },
        n=len(subject.examples.answer),
    )


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, DIGITS) if whole > 1e-9 else None


class Known(NamedTuple):
    """One known circuit of a model.

    Attributes:
        places: its edges and biases, as (parameter, row, column).
        splits: its behaviour's splits.
        ablation: under which it was found.
    """

    places: Sequence[Edge]
    splits: Mapping[str, Examples]
    ablation: Ablation


def of_union(model: Transformer, known: Mapping[str, Known]) -> dict[str, dict[str, Any]]:
    """What each of a model's circuits, and all of them together, leave unexplained of each task.

    Args:
        model: the full model.
        known: its circuits by name, all under one kind of ablation.

    Returns:
        By name: ``edges``, ``alone`` and ``together``, each as :func:`dark_matter`, on the first report examples; and
        under ``""`` the union's ``edges`` and ``of``, all edges of the model.

    Raises:
        SparselitError: the circuits' ablations differ, or an edge is none of the model's.
    """
    ablations = {circuit.ablation for circuit in known.values()}
    if len(ablations) != 1:
        raise SparselitError(f"circuits under several ablations have no union: {'; '.join(map(str, ablations))}")
    ablation = ablations.pop()
    edges = Edges.of(model, ablation.removes_biases)
    try:
        sets = {name: edges.find(list(circuit.places)) for name, circuit in known.items()}
    except KeyError as error:
        raise SparselitError(f"the model has no edge {error}; are these circuits of one model?") from error
    union = torch.stack(list(sets.values())).any(0)
    found: dict[str, dict[str, Any]] = {}
    for name, circuit in known.items():
        examples = circuit.splits["report"].select(slice(0, EXAMPLES))
        alone = Subject(model, edges, prepare(model, ablation, circuit.splits), sets[name], examples)
        found[name] = {
            "edges": _weights(edges, sets[name]),
            "alone": write(dark_matter(alone)),
            "together": write(dark_matter(replace(alone, kept=union))),
        }
    found[""] = {"edges": _weights(edges, union), "of": _weights(edges, torch.ones_like(union))}
    return found


def _weights(edges: Edges, kept: Tensor) -> int:
    return int((kept & ~edges.is_bias).sum())
