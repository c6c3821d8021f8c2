"""Assumptions of identification: what a circuit's edges are the answer to, and which observation would refute it.

Another ablation, other means, another criterion, coarser units, or edges told apart by position are other questions,
with other circuits for answers. Every report on a circuit lists these.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from sparselit.circuits.criterion import Bound
from sparselit.circuits.run.ablation import Ablation


class Assumption(NamedTuple):
    """One of them.

    Attributes:
        name: what it is about.
        text: what is assumed.
        refuted: what would refute the circuit there, behind "if".
    """

    name: str
    text: str
    refuted: str

    def __str__(self) -> str:
        return f"{self.text}; refuted if {self.refuted}"


_REMOVED = {
    "zero": "a removed edge contributes nothing",
    "mean": "a removed edge contributes its mean",
    "resample": "a removed edge contributes what it does on the corrupted prompt",
}
_NORMS = {"live": "norms are computed anew from what is left", "frozen": "norms keep the full model's scale"}
_PER = {"all": "one mean for all positions", "token": "one mean for each token", "position": "one for each position"}


def assumptions(ablation: Ablation, criterion: Sequence[Bound], granularity: str) -> list[Assumption]:
    """What a circuit's edges and its size rest on.

    Args:
        ablation: what removed edges contribute.
        criterion: the stated bounds.
        granularity: what was removed as one.
    """
    unit = "edge" if granularity == "weight" else granularity
    found = [
        Assumption(
            "ablation",
            f"{_REMOVED[ablation.kind]}, and {_NORMS[ablation.norm]}",
            "the same edges miss the criterion under another ablation",
        )
    ]
    if ablation.kind == "mean":
        found.append(
            Assumption(
                "means",
                f"means are those of the {ablation.distribution} prompts, {_PER[ablation.per or 'all']}",
                "they miss it with the means of other prompts",
            )
        )
    if ablation.kind == "resample":
        found.append(
            Assumption(
                "means",
                "there are none: each prompt has one corrupted prompt of the task",
                "they miss it with other corrupted prompts",
            )
        )
    return [
        *found,
        Assumption(
            "criterion",
            f"to do the task is {' and '.join(map(str, criterion))}, over all prompts together",
            "it fails on a kind of prompt, or by another metric",
        ),
        Assumption(
            "granularity",
            f"what can go is found by removing one {unit} at a time",
            f"there is a smaller circuit, or two {unit}s can go together",
        ),
        Assumption(
            "position",
            "an edge is a weight: it stays or goes at all positions alike",
            "an edge does something else at another position",
        ),
    ]
