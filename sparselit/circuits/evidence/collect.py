"""The evidence for a circuit: sufficiency, necessity, held-out scores, nulls, and what it leaves unexplained.

The circuit brings the engine by which logits are computed: the discovery's is fast, that of ``verify`` naive. Numbers
carry their split and n; shares carry a 95 % interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from sparselit.circuits.claims import Complement, Evidence, HeldOut, Necessity, Score, SearchedNull, extended
from sparselit.circuits.criterion import Criterion, measure
from sparselit.circuits.evidence.dark_matter import dark_matter, stream_sites
from sparselit.circuits.evidence.faithfulness import EXAMPLES, faithfulness
from sparselit.circuits.evidence.flags import flags
from sparselit.circuits.evidence.nulls import nulls
from sparselit.circuits.evidence.other_ways import PutBack, attacked, other_ablations
from sparselit.circuits.evidence.scores import DIGITS, Told, by_stratum, meets, score, silent
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.wiring import Edges


def collect(
    circuit: Subnetwork,
    behaviour: Behaviour,
    criterion: Criterion,
    searched: Mapping[str, SearchedNull] | None = None,
    works: Callable[[Tensor], bool] | None = None,
    told: Told = silent,
    put_back: PutBack | None = None,
) -> Evidence:
    """All evidence for a circuit under the stated criterion.

    Args:
        circuit: the circuit in its model; its engine says how logits are computed.
        behaviour: the splits.
        criterion: the stated bounds (not the tighter ones of the search).
        searched: the nulls that need a search, where there are some.
        works: whether the criterion holds on the report split with only these edges; default by the circuit's engine.
        told: called with what is being computed.
        put_back: the worst edges outside, where they were sought.
    """
    told("scores")
    report, kept = behaviour.splits["report"], circuit.kept
    of_circuit, of_model = circuit.logits(report), circuit.whole.logits(report)
    loss = {
        "circuit": measure(of_circuit, report)["task_loss"],
        "full": measure(of_model, report)["task_loss"],
        "empty": measure(circuit.keeping(torch.zeros_like(kept)).logits(report), report)["task_loss"],
    }
    gain = loss["empty"] - loss["full"]  # zero where the edges do nothing for the task
    strata = by_stratum(of_circuit, report, of_model, list(behaviour.strata))
    shifted = behaviour.splits.get("out_of_distribution")

    def scored(examples: Examples) -> Score:
        return score(circuit.logits(examples), examples, circuit.whole.logits(examples))

    def sufficient(trial: Tensor) -> bool:
        return meets(circuit.keeping(trial), report, of_model, criterion)

    subject = circuit.watched(report.select(slice(0, EXAMPLES)))
    for run in (subject, subject.whole):  # once, for all that looks inside
        run.recorded([*subject.nodes, *stream_sites(subject)])
    evidence = Evidence(
        full_model=score(of_model, report, of_model),
        sufficiency={split: scored(examples) for split, examples in behaviour.splits.items() if split in _USED},
        held_out=extended(HeldOut, score(of_circuit, report, of_model), split="report", strata=strata),
        out_of_distribution=None if shifted is None else scored(shifted),
        necessity=necessity(circuit.edges, kept, len(report.answer), works or sufficient, told),
        complement=extended(Complement, score(circuit.keeping(~kept).logits(report), report, of_model), split="report"),
        faithfulness=faithfulness(subject, criterion, told),
        nulls=replace(nulls(circuit, report, of_model, criterion, told), searched=searched),
        unexplained=round((loss["circuit"] - loss["full"]) / gain, DIGITS) if gain else 0.0,
        dark_matter=dark_matter(subject),
        flags=(),
        other_ablations=other_ablations(circuit, behaviour.splits),
        adversary=None if put_back is None else attacked(circuit, put_back, report, of_model, criterion),
    )
    return replace(evidence, flags=flags(evidence, criterion, circuit.edges.weights(kept)))


_USED = ("discovery", "selection")


def necessity(edges: Edges, kept: Tensor, n: int, works: Callable[[Tensor], bool], told: Told = silent) -> Necessity:
    """In how many cases the removal of one edge still breaks the stated criterion on the report split of ``n``.

    Args:
        edges: the model's edges.
        kept: the circuit's, boolean (edge,).
        n: examples of the report split.
        works: whether the criterion holds on the report split with a set of edges (edge,).
        told: called with what is being computed.
    """
    needed = 0
    weights = (kept & ~edges.is_bias).nonzero()[:, 0].tolist()
    for index in weights:
        told("necessity")
        trial = kept.clone()
        trial[index] = False
        needed += not works(trial)
    return Necessity(split="report", still_necessary=needed, edges=len(weights), n=n)
