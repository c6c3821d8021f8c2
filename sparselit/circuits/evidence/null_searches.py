"""Nulls that need a search: how many edges the same search needs where there is nothing to find.

The size of a circuit says something only beside the size that the same search, ablation and loss give for a target that
the model was never trained for, and for a model that was never trained (Drori 2026). A bound on the divergence from the
full model is a bound of the nulls too: what they must agree with is the full model *relabelled*, the same distribution
with the logits of the task's and of the null's answer exchanged, so that it can be met in principle and is as tight.
Each null's edges are written down, so that ``verify`` can show that the claimed size meets the bounds without repeating
a search.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.claims import Place, SearchedNull
from sparselit.circuits.criterion import RELATIVE, Bound, Criterion, holds, is_relative, margin, measure
from sparselit.circuits.evidence.nulls import untrained_model
from sparselit.circuits.evidence.scores import DIGITS, rounded
from sparselit.circuits.run.ablation import Ablation, prepare
from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.run.masked import answer_logits
from sparselit.circuits.search import Found, Progress, Search
from sparselit.circuits.search.learned import furthest
from sparselit.circuits.search.node_masks import heaviside
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges

#: Longest that the search of one null may take; a later end makes its size an upper bound, not ``complete``.
SECONDS = 300.0
#: Descents to a set of edges that works where the whole model does not: learning rate and steps.
DESCENTS = ((0.1, 100), (0.3, 300))
#: Steps between two tries.
TRY_EVERY = 20
#: Metrics that a null's criterion keeps: the loss of its own target, and the divergence from the model relabelled.
KEPT = ("task_loss", "answer_loss", *RELATIVE)


def constant_target(examples: Examples) -> Examples:
    """One and the same answer for every prompt: the first token that is no prompt's answer."""
    used = set(examples.answer.tolist()) | set(examples.wrong.tolist())
    token = next(token for token in range(len(used) + 1) if token not in used)
    return examples._replace(answer=torch.full_like(examples.answer, token), wrong=examples.answer)


def nonsense_target(examples: Examples) -> Examples:
    """One of the task's answers, chosen by a hash of the whole prompt: fixed for each prompt, without any rule."""
    candidates = sorted(set(examples.answer.tolist()))
    chosen = []
    for tokens, length in zip(examples.tokens.tolist(), examples.length.tolist(), strict=True):
        digest = hashlib.sha256(",".join(map(str, tokens[:length])).encode()).digest()
        chosen.append(int.from_bytes(digest[:8], "big") % len(candidates))
    answers = torch.tensor([candidates[i] for i in chosen], device=examples.answer.device)
    others = torch.tensor([candidates[(i + 1) % len(candidates)] for i in chosen], device=examples.answer.device)
    return examples._replace(answer=answers, wrong=others)


def swapped_target(examples: Examples) -> Examples:
    """The competing answer of each prompt: a rule as simple as the task's, for which the model was never trained."""
    return examples._replace(answer=examples.wrong, wrong=examples.answer)


#: What the same model is asked for instead of the task.
TARGETS: Mapping[str, Callable[[Examples], Examples]] = {
    "constant_target": constant_target,
    "nonsense_target": nonsense_target,
    "swapped_target": swapped_target,
}
NAMES = (*TARGETS, "untrained_model")


def subject_of(name: str, model: Transformer, examples: Examples) -> tuple[Transformer, Examples]:
    """Model and examples of a null: another target, or the task in an untrained model.

    Raises:
        SparselitError: the name is unknown, or every token is an answer so that there is no constant one.
    """
    if name == "untrained_model":
        return untrained_model(model), examples
    if name not in TARGETS:
        raise SparselitError(f"no null is called {name!r}; choose from {', '.join(NAMES)}")
    other = TARGETS[name](examples)
    if int(other.answer.max()) >= model.unembed.out_features:
        raise SparselitError(f"{name}: every token of the vocabulary is an answer of this task")
    return model, other


