"""The evidence for a circuit: sufficiency, necessity, held-out scores, nulls, and what it leaves unexplained.

Every function takes the path by which logits are computed, so that the discovery may use a fast one and ``verify`` the
naive one. Numbers carry their split and n; shares carry a 95 % interval.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.behaviour import Behaviour
from sparselit.circuits.criterion import Criterion, Evaluation, holds, measure
from sparselit.circuits.intervals import wilson
from sparselit.circuits.wiring import Edges, matrices
from sparselit.examples import Examples
from sparselit.sparsity.projection import project_
from sparselit.transformer import Transformer

#: Answer logits (example, vocabulary) of the model with only the given edges, boolean (edge,).
LogitsOf = Callable[[Tensor, Examples], Tensor]
DIGITS = 6
NULL_EXAMPLES = 1024
RANDOM_CIRCUITS = 20
RANDOM_ORDERS = 3
ORDER_EXAMPLES = 256


def rounded(values: Mapping[str, float]) -> dict[str, float]:
    """Values as they are written to files."""
    return {name: round(value, DIGITS) for name, value in values.items()}


def score(logits: Tensor, examples: Examples, reference: Tensor) -> dict[str, Any]:
    """Every metric with n and the accuracy's 95 % interval; ``reference`` are the full model's logits."""
    values: dict[str, Any] = rounded(measure(logits, examples, reference))
    n = len(examples.answer)
    low, high = wilson(values["accuracy"] * n, n)
    return {**values, "accuracy_interval": [round(low, DIGITS), round(high, DIGITS)], "n": n}


def by_stratum(logits: Tensor, examples: Examples, reference: Tensor, strata: list[str]) -> dict[str, Any]:
    """:func:`score` per stratum; strata without examples are left out."""
    chosen = {name: examples.stratum == i for i, name in enumerate(strata)}
    return {name: score(logits[c], examples.select(c), reference[c]) for name, c in chosen.items() if c.any()}


def collect(
    model: Transformer, edges: Edges, kept: Tensor, behaviour: Behaviour, criterion: Criterion, logits_of: LogitsOf
) -> dict[str, Any]:
    """All evidence for the circuit ``kept`` under the stated criterion.

    Args:
        model: the full model.
        edges: its edges.
        kept: the circuit, boolean (edge,).
        behaviour: the splits.
        criterion: the stated bounds (not the tighter ones of the search).
        logits_of: how logits are computed.
    """
    report = behaviour.splits["report"]
    everything = torch.ones_like(kept)
    of_circuit, of_model = logits_of(kept, report), logits_of(everything, report)
    loss = {
        "circuit": measure(of_circuit, report)["task_loss"],
        "full": measure(of_model, report)["task_loss"],
        "empty": measure(logits_of(torch.zeros_like(kept), report), report)["task_loss"],
    }
    gain = loss["empty"] - loss["full"]  # zero where the edges do nothing for the task
    strata = by_stratum(of_circuit, report, of_model, list(behaviour.strata))
    shifted = behaviour.splits.get("out_of_distribution")

    def scored(examples: Examples) -> dict[str, Any]:
        return score(logits_of(kept, examples), examples, logits_of(everything, examples))

    return {
        "full_model": score(of_model, report, of_model),
        "sufficiency": {split: scored(examples) for split, examples in behaviour.splits.items() if split in _USED},
        "held_out": {"split": "report", **score(of_circuit, report, of_model), "strata": strata},
        "out_of_distribution": None if shifted is None else scored(shifted),
        "necessity": necessity(edges, kept, report, of_model, criterion, logits_of),
        "complement": {"split": "report", **score(logits_of(~kept, report), report, of_model)},
        "nulls": nulls(model, edges, kept, behaviour, of_model, criterion, logits_of),
        "unexplained": round((loss["circuit"] - loss["full"]) / gain, DIGITS) if gain else 0.0,
    }


_USED = ("discovery", "selection")


def necessity(
    edges: Edges, kept: Tensor, examples: Examples, reference: Tensor, criterion: Criterion, logits_of: LogitsOf
) -> dict[str, Any]:
    """In how many cases the removal of one edge still breaks the stated criterion on the report split."""
    needed = 0
    weights = (kept & ~edges.is_bias).nonzero()[:, 0].tolist()
    for index in weights:
        trial = kept.clone()
        trial[index] = False
        needed += not _meets(trial, examples, reference, criterion, logits_of)
    return {"split": "report", "still_necessary": needed, "edges": len(weights), "n": len(examples.answer)}


def _meets(kept: Tensor, examples: Examples, reference: Tensor, criterion: Criterion, logits_of: LogitsOf) -> bool:
    """Whether the criterion holds with only ``kept``; stops where it is hopeless."""
    return Evaluation(criterion, lambda part: logits_of(kept, examples.select(part)), examples, reference).holds()


def nulls(
    model: Transformer,
    edges: Edges,
    kept: Tensor,
    behaviour: Behaviour,
    reference: Tensor,
    criterion: Criterion,
    logits_of: LogitsOf,
) -> dict[str, Any]:
    """What the same criterion says where there is nothing to find.

    ``random_circuits``: as many random edges of each matrix as the circuit has. ``random_orders``: edges a random order
    needs until the criterion holds, by bisection. ``shuffled_answers``: the full model, scored by
    the answers of other prompts. ``untrained_model``: a fresh initialisation with as many non-zeros in each matrix.
    """
    report, full = behaviour.splits["report"].select(slice(0, NULL_EXAMPLES)), reference[:NULL_EXAMPLES]
    random_circuits = [random_circuit(edges, kept, seed) for seed in range(RANDOM_CIRCUITS)]
    draws = [measure(logits_of(random, report), report, full) for random in random_circuits]
    losses = sorted(draw["task_loss"] for draw in draws)
    few = report.select(slice(0, ORDER_EXAMPLES))
    needed = [_edges_needed(len(kept), seed, few, full, criterion, logits_of) for seed in range(RANDOM_ORDERS)]
    generator = torch.Generator().manual_seed(0)
    order = torch.randperm(len(report.answer), generator=generator).to(report.answer.device)
    shuffled = report._replace(answer=report.answer[order], wrong=report.wrong[order])
    with torch.no_grad():
        untrained = untrained_model(model)(report.tokens, report.length - 1)
    return {
        "random_circuits": {
            "draws": len(draws),
            "meet_criterion": sum(holds(criterion, draw) for draw in draws),
            "task_loss_best": round(losses[0], DIGITS),
            "task_loss_median": round(statistics.median(losses), DIGITS),
            "accuracy_best": round(max(draw["accuracy"] for draw in draws), DIGITS),
            "n": len(report.answer),
        },
        "random_orders": {"edges_needed": needed, "median": int(statistics.median(needed)), "n": len(few.answer)},
        "shuffled_answers": _null(full, shuffled, full[order], criterion),
        "untrained_model": _null(untrained, report, full, criterion),
    }


def _null(logits: Tensor, examples: Examples, reference: Tensor, criterion: Criterion) -> dict[str, Any]:
    values = score(logits, examples, reference)
    return {"meets_criterion": holds(criterion, values), **values}


def random_circuit(edges: Edges, kept: Tensor, seed: int) -> Tensor:
    """As many random edges of each matrix as ``kept`` has there."""
    generator = torch.Generator().manual_seed(seed)
    chosen = torch.zeros_like(kept)
    for i in range(len(edges.names)):
        here = (edges.matrix == i).nonzero()[:, 0]
        count = int(kept[here].sum())
        chosen[here[torch.randperm(len(here), generator=generator)[:count]]] = True
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
        if _meets(prefix, examples, reference[: len(examples.answer)], criterion, logits_of):
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
