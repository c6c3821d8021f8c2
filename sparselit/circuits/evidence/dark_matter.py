"""Dark matter: what circuits leave unexplained, of one task and of all known circuits of a model together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from sparselit.circuits.claims import DarkMatter
from sparselit.circuits.evidence.faithfulness import fraction_unexplained
from sparselit.circuits.evidence.scores import DIGITS
from sparselit.circuits.run.ablation import real_rows
from sparselit.circuits.subnetwork import Observed
from sparselit.errors import SparselitError
from sparselit.runs.json_record import write


def dark_matter(subject: Observed) -> DarkMatter:
    """The unexplained shares of a circuit on some examples: 0 is a perfect circuit, 1 an empty one (or a mean).

    Returns:
        ``task_loss``: (circuit - full) / (empty - full); ``kl``: the circuit's divergence from the full model over the
        empty circuit's; both None where the full model is no better than an empty circuit. ``residual``: by site of
        the residual stream, the fraction of the full model's variance, over all channels and positions of the
        prompts, that the circuit's value leaves unexplained; None where it does not vary. ``n``.
    """
    nothing = subject.keeping(torch.zeros_like(subject.kept))
    circuit, full, empty = map(subject.measured, (subject.logits(), subject.full, nothing.logits()))
    sites = stream_sites(subject)
    real = subject.examples.real
    mine, theirs = (run.recorded(sites) for run in (subject, subject.whole))
    return DarkMatter(
        task_loss=_share(circuit["task_loss"] - full["task_loss"], empty["task_loss"] - full["task_loss"]),
        kl=_share(circuit["kl"], empty["kl"]),
        residual={
            site: fraction_unexplained(*(real_rows(x[site], real).double() for x in (mine, theirs))) for site in sites
        },
        n=len(subject.examples.answer),
    )


def stream_sites(subject: Observed) -> list[str]:
    """The sites of the residual stream, in forward order."""
    return [site for site in subject.network.model.sites if site == "embed" or site.endswith(".residual")]


def _share(part: float, whole: float) -> float | None:
    return round(part / whole, DIGITS) if whole > 1e-9 else None


def of_union(known: Mapping[str, Observed]) -> dict[str, dict[str, Any]]:
    """What each of a model's circuits, and all of them together, leave unexplained of each task.

    Args:
        known: the circuits of one model by name, each on examples of its own task, all under one kind of ablation.

    Returns:
        By name: ``edges``, ``alone`` and ``together``, each as :func:`dark_matter`; and under ``""`` the union's
        ``edges`` and ``of``, all edges of the model.

    Raises:
        SparselitError: the circuits' ablations differ.
    """
    ablations = {circuit.network.ablation for circuit in known.values()}
    if len(ablations) != 1:
        raise SparselitError(f"circuits under several ablations have no union: {'; '.join(map(str, ablations))}")
    union = torch.stack([circuit.kept for circuit in known.values()]).any(0)
    found: dict[str, dict[str, Any]] = {}
    for name, circuit in known.items():
        found[name] = {
            "edges": circuit.network.edges.weights(circuit.kept),
            "alone": write(dark_matter(circuit)),
            "together": write(dark_matter(circuit.keeping(union))),
        }
    edges = next(iter(known.values())).network.edges
    found[""] = {"edges": edges.weights(union), "of": edges.weights(torch.ones_like(union))}
    return found
