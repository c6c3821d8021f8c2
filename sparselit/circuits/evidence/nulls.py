"""Nulls: what the same criterion says where there is nothing to find. These cost passes; ``null_searches`` searches."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable

import torch
from torch import Tensor

from sparselit.circuits.claims import Drawn, Nulls, NullScore, Orders, extended
from sparselit.circuits.criterion import Criterion, holds, measure
from sparselit.circuits.evidence.scores import DIGITS, Told, meets, score, silent
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import matrices
from sparselit.sparsity.projection import project_

NULL_EXAMPLES = 1024
RANDOM_CIRCUITS = 20
RANDOM_ORDERS = 3
ORDER_EXAMPLES = 256
#: Examples after which a random order's prefix is given up first; most are hopeless by far.
FIRST_OF_ORDER = 16
#: Edges of the nearest magnitudes among which a matched one is drawn.
NEAREST = 8


def nulls(circuit: Subnetwork, report: Examples, reference: Tensor, criterion: Criterion, told: Told = silent) -> Nulls:
    """What the same criterion says where there is nothing to find.

    ``random_circuits``: as many random edges of each matrix as the circuit has. ``magnitude_matched``: other edges of
    nearly the same magnitudes. ``random_orders``: edges a random order needs until the criterion holds, by bisection.
    ``shuffled_answers``: the full model, scored by the answers of other prompts. ``untrained_model``: a fresh
    initialisation with as many non-zeros in each matrix.

    Args:
        circuit: the circuit in its model.
        report: the report split, of which the first examples are used.
        reference: the full model's logits on it.
        criterion: the stated bounds.
        told: called with what is being computed.
    """
    report, full = report.select(slice(0, NULL_EXAMPLES)), reference[:NULL_EXAMPLES]
    few = report.select(slice(0, ORDER_EXAMPLES))
    needed = [_edges_needed(circuit, seed, few, full, criterion, told) for seed in range(RANDOM_ORDERS)]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(report.answer), generator=generator).to(report.answer.device)
    shuffled = report._replace(answer=report.answer[order], wrong=report.wrong[order])
    told("untrained model")
    untrained = circuit.engine.answers_of(untrained_model(circuit.model), report)
    return Nulls(
        random_circuits=_drawn(random_circuit, circuit, report, full, criterion, told),
        magnitude_matched=_drawn(matched_circuit, circuit, report, full, criterion, told),
        random_orders=Orders(edges_needed=tuple(needed), median=int(statistics.median(needed)), n=len(few.answer)),
        shuffled_answers=_null(full, shuffled, full[order], criterion),
        untrained_model=_null(untrained, report, full, criterion),
    )


def _drawn(
    draw: Callable[[Subnetwork, int], Tensor],
    circuit: Subnetwork,
    examples: Examples,
    reference: Tensor,
    criterion: Criterion,
    told: Told,
) -> Drawn:
    """The best and the middle of some random circuits."""
    draws = []
    for seed in range(RANDOM_CIRCUITS):
        told("random circuits")
        draws.append(measure(circuit.keeping(draw(circuit, seed)).logits(examples), examples, reference))
    losses = sorted(draw["task_loss"] for draw in draws)
    return Drawn(
        draws=len(draws),
        meet_criterion=sum(holds(criterion, draw) for draw in draws),
        task_loss_best=round(losses[0], DIGITS),
        task_loss_median=round(statistics.median(losses), DIGITS),
        accuracy_best=round(max(draw["accuracy"] for draw in draws), DIGITS),
        n=len(examples.answer),
    )


def _null(logits: Tensor, examples: Examples, reference: Tensor, criterion: Criterion) -> NullScore:
    values = score(logits, examples, reference)
    return extended(NullScore, values, meets_criterion=holds(criterion, values.metrics))


def random_circuit(circuit: Subnetwork, seed: int) -> Tensor:
    """As many random edges of each matrix as the circuit has there, boolean (edge,).

    Args:
        circuit: the circuit whose size is matched, matrix by matrix.
        seed: of the draw.
    """
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(circuit.kept)
    for here in circuit.edges.members:
        count = int(circuit.kept[here].sum())
        chosen[here[torch.randperm(len(here), generator=generator)[:count]]] = True
    return chosen


def matched_circuit(circuit: Subnetwork, seed: int) -> Tensor:
    """For each edge of the circuit another of the same matrix and nearly the same magnitude, boolean (edge,).

    Each is drawn among the eight edges outside of the circuit, not drawn yet, whose magnitudes are nearest. Where a
    matrix has no more of them, the circuit's own are taken, since the number of edges is to be the same.

    Args:
        circuit: the circuit whose edges are matched.
        seed: of the draw.
    """
    rng = random.Random(seed)
    edges, kept = circuit.edges, circuit.kept
    chosen = torch.zeros_like(kept)
    for name, here in zip(edges.names, edges.members, strict=True):
        parameter = circuit.model.get_parameter(name).detach().cpu()
        size = parameter[(edges.row[here], edges.column[here])[: parameter.ndim]].abs().double()
        inside, left = kept[here].nonzero()[:, 0].tolist(), ~kept[here]  # indices into ``here``
        rng.shuffle(inside)
        spare = list(inside)
        for index in inside:
            nearest = _nearest(size, size[index], left)
            if nearest:
                other = rng.choice(nearest)
                left[other] = False
            else:
                other = spare.pop()
            chosen[here[other]] = True
    return chosen


def _nearest(size: Tensor, target: Tensor, left: Tensor) -> list[int]:
    """Indices of the sizes nearest to ``target`` among those that are ``left``, the first ones where several are."""
    indices = left.nonzero()[:, 0]
    distance = (size[indices] - target).abs()
    if len(indices) > NEAREST:
        close = distance <= distance.kthvalue(NEAREST).values
        indices, distance = indices[close], distance[close]
    nearest: list[int] = indices[distance.argsort(stable=True)[:NEAREST]].tolist()
    return nearest


def _edges_needed(
    circuit: Subnetwork, seed: int, examples: Examples, reference: Tensor, criterion: Criterion, told: Told
) -> int:
    """Smallest prefix of a random order at which the criterion holds, by bisection (exact where it is monotone)."""
    total = len(circuit.edges)
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    low, high = 0, total
    while low < high:
        told("random orders")
        middle = (low + high) // 2
        prefix = torch.zeros(total, dtype=torch.bool)
        prefix[order[:middle]] = True
        if meets(circuit.keeping(prefix), examples, reference[: len(examples.answer)], criterion, FIRST_OF_ORDER):
            high = middle
        else:
            low = middle + 1
    return high


def untrained_model(model: Transformer, seed: int = 0) -> Transformer:
    """A fresh initialisation of the same architecture with as many non-zeros in each matrix as ``model`` has.

    Args:
        model: the trained model; it is not changed.
        seed: of the initialisation and of the non-zeros.
    """
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)
        fresh = Transformer(**model.config)
        for name in matrices(model):
            count = int((model.get_parameter(name) != 0).sum())
            parameter = fresh.get_parameter(name)
            if count:
                project_(parameter, count)
            else:
                parameter.zero_()
    weight = next(model.parameters())
    return fresh.to(weight.device, weight.dtype).eval()
