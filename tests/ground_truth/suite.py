"""The suite: which cases there are, what is known of each, and which searches and rankings are held against them.

A further search is one more entry of :data:`SEARCHES`; every test of ``test_suite`` then runs for it as well.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial

import torch
from torch import Tensor

from sparselit.circuits.search import (
    Attribution,
    Auto,
    GroupTesting,
    HardConcrete,
    NodeMasks,
    OneByOne,
    QuickXplain,
    Search,
    SoftMasks,
    Sweep,
)
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.ranking import integrated_gradients

from .attention_cases import bracket_depth, induction, inhibiting_quotes
from .cases import Case, conjunction, copy_last, copy_offset, identity_with_cancelling_pair, match_quotes
from .compiled_cases import compiled_frac_prevs, compiled_reverse
from .gate_cases import exclusive_or, identity_with_two_menders, neither

#: Searches that end in a 1-minimal circuit, by name; each is made anew for every problem.
SEARCHES: dict[str, Callable[[], Search]] = {
    "group testing": GroupTesting,
    "QuickXplain": QuickXplain,
    "one by one": OneByOne,
    "sweep": Sweep,
    "soft masks": lambda: SoftMasks(steps=60),
    "hard concrete": lambda: HardConcrete(steps=60),
    "node masks": lambda: NodeMasks(steps=60),
    "coarse to fine": lambda: Auto(steps=60),
    "race": lambda: Auto("thorough", steps=60),
    **{
        f"attribution by {ranking}": partial(Attribution, ranking)  # type: ignore[arg-type]
        for ranking in ("integrated_mask", "integrated_inputs", "gradient", "magnitude", "random")
    },
}


@dataclass(frozen=True)
class Ranking:
    """A ranking, and how well it must do.

    Attributes:
        rank: importance of every edge, larger for what matters more.
        floor: smallest AUROC against the necessary weights that a unique case may give.
        exceptions: smaller floors, by case.
    """

    rank: Callable[[Problem], Tensor]
    floor: float
    exceptions: Mapping[str, float] = field(default_factory=dict)


#: Measured: 0.98 to 1; 0.85 on the compiled program, where weights that cancel out have gradients on the way.
RANKINGS = {
    "integrated gradients": Ranking(integrated_gradients, 0.98, {"compiled frac_prevs": 0.84}),
}

#: Under zero ablation the necessary weights are a circuit, and no weight of it can go.
UNIQUE: dict[str, Callable[[], Case]] = {
    "copy the last token": copy_last,
    "copy at an offset": copy_offset,
    "match quotes": match_quotes,
    "match quotes, inhibiting": inhibiting_quotes,
    "induction": induction,
    "bracket depth": bracket_depth,
    "conjunction": conjunction,
    "exclusive or": exclusive_or,
    "compiled frac_prevs": compiled_frac_prevs,
}
#: Several minimal circuits, each of which holds the necessary weights.
SEVERAL: dict[str, Callable[[], Case]] = {
    "duplicated path": lambda: conjunction(quiet=0, paths=2),
    "neither": lambda: neither(quiet=0),
    "neither, with quiet weights": neither,
    "induction, with room": lambda: induction(loss=0.05),
}
#: Weights are necessary only while others are there that no circuit needs. Read at its last position, the compiled
#: program copies the first token, which a part of it can do that the whole one does not use for it.
NOT_MONOTONE: dict[str, Callable[[], Case]] = {
    "identity with a cancelling pair": identity_with_cancelling_pair,
    "identity with two menders": identity_with_two_menders,
    "compiled reverse": compiled_reverse,
}
CASES = {**UNIQUE, **SEVERAL, **NOT_MONOTONE}
#: Cases that are small enough to look at every set of their edges.
ENUMERATED: dict[str, Callable[[], Case]] = {
    "duplicated path": SEVERAL["duplicated path"],
    "neither": SEVERAL["neither"],
    "conjunction, bare": lambda: conjunction(quiet=0),
    "exclusive or, bare": lambda: exclusive_or(quiet=0),
}


def auroc(importance: Tensor, positive: Tensor) -> float:
    """Chance that a necessary weight ranks above one that is not; ties count half.

    Args:
        importance: (edge,) ranking.
        positive: boolean (edge,), the necessary weights.
    """
    above = importance[positive][:, None] - importance[~positive][None, :]
    return float(((above > 0).double() + 0.5 * (above == 0).double()).mean()) if torch.any(~positive) else 1.0
