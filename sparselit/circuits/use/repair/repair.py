"""A repair: errors found, an edit made by one of several ways, and everything that it changes elsewhere measured."""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch

from sparselit.circuits.criterion import measure
from sparselit.circuits.loaded import Recorded
from sparselit.circuits.use.intervene import compared
from sparselit.circuits.use.repair.baselines import fine_tuned, rank_one, read_out
from sparselit.circuits.use.repair.edit import Edit, Provenance, between
from sparselit.circuits.use.repair.objective import Cases, Entries, Objective, joined
from sparselit.circuits.use.repair.smallest import fitted, smallest
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges, Place
from sparselit.statistics.intervals import wilson

#: Prompts that a repair is fitted to at most: errors, and right ones that are to stay.
FITTED = 256
#: Ways to make an edit, and what each may change.
MAKERS = {
    "smallest": "the smallest change of at most --budget weights of the circuit, found one by one",
    "readout": "the shortest change of the circuit's unembedding weights, in closed form",
    "circuit": "fine-tuning of the circuit's own weights",
    "finetune": "fine-tuning of every parameter (baseline)",
    "rome": "a rank-one edit of the last MLP for each answer (baseline)",
    "random": "as many random weights of the model as --budget, fitted (baseline)",
}


@dataclass(frozen=True)
class Errors:
    """The errors of a model on some prompts.

    Attributes:
        cases: what a repair is fitted to.
        held_out: errors that it never sees.
        n: prompts that were looked at.
        wrong: how many of them the model answers wrongly.
    """

    cases: Cases
    held_out: Examples
    n: int
    wrong: int


@torch.no_grad()
def errors_of(model: Transformer, pool: Examples, keep: Examples, seed: int = 0) -> Errors:
    """What a model gets wrong, one half to repair with and the other to measure by.

    Args:
        model: as it is.
        pool: prompts to look at.
        keep: other prompts whose right answers are to stay, beside those among the ones that are looked at.
        seed: of the division.

    Raises:
        SparselitError: there are fewer than two errors, or nothing right to keep.
    """
    fine, known = (model(part.tokens, part.length - 1).argmax(-1) == part.answer for part in (pool, keep))
    numbers, stays = (truth.nonzero()[:, 0].tolist() for truth in (~fine, fine))
    others = known.nonzero()[:, 0][: FITTED // 2]
    if len(numbers) < 2 or not len(others):
        what = f"only {len(numbers)} of {len(pool.answer):,} prompts are wrong" if len(others) else "nothing is right"
        raise SparselitError(f"there is nothing to repair: {what}; give other prompts with --split or --prompts")
    rng = random.Random(seed)
    rng.shuffle(numbers)
    rng.shuffle(stays)
    half = (len(numbers) + 1) // 2
    right = [keep.select(others)] + ([pool.select(torch.tensor(stays[: FITTED // 2]))] if stays else [])
    return Errors(
        Cases(pool.select(torch.tensor(numbers[:half][:FITTED])), joined(right)),
        pool.select(torch.tensor(numbers[half:])),
        len(pool.answer),
        len(numbers),
    )


def repaired(
    model: Transformer, circuit: Recorded, errors: Errors, maker: str, budget: int = 5, seed: int = 0
) -> Transformer:
    """The model repaired in one of the ways of :data:`MAKERS`.

    Args:
        model: to be repaired; of the circuit's shape.
        circuit: whose places may change.
        errors: what to repair.
        maker: the way.
        budget: most weights that ``smallest`` changes, and as many as ``random`` does.
        seed: of the random weights.
    """
    objective = Objective(model, errors.cases)
    places = circuit.circuit.places
    ways: Mapping[str, Callable[[], Transformer]] = {
        "smallest": lambda: smallest(model, places, objective, budget),
        "readout": lambda: read_out(model, places, objective),
        "circuit": lambda: fine_tuned(model, objective, places),
        "finetune": lambda: fine_tuned(model, objective),
        "rome": lambda: rank_one(model, objective, errors.cases.right),
        "random": lambda: _random(model, objective, budget, seed),
    }
    return ways[maker]()


def _random(model: Transformer, objective: Objective, budget: int, seed: int) -> Transformer:
    edges = Edges.of(model)
    numbers = random.Random(seed).sample(range(len(edges)), min(budget, len(edges)))
    places: list[Place] = [edges.describe(number) for number in sorted(numbers)]
    entries = Entries(model, places)
    return entries.model(model, fitted(entries, entries.values, objective))


def edit_of(
    model: Transformer,
    other: Transformer,
    circuit: Recorded,
    errors: Errors | None,
    others: Mapping[str, Examples],
    provenance: Provenance,
) -> Edit:
    """The edit between two models, with everything measured that it changes.

    Args:
        model: before.
        other: after.
        circuit: whose task is meant.
        errors: what was to be repaired; None where nothing in particular was.
        others: prompts of other tasks, by name.
        provenance: of the edit.
    """
    edit = between(model, other, provenance)
    return replace(edit, scores=scores(model, other, edit, circuit, errors, others))


@torch.no_grad()
def scores(
    model: Transformer,
    other: Transformer,
    edit: Edit,
    circuit: Recorded,
    errors: Errors | None,
    others: Mapping[str, Examples],
) -> dict[str, Any]:
    """What an edit does: ``efficacy``, ``generalization``, ``specificity``, its size, and the circuit before and after.

    Efficacy is the share of errors that become right: of those it was fitted to, and of those held out. Before the edit
    it is 0 for both, since only errors are counted. Generalization is the accuracy on the splits that the circuit was
    not found on. Specificity is what happens to the task's own report split and to other tasks.
    """
    splits = circuit.behaviour.splits
    found: dict[str, Any] = {
        "weights": len(edit.deltas),
        "norm": round(edit.norm, 6),
        "relative_norm": round(edit.norm / _norm(model), 6),
    }
    if errors is not None:
        found["efficacy"] = {
            "fitted": _share(other, errors.cases.wrong),
            "held_out": _share(other, errors.held_out),
            "before": _share(model, errors.held_out),
        }
    both = {name: _effect(model, other, splits[name]) for name in ("report", "out_of_distribution") if name in splits}
    found["generalization"] = {name: part for name, part in both.items() if name != "report"}
    found["specificity"] = {"report": both["report"]} | {
        name: _effect(model, other, examples) for name, examples in others.items()
    }
    naive, report = circuit.engine.naive, splits["report"]
    found["circuit"] = {}
    for name, one in (("before", model), ("after", other)):
        engine = naive.in_model(one)
        numbers = engine.edges.numbers(circuit.circuit.places)
        kept = torch.zeros(len(engine.edges), dtype=torch.bool)
        kept[numbers[numbers >= 0]] = True
        values = measure(engine.logits(kept, report), report)
        found["circuit"][name] = {key: round(values[key], 6) for key in ("task_loss", "accuracy")}
    return found


def _norm(model: Transformer) -> float:
    return float(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]).norm())


def _share(model: Transformer, examples: Examples) -> dict[str, Any]:
    n = len(examples.answer)
    right = int((model(examples.tokens, examples.length - 1).argmax(-1) == examples.answer).sum()) if n else 0
    return {"share": round(right / n, 6) if n else 0.0, "interval": [round(x, 6) for x in wilson(right, n)], "n": n}


def _effect(model: Transformer, other: Transformer, examples: Examples) -> dict[str, Any]:
    at = examples.length - 1
    return compared(model(examples.tokens, at), other(examples.tokens, at), examples)
