"""What a circuit claims, row by row: the claim in words, its value, interval and n, and whether the number bears it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

from sparselit.circuits.circuit import FOR_THE_RECORD, Circuit
from sparselit.circuits.claims import Score, Worst
from sparselit.circuits.criterion import holds
from sparselit.circuits.evidence.assumptions import assumptions
from sparselit.circuits.evidence.flags import FLAGS, HALF
from sparselit.report.facts import counted, interval_text, percent, visible
from sparselit.report.terminal import DID_NOT_GENERALISE, minimal

#: ``holds`` and ``fails`` only where a number was compared with a bound; all else is a measurement.
Verdict = Literal["holds", "fails", ""]


@dataclass(frozen=True)
class Row:
    """One line of the evidence.

    Attributes:
        section: what it belongs to.
        claim: in words.
        value: what was measured.
        interval: 95 %, empty where there is none.
        n: examples or runs, empty where there are none.
        verdict: what the number says of the claim.
    """

    section: str
    claim: str
    value: str
    interval: str = ""
    n: str = ""
    verdict: Verdict = ""


def evidence_data(circuit: Circuit) -> dict[str, Any]:
    """The rows, and sentences on what is not shown."""
    rows = [
        *_record(circuit),
        *_sufficient(circuit),
        *_necessary(circuit),
        *_nulls(circuit),
        *_inside(circuit),
        *_others(circuit),
        *_unexplained(circuit),
        *_flags(circuit),
    ]
    return {"rows": [{k: visible(v) for k, v in asdict(row).items()} for row in rows], "unshown": not_shown(circuit)}


def _judged(truth: bool) -> Verdict:
    return "holds" if truth else "fails"


def _accuracy(section: str, claim: str, score: Score, verdict: Verdict = "") -> Row:
    interval = interval_text(score.accuracy_interval, "to")
    return Row(section, f"{claim}: right answers", percent(score.accuracy), interval, f"{score.n:,}", verdict)


def _loss(section: str, claim: str, score: Score, verdict: Verdict = "") -> Row:
    return Row(
        section,
        f"{claim}: task loss (nats)",
        f"{score.task_loss:.4f}",
        _ends(score.task_loss_interval),
        f"{score.n:,}",
        verdict,
    )


def _ends(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0]:.4f} to {interval[1]:.4f}"


def _record(circuit: Circuit) -> Iterator[Row]:
    section = "The record"
    if circuit.seal == "broken":
        yield Row(section, "it is as it was written", "seal broken: it was edited", "", "", "fails")
    if not circuit.generalises:
        yield Row(section, "what was found generalises", DID_NOT_GENERALISE, "", "", "fails")


def _sufficient(circuit: Circuit) -> Iterator[Row]:
    section, evidence = "Sufficient: only these edges", circuit.evidence
    held_out = evidence.held_out
    intervals = {name: getattr(held_out, f"{name}_interval", None) for name in held_out.metrics}
    for bound in circuit.criterion:
        ends = intervals.get(bound.metric)
        text = "" if ends is None else interval_text(ends, "to") if bound.metric == "accuracy" else _ends(ends)
        value = percent(bound.value) if bound.metric == "accuracy" else f"{bound.value:.4f}"
        measured = holds([bound], {bound.metric: bound.value})
        yield Row(section, f"criterion, report split: {bound}", value, text, f"{held_out.n:,}", _judged(measured))
    yield _accuracy(section, "the circuit, report split", held_out)
    yield _loss(section, "the circuit, report split", held_out)
    yield _accuracy(section, "the full model, beside it", evidence.full_model)
    yield _loss(section, "the full model, beside it", evidence.full_model)
    if held_out.margin_min is not None:
        claim = "the smallest margin of the right answer over the wrong one (logits)"
        yield Row(section, claim, f"{held_out.margin_min:.4f}", "", f"{held_out.n:,}", _judged(held_out.margin_min > 0))
    for name, score in (held_out.strata if len(held_out.strata) > 1 else {}).items():
        yield _accuracy(section, f"prompts of kind {name}", score)
    shifted = evidence.out_of_distribution
    if shifted is not None:
        met = holds(circuit.criterion, shifted.metrics)
        yield _accuracy(section, "out of distribution, criterion held against it", shifted, _judged(met))
        yield _loss(section, "out of distribution", shifted)


def _necessary(circuit: Circuit) -> Iterator[Row]:
    section, evidence, certificate = "Necessary: without these edges", circuit.evidence, circuit.certificate
    broken = not holds(circuit.criterion, evidence.complement.metrics)
    claim = "the full model without exactly these edges fails the criterion"
    yield _accuracy(section, claim, evidence.complement, _judged(broken))
    yield _loss(section, "the full model without exactly these edges", evidence.complement)
    needed = evidence.necessity
    text = f"{needed.still_necessary:,} of {needed.edges:,}"
    every = needed.still_necessary == needed.edges
    yield Row(section, "edges whose removal alone breaks it here", text, "", f"{needed.n:,}", _judged(every))
    bounds = ", ".join(map(str, certificate.criterion))
    claim = (
        f"{minimal(certificate.granularity, len(certificate.removals))} under {bounds} on the {certificate.split} split"
    )
    margin = f"smallest margin {certificate.min_margin:.3g}" if certificate.complete else "unfinished, search stopped"
    yield Row(section, claim, margin, "", f"{certificate.n:,}", "holds" if certificate.complete else "")


def _nulls(circuit: Circuit) -> Iterator[Row]:
    section, nulls = "Nulls: where there is nothing to find", circuit.evidence.nulls
    drawn = {"random circuits of this size": nulls.random_circuits}
    drawn |= {"random circuits of like magnitudes": nulls.magnitude_matched} if nulls.magnitude_matched else {}
    for name, row in drawn.items():
        value = f"{row.meet_criterion} of {row.draws}; best loss {row.task_loss_best:.3g}"
        yield Row(section, f"{name} that meet the criterion", value, "", f"{row.n:,}", _judged(not row.meet_criterion))
    orders = nulls.random_orders
    value = f"{orders.median:,} (median of {len(orders.edges_needed)}; here {circuit.size.edges:,})"
    yield Row(section, "edges needed when they come in random order", value, "", f"{orders.n:,}")
    for name, null in (
        ("the answers of other prompts", nulls.shuffled_answers),
        ("an untrained model", nulls.untrained_model),
    ):
        claim = f"with {name} the criterion is not met: right answers"
        yield _accuracy(section, claim.removesuffix(": right answers"), null, _judged(not null.meets_criterion))
    for name, found in (nulls.searched or {}).items():
        value = "none found" if found.edges is None else f"{counted(found.edges, 'edge')}"
        value += "" if found.complete or found.edges is None else ", search unfinished"
        yield Row(section, f"the same search for: {name.replace('_', ' ')}", value, "", f"{found.n:,}")


def _inside(circuit: Circuit) -> Iterator[Row]:
    section, inside = "Inside: does it work as the model does?", circuit.evidence.faithfulness
    if inside is None:
        return
    compared: Mapping[str, Worst] = {
        "the circuit's values put into the model": inside.interchange.into_full,
        "the model's values put into the circuit": inside.interchange.into_circuit,
        "a random half of all other edges in place": inside.random_halves,
        "all other edges opened step by step": inside.relaxation,
    }
    n = f"{inside.n:,}"
    for name, row in compared.items():
        value = f"{row.meet_criterion} of {row.runs} meet it; worst loss {row.worst_loss:.3g}"
        yield Row(section, f"{name}: the criterion holds", value, "", n, _judged(row.meet_criterion == row.runs))
    for name, share in inside.activations.items():
        if share.rescaled is not None:
            claim = f"{name}: variance of its nodes that the circuit does not have (after the best scale and shift)"
            yield Row(section, claim, percent(share.rescaled, 1), "", n, "" if share.rescaled <= HALF else "fails")
    for head, attended in inside.attention.items():
        claim = f"{head}: attention that goes elsewhere than in the full model, mean"
        value = f"{percent(attended.total_variation, 1)}; worst {percent(attended.total_variation_max, 1)}"
        yield Row(section, claim, value, "", n, "" if attended.total_variation <= HALF else "fails")
    if inside.other_norm is not None:
        met = holds(circuit.criterion, inside.other_norm.metrics)
        yield _accuracy(
            section, f"the criterion holds with norms {inside.other_norm.norm}", inside.other_norm, _judged(met)
        )


def _others(circuit: Circuit) -> Iterator[Row]:
    """The same edges with the worst of the others put back, and under other ablations."""
    section, evidence = "In other company", circuit.evidence
    for kind, score in (evidence.other_ablations or {}).items():
        yield _accuracy(section, f"the same edges under {kind} ablation (kl {score.kl:.3g})", score, "")
    row = evidence.adversary
    if row is not None:
        for name, score in (("whole edges, greedily", row.greedy), ("shares, by gradient", row.gradient)):
            claim = f"at most {row.budget} of the other edges put back, the worst that were found ({name})"
            yield _accuracy(section, claim, score, _judged(holds(circuit.criterion, score.metrics)))


def _unexplained(circuit: Circuit) -> Iterator[Row]:
    section, evidence = "Not explained", circuit.evidence
    n = f"{evidence.held_out.n:,}"
    claim = "share of the loss that the full model saves over an empty circuit"
    yield Row(section, claim, percent(evidence.unexplained, 1), "", n)
    dark = evidence.dark_matter
    if dark is not None:
        shares = {"of the divergence from the full model": dark.kl}
        shares |= {f"of the variance of the residual stream at {name}": share for name, share in dark.residual.items()}
        for name, value in shares.items():
            if value is not None and math.isfinite(value):
                yield Row(section, f"share {name}", percent(value, 1), "", f"{dark.n:,}")


def _flags(circuit: Circuit) -> Iterator[Row]:
    section, names = "Flags: what speaks against it", circuit.evidence.flags
    if names == ():
        yield Row(section, "no flag is raised", "0", "", "", "holds")
    for name in names or ():
        yield Row(section, FLAGS.get(name, name), name.replace("_", " "), "", "", "fails")


def not_shown(circuit: Circuit) -> list[str]:
    """Sentences on what the file holds no evidence for."""
    evidence = circuit.evidence
    assumed = assumptions(circuit.ablation, circuit.criterion, circuit.certificate.granularity)
    sentences = [
        "Edges are removed one by one, never in pairs: two that stand in for each other would both look unnecessary.",
        "Another circuit that does as well may exist; `sparselit stability` searches again and again.",
        *(f"Assumed of the {row.name}: {row}." for row in assumed),
    ]
    sentences.append(f"For the record only, as nothing in the files can show it: {', '.join(FOR_THE_RECORD)}.")
    if not evidence.nulls.searched:
        sentences.append(
            "The size is not controlled: no search was run where there is nothing to find (evidence: full)."
        )
    if evidence.adversary is None:
        sentences.append("The edges outside that do most harm when put back were not sought (evidence: full).")
    if evidence.faithfulness is None:
        sentences.append("Whether it works inside as the full model does was not measured.")
    if evidence.out_of_distribution is None:
        sentences.append("There are no prompts out of distribution.")
    if evidence.flags is None:
        sentences.append("Flags were not computed: the file is of an older version.")
    return [visible(sentence) for sentence in sentences]
