"""The evidence for a circuit: sufficiency, necessity, held-out scores, nulls, and what it leaves unexplained.

Every function takes the path by which logits are computed, so that the discovery may use a fast one and ``verify`` the
naive one. Numbers carry their split and n; shares carry a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sparselit.circuits.claims import Complement, Evidence, HeldOut, Necessity, Score, SearchedNull, extended
from sparselit.circuits.criterion import Criterion, measure
from sparselit.circuits.evidence.dark_matter import dark_matter
from sparselit.circuits.evidence.faithfulness import EXAMPLES, Subject, faithfulness
from sparselit.circuits.evidence.flags import flags
from sparselit.circuits.evidence.nulls import nulls
from sparselit.circuits.evidence.scores import DIGITS, LogitsOf, by_stratum, meets, score
from sparselit.circuits.run.ablation import Replacement
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges


def collect(
    model: Transformer,
    edges: Edges,
    kept: Tensor,
    behaviour: Behaviour,
    criterion: Criterion,
    logits_of: LogitsOf,
    replacement: Replacement,
    searched: Mapping[str, SearchedNull] | None = None,
    works: Callable[[Tensor], bool] | None = None,
) -> Evidence:
    """All evidence for the circuit ``kept`` under the stated criterion.

    Args:
        model: the full model.
        edges: its edges.
        kept: the circuit, boolean (edge,).
        behaviour: the splits.
        criterion: the stated bounds (not the tighter ones of the search).
        logits_of: how logits are computed.
        replacement: what a removed edge contributes.
        searched: the nulls that need a search, where there are some.
        works: whether the criterion holds on the report split with only these edges; default by ``logits_of``.
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

    def scored(examples: Examples) -> Score:
        return score(logits_of(kept, examples), examples, logits_of(everything, examples))

    def sufficient(trial: Tensor) -> bool:
        return meets(trial, report, of_model, criterion, logits_of)

    subject = Subject(model, edges, replacement, kept, report.select(slice(0, EXAMPLES)))
    evidence = Evidence(
        full_model=score(of_model, report, of_model),
        sufficiency={split: scored(examples) for split, examples in behaviour.splits.items() if split in _USED},
        held_out=extended(HeldOut, score(of_circuit, report, of_model), split="report", strata=strata),
        out_of_distribution=None if shifted is None else scored(shifted),
        necessity=necessity(edges, kept, len(report.answer), works or sufficient),
        complement=extended(Complement, score(logits_of(~kept, report), report, of_model), split="report"),
        faithfulness=faithfulness(subject, criterion),
        nulls=replace(nulls(model, edges, kept, behaviour, of_model, criterion, logits_of), searched=searched),
        unexplained=round((loss["circuit"] - loss["full"]) / gain, DIGITS) if gain else 0.0,
        dark_matter=dark_matter(subject),
        flags=(),
    )
    return replace(evidence, flags=flags(evidence, criterion, int((kept & ~edges.is_bias).sum())))


_USED = ("discovery", "selection")


def necessity(edges: Edges, kept: Tensor, n: int, works: Callable[[Tensor], bool]) -> Necessity:
    """In how many cases the removal of one edge still breaks the stated criterion on the report split of ``n``."""
    needed = 0
    weights = (kept & ~edges.is_bias).nonzero()[:, 0].tolist()
    for index in weights:
        trial = kept.clone()
        trial[index] = False
        needed += not works(trial)
    return Necessity(split="report", still_necessary=needed, edges=len(weights), n=n)