@torch.no_grad()
def relabelled(model: Transformer, examples: Examples, other: Examples) -> Tensor:
    """What a faithful circuit for a null would give: the model's answer logits with two of them exchanged.

    Those of the task's answer and of the null's, prompt by prompt (example, vocabulary); where both are one, as in an
    untrained model, they stay.

    Args:
        model: the trained model.
        examples: the task.
        other: the null's examples, of the same prompts.
    """
    logits = model(examples.tokens, examples.length - 1)
    pair = torch.stack([examples.answer, other.answer], dim=1)
    return logits.scatter(1, pair, logits.gather(1, pair.flip(1)))


def null_problem(
    name: str,
    model: Transformer,
    examples: Examples,
    bounds: Criterion,
    ablation: str | Mapping[str, Any] | Ablation = "zero",
    granularity: Granularity = "weight",
    splits: Mapping[str, Examples] | None = None,
) -> Problem:
    """The problem of a null; a bound on a divergence compares with :func:`relabelled`.

    Args:
        name: one of :data:`NAMES`.
        model: the trained model.
        examples: the task's discovery split.
        bounds: what the null has to meet, losses and divergences.
        ablation: as that of the circuit.
        granularity: as that of the circuit.
        splits: the behaviour's splits, for the ablation's means.

    Raises:
        SparselitError: as :func:`subject_of`.
    """
    subject, other = subject_of(name, model, examples)
    reference = relabelled(model, examples, other) if is_relative(bounds) else None
    return Problem(subject, other, bounds, ablation, granularity, splits, reference)


def null_bounds(criterion: Criterion, reached: float) -> list[Bound]:
    """The losses and divergences of a criterion; where it bounds none, the loss that the circuit reaches.

    Args:
        criterion: the search's bounds.
        reached: the circuit's task loss on the discovery split, nats.
    """
    kept = [bound for bound in criterion if bound.metric in KEPT]
    return kept or [Bound("task_loss", at_most=round(reached, DIGITS))]


def searched_nulls(
    problem: Problem,
    kept: Tensor,
    splits: Mapping[str, Examples],
    search: Search,
    progress: Progress | None = None,
    seconds: float = SECONDS,
) -> dict[str, SearchedNull]:
    """How many edges the same search needs for each null until loss and divergence hold, on the discovery split.

    Args:
        problem: the circuit's problem.
        kept: the circuit, boolean (edge,).
        splits: the behaviour's splits, for the ablation's means.
        search: the search that found it.
        progress: called as (stage, edges left).
        seconds: longest that each may take.

    Returns:
        By null what was found. A null that does not apply is left out.
    """
    bounds = null_bounds(problem.criterion, problem.values(kept)["task_loss"])
    found = {}
    for name in NAMES:
        try:
            null = null_problem(
                name, problem.model, problem.discovery, bounds, problem.ablation, problem.granularity, splits
            )
        except SparselitError:
            continue
        found[name] = _searched(null, search, progress, time.monotonic() + seconds)
    return found


def _searched(problem: Problem, search: Search, progress: Progress | None, deadline: float) -> SearchedNull:
    start, values = working_set(problem, deadline)
    if start is None:
        return _row(problem, None, values)
    result = search.run(problem, start, progress, deadline)
    return _row(problem, result, problem.values(result.kept))


def _row(problem: Problem, found: Found | None, values: Mapping[str, float]) -> SearchedNull:
    kept = None if found is None else found.kept
    weights = None if kept is None else int((kept & ~problem.edges.is_bias).sum())
    places = [] if kept is None else [Place(*problem.edges.describe(i)) for i in kept.nonzero()[:, 0].tolist()]
    return SearchedNull(
        bounds=tuple(problem.criterion),
        edges=weights,
        complete=found is not None and found.complete,
        reached=rounded({bound.metric: values[bound.metric] for bound in problem.criterion}),
        split="discovery",
        n=len(problem.discovery.answer),
        places=tuple(places),
    )


