"""Flags: what in the evidence speaks against a circuit, by name, with a threshold and the reason for it.

Where a run is compared with the criterion, the threshold is the criterion itself and nothing is tuned: a circuit claims
that the rest does not matter, so that no way of ablating the rest may break the task. The two thresholds that are
numbers are halves: beyond them a node, or a head, is more unlike itself in the full model than like it.
"""

from __future__ import annotations

from collections.abc import Mapping

from sparselit.circuits.claims import Evidence
from sparselit.circuits.criterion import Criterion, holds

#: Share of a node's variance, or of a head's attention, that may be different in the circuit.
HALF = 0.5
#: How many times the real circuit's edges a null has to need.
TIMES = 10

#: What each flag says.
FLAGS: Mapping[str, str] = {
    "full_model": "the full model itself does not meet the criterion, so the circuit does what the model does not",
    "report": "the criterion fails on the report split",
    "activations": "at some site the circuit's nodes share less than half of their variance with the full model's, "
    "even rescaled",
    "attention": "a head puts more than half of its attention elsewhere than in the full model",
    "interchange_into_full": "the full model fails the criterion with the circuit's values at some site",
    "interchange_into_circuit": "the circuit fails the criterion with the full model's values at some site",
    "random_halves": "with a random half of the other edges in place the criterion fails",
    "adversary": "with the worst of the other edges put back the criterion fails",
    "relaxation": "on the way from the circuit to the full model the criterion fails",
    "other_norm": "the criterion holds only because norms are live (or only because they are frozen)",
    "random_circuits": "a random circuit of the same size meets the criterion",
    "magnitude_matched": "a random circuit of the same size and magnitudes meets the criterion",
    "shuffled_answers": "the full model meets the criterion with the answers of other prompts",
    "untrained_model": "an untrained model meets the criterion",
    "searched_nulls": f"a search finds a circuit less than {TIMES} times as large where there is nothing to find",
}


def flags(evidence: Evidence, criterion: Criterion, edges: int) -> tuple[str, ...]:
    """The names of the flags that the evidence raises, in the order of :data:`FLAGS`.

    Args:
        evidence: all other parts of it.
        criterion: the stated bounds.
        edges: weights of the circuit.
    """
    inside, nulls = evidence.faithfulness, evidence.nulls
    found = {
        "full_model": not holds(criterion, evidence.full_model.metrics),
        "report": not holds(criterion, evidence.held_out.metrics),
        "random_circuits": nulls.random_circuits.meet_criterion > 0,
        "magnitude_matched": nulls.magnitude_matched is not None and nulls.magnitude_matched.meet_criterion > 0,
        "shuffled_answers": nulls.shuffled_answers.meets_criterion,
        "untrained_model": nulls.untrained_model.meets_criterion,
        "searched_nulls": any(
            null.edges is not None and null.edges < TIMES * edges
            for name, null in (nulls.searched or {}).items()
            if name != "constant_target"  # which a bias or two give in any model, and which nobody takes for a finding
        ),
    }
    if evidence.adversary is not None:
        rows = (evidence.adversary.greedy, evidence.adversary.gradient)
        found["adversary"] = not all(holds(criterion, row.metrics) for row in rows)
    if inside is not None:
        compared = {
            "interchange_into_full": inside.interchange.into_full,
            "interchange_into_circuit": inside.interchange.into_circuit,
            "random_halves": inside.random_halves,
            "relaxation": inside.relaxation,
        }
        other = inside.other_norm
        found |= {name: row.meet_criterion < row.runs for name, row in compared.items()}
        found["activations"] = any((row.rescaled or 0.0) > HALF for row in inside.activations.values())
        found["attention"] = any(row.total_variation > HALF for row in inside.attention.values())
        found["other_norm"] = other is not None and not holds(criterion, other.metrics)
    return tuple(name for name in FLAGS if found.get(name))
