"""Nulls: what the same criterion says where there is nothing to find. These cost passes; ``null_searches`` searches."""

from __future__ import annotations

import random
import statistics

import torch
from torch import Tensor

from sparselit.circuits.claims import Drawn, Nulls, NullScore, Orders, extended
from sparselit.circuits.criterion import Criterion, holds, measure
from sparselit.circuits.evidence.scores import DIGITS, LogitsOf, meets, score
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, matrices
from sparselit.sparsity.projection import project_

NULL_EXAMPLES = 1024
RANDOM_CIRCUITS = 20
RANDOM_ORDERS = 3
ORDER_EXAMPLES = 256
#: Edges of the nearest magnitudes among which a matched one is drawn.
NEAREST = 8


def nulls(
    model: Transformer,
    edges: Edges,
    kept: Tensor,
    behaviour: Behaviour,
    reference: Tensor,
    criterion: Criterion,
    logits_of: LogitsOf,
) -> Nulls:
    """What the same criterion says where there is nothing to find.

    ``random_circuits``: as many random edges of each matrix as the circuit has. ``magnitude_matched``: other edges of
    nearly the same magnitudes. ``random_orders``: edges a random order needs until the criterion holds, by bisection.
    ``shuffled_answers``: the full model, scored by the answers of other prompts. ``untrained_model``: a fresh
    initialisation with as many non-zeros in each matrix.
    """
    report, full = behaviour.splits["report"].select(slice(0, NULL_EXAMPLES)), reference[:NULL_EXAMPLES]
    few = report.select(slice(0, ORDER_EXAMPLES))
    needed = [_edges_needed(len(kept), seed, few, full, criterion, logits_of) for seed in range(RANDOM_ORDERS)]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(report.answer), generator=generator).to(report.answer.device)
    shuffled = report._replace(answer=report.answer[order], wrong=report.wrong[order])
    with torch.no_grad():
        untrained = untrained_model(model)(report.tokens, report.length - 1)
    return Nulls(
        random_circuits=_drawn(
            [random_circuit(edges, kept, seed) for seed in range(RANDOM_CIRCUITS)], report, full, criterion, logits_of
        ),
        magnitude_matched=_drawn(
            [matched_circuit(model, edges, kept, seed) for seed in range(RANDOM_CIRCUITS)],
            report,
            full,
            criterion,
            logits_of,
        ),
        random_orders=Orders(edges_needed=tuple(needed), median=int(statistics.median(needed)), n=len(few.answer)),
        shuffled_answers=_null(full, shuffled, full[order], criterion),
        untrained_model=_null(untrained, report, full, criterion),
    )


def _drawn(
    circuits: list[Tensor], examples: Examples, reference: Tensor, criterion: Criterion, logits_of: LogitsOf
) -> Drawn:
    """The best and the middle of some random circuits."""
    draws = [measure(logits_of(circuit, examples), examples, reference) for circuit in circuits]
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


def random_circuit(edges: Edges, kept: Tensor, seed: int) -> Tensor:
    """As many random edges of each matrix as ``kept`` has there."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(kept)
    for i in range(len(edges.names)):
        here = (edges.matrix == i).nonzero()[:, 0]
        count = int(kept[here].sum())
        chosen[here[torch.randperm(len(here), generator=generator)[:count]]] = True
    return chosen


def matched_circuit(model: Transformer, edges: Edges, kept: Tensor, seed: int) -> Tensor:
    """For each edge of ``kept`` (edge,) another of the same matrix and nearly the same magnitude, boolean (edge,).

    Each is drawn among the eight edges outside of the circuit, not drawn yet, whose magnitudes are nearest. Where a
    matrix has no more of them, the circuit's own are taken, since the number of edges is to be the same.
    """
    rng = random.Random(seed)
    chosen = torch.zeros_like(kept)
    for i, name in enumerate(edges.names):
        here = (edges.matrix == i).nonzero()[:, 0]
        parameter = model.get_parameter(name).detach().cpu()
        size = parameter[(edges.row[here], edges.column[here])[: parameter.ndim]].abs()
        mine = kept[here]
        inside, outside = here[mine].tolist(), here[~mine].tolist()
        sizes = dict(zip(here.tolist(), size.tolist(), strict=True))
        rng.shuffle(inside)
        spare = list(inside)
        for edge in inside:
            nearest = sorted(outside, key=lambda other: abs(sizes[other] - sizes[edge]))[:NEAREST]
            pool, other = (outside, rng.choice(nearest)) if nearest else (spare, spare[-1])
            pool.remove(other)
            chosen[other] = True
    return chosen


def _edges_needed(
    total: int, seed: int, examples: Examples, reference: Tensor, criterion: Criterion, logits_of: LogitsOf
) -> int:
    """Smallest prefix of a random order at which the criterion holds, by bisection (exact where it is monotone)."""
    order = torch.randperm(total, generator=torch.Generator().manual_seed(seed))
    low, high = 0, total
    while low < high:
        middle = (low + high) // 2
        prefix = torch.zeros(total, dtype=torch.bool)
        prefix[order[:middle]] = True
        if meets(prefix, examples, reference[: len(examples.answer)], criterion, logits_of):
            high = middle
        else:
            low = middle + 1
    return high


def untrained_model(model: Transformer, seed: int = 0) -> Transformer:
    """A fresh initialisation of the same architecture with as many non-zeros in each matrix as ``model`` has."""
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
    return fresh.to(next(model.parameters()).device).eval()