def working_set(problem: Problem, deadline: float | None = None) -> tuple[Tensor | None, dict[str, float]]:
    """A set of edges that meets the criterion, also where all edges together do not.

    First all edges, then a supermask (Zhou et al. 2019): one gate for each edge, open or closed in the forward pass,
    and trained through the derivative of a sigmoid to lower the loss alone (of several bounded metrics the one that
    stands worst beside its bound); slowly, then fast. Its seed is fixed.

    Args:
        problem: what is sought; at least one loss or divergence is bounded.
        deadline: reading of the monotonic clock, seconds, at which to give up.

    Returns:
        The edges, boolean (edge,), or None where none were found; and the metrics of the best set that was tried.
    """
    everything = problem.all_edges()
    best = problem.values(everything)
    if holds(problem.criterion, best):
        return everything, best
    for rate, steps in DESCENTS:
        for opened in _supermask(problem, rate, steps):
            values = problem.values(opened)
            if holds(problem.criterion, values):
                return opened, values
            best = max(best, values, key=lambda each: margin(problem.criterion, each))
            if deadline is not None and time.monotonic() > deadline:
                return None, best
    return None, best


def _supermask(problem: Problem, rate: float, steps: int) -> Iterator[Tensor]:
    """The open edges, boolean (edge,), every few steps of a descent on the loss."""
    examples, n = problem.discovery, len(problem.discovery.answer)
    bounds = [bound for bound in problem.criterion if bound.at_most is not None]
    generator = torch.Generator().manual_seed(0)
    gates = torch.ones(len(problem.edges), requires_grad=True)
    optimizer = torch.optim.SGD([gates], lr=rate, momentum=0.9)
    for step in range(1, steps + 1):
        chosen = torch.randint(n, (min(128, n),), generator=generator).to(examples.answer.device)
        some, reference = examples.select(chosen), None if problem.reference is None else problem.reference[chosen]
        with torch.enable_grad():
            loss = furthest(bounds, problem.soft_logits(heaviside(gates), some), some, reference)
            (gradient,) = torch.autograd.grad(loss, gates)
        # All equally fast, as with Adam, both ends of a path close at once, and neither can open the other again.
        gates.grad = gradient / gradient.abs().max().clamp(min=1e-9)
        problem.cost.forwards += 1
        problem.cost.backwards += 1
        optimizer.step()
        if step % TRY_EVERY == 0:
            yield gates.detach() > 0


@torch.no_grad()
def recomputed(
    claimed: Mapping[str, SearchedNull],
    bounds: Sequence[Bound],
    model: Transformer,
    splits: Mapping[str, Examples],
    ablation: Ablation,
) -> dict[str, SearchedNull]:
    """What a file's searched nulls claim, computed again by the plain masked forward pass of the edges that they name.

    Where none was found there is no set of edges to run, so that part of the claim stands as it is.

    Args:
        claimed: by null, as :func:`searched_nulls` gives them.
        bounds: what was sought.
        model: the full model.
        splits: the behaviour's splits.
        ablation: what a removed edge contributes.
    """
    found: dict[str, SearchedNull] = {}
    for name, row in claimed.items():
        task = splits["discovery"]
        other, examples = subject_of(name, model, task)
        edges = Edges.of(other, ablation.removes_biases)
        again = replace(row, bounds=tuple(bounds), n=len(examples.answer), split="discovery")
        if row.edges is not None:
            try:
                kept = edges.find([(name, i, j) for name, i, j in row.places])
            except KeyError:
                kept = torch.zeros(len(edges), dtype=torch.bool)
            replacement = prepare(other, ablation, splits)
            reference = relabelled(model, task, examples)
            values = measure(answer_logits(other, edges, replacement, kept, examples), examples, reference)
            reached = int((kept & ~edges.is_bias).sum()) if holds(bounds, values) else None
            again = replace(
                again, edges=reached, reached=rounded({bound.metric: values[bound.metric] for bound in bounds})
            )
        found[name] = again
    return found
