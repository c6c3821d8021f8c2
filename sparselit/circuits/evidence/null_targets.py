"""What the nulls that need a search are searched for, and whether what such a search has found is true.

The searches themselves are in :mod:`sparselit.circuits.evidence.null_searches`; nothing here needs one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from sparselit.circuits.claims import SearchedNull
from sparselit.circuits.criterion import RELATIVE, Bound, Criterion, holds, measure
from sparselit.circuits.evidence.nulls import untrained_model
from sparselit.circuits.evidence.scores import DIGITS, rounded
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.data.examples import Examples
from sparselit.errors import SparselitError
from sparselit.model.transformer import Transformer

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


#: What the same model is searched for instead of the task.
TARGETS: Mapping[str, Callable[[Examples], Examples]] = {
    "constant_target": constant_target,
    "nonsense_target": nonsense_target,
    "swapped_target": swapped_target,
}
NAMES = (*TARGETS, "untrained_model")


def subject_of(name: str, model: Transformer, examples: Examples) -> tuple[Transformer, Examples]:
    """Model and examples of a null: another target, or the task in an untrained model.

    Args:
        name: one of :data:`NAMES`.
        model: the trained model.
        examples: the task.

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


def applicable(model: Transformer, examples: Examples) -> list[str]:
    """The nulls that a model and a task have, by name."""
    found = []
    for name in NAMES:
        try:
            subject_of(name, model, examples)
        except SparselitError:
            continue
        found.append(name)
    return found


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


def null_bounds(criterion: Criterion, reached: float) -> list[Bound]:
    """The losses and divergences of a criterion; where it bounds none, the loss that the circuit reaches.

    Args:
        criterion: the search's bounds.
        reached: the circuit's task loss on the discovery split, nats.
    """
    kept = [bound for bound in criterion if bound.metric in KEPT]
    return kept or [Bound("task_loss", at_most=round(reached, DIGITS))]


@torch.no_grad()
def recomputed(
    claimed: Mapping[str, SearchedNull], bounds: Sequence[Bound], engine: NaiveEngine, task: Examples
) -> dict[str, SearchedNull]:
    """What a file's searched nulls claim, computed again by the plain masked forward pass of the edges that they name.

    Where none was found there is no set of edges to run, so that part of the claim stands as it is.

    Args:
        claimed: by null, as :func:`searched_nulls` gives them.
        bounds: what was sought.
        engine: the full model and the circuit's ablation, on the naive path.
        task: the task's discovery split.
    """
    found: dict[str, SearchedNull] = {}
    for name, row in claimed.items():
        other, examples = subject_of(name, engine.model, task)
        null = engine if other is engine.model else engine.in_model(other)
        again = replace(row, bounds=tuple(bounds), n=len(examples.answer), split="discovery")
        if row.edges is not None:
            try:
                kept = null.edges.find(row.places)
            except KeyError:
                kept = ~null.everything()
            reference = relabelled(engine.model, task, examples)
            values = measure(null.logits(kept, examples), examples, reference)
            reached = null.edges.weights(kept) if holds(bounds, values) else None
            again = replace(
                again, edges=reached, reached=rounded({bound.metric: values[bound.metric] for bound in bounds})
            )
        found[name] = again
    return found
