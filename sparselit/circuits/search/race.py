"""A race for the smallest certified circuit: several searches, circuits made of theirs, and swaps."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import combinations

import torch
from torch import Tensor

from sparselit.circuits.search.attribution import Attribution
from sparselit.circuits.search.base import Found, Progress, certify, without
from sparselit.circuits.search.group_testing import GroupTesting
from sparselit.circuits.search.hard_concrete import HardConcrete
from sparselit.circuits.search.node_masks import NodeMasks
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.search.quick_xplain import QuickXplain
from sparselit.circuits.search.ranking import integrated_gradients
from sparselit.circuits.search.soft_masks import SoftMasks

#: One search's way to shrink a set; see :meth:`Search.shrink`.
Shrink = Callable[[Problem, Found, Progress], None]
#: Units up to which searches that go unit by unit begin with all of them, and not with what others have left.
FEW = 2000
#: Circuits that are crossed with each other, the smallest first, and rounds without a smaller one that end it.
PARENTS, PATIENCE = 3, 1
#: Most units that are tried as the one that replaces two.
POOL = 128


def race(problem: Problem, found: Found, progress: Progress, first: Shrink, seed: int) -> None:
    """Certify the circuits of several searches and go on from them; the smallest one is the result.

    Searches by gradient begin with everything, those by questions with the union of what was found, where there are
    many units. Then unions of two circuits are pruned, and single units put in so that two can go. Every circuit is
    certified; the sizes are in ``found.tried``. Ended early, the smallest certified circuit so far is the result.

    Args:
        problem: what is sought.
        found: its ``kept`` is what the race begins with.
        progress: called as (search and stage, units left).
        first: the search that goes first, from which a race that is ended at once has its result.
        seed: of the searches that draw.
    """
    everything = found.kept.clone()
    few = len(problem.removal_units(everything)) <= FEW
    entrants: list[Found] = []

    def run(name: str, shrink: Shrink, start: Tensor, into: Found | None = None) -> Found:
        entrant = Found(start.clone()) if into is None else into
        mine = _again(problem)
        mine.focus(entrant.kept)

        def told(stage: str, left: int) -> None:
            progress(f"{name}: {stage}", left)

        shrink(mine, entrant, told)
        certify(mine, entrant, told)
        found.tried[name] = int(entrant.kept.sum())
        entrants.append(entrant)
        return entrant

    try:
        run("first", first, everything, found)
        entrants[0] = Found(found.kept.clone(), dict(found.removals), complete=True)
        for name, shrink in _by_gradient(problem, seed, few):
            run(name, shrink, everything)
        for name, shrink in _by_questions():
            run(name, shrink, everything if few else _union(entrants))
        for name, shrink, start in _crossed(entrants, seed):
            run(name, shrink, start)
        for number, start in enumerate(_swapped(problem, entrants, progress), 1):
            run(f"swap {number}", GroupTesting("magnitude").shrink, start)
    finally:
        if entrants:
            best = min(entrants, key=_size)
            found.kept, found.removals, found.complete = best.kept, best.removals, best.complete
        problem.engine = problem.engine.on(problem.discovery)
        problem.focus(found.kept)


def _by_gradient(problem: Problem, seed: int, few: bool) -> Iterator[tuple[str, Shrink]]:
    if problem.granularity != "weight":
        return
    for number in range(3):
        yield f"SoftMasks {seed + number}", SoftMasks(seed=seed + number).shrink
    yield "NodeMasks", NodeMasks(seed=seed).shrink
    if few:
        yield "HardConcrete", HardConcrete(seed=seed).shrink


def _by_questions() -> Iterator[tuple[str, Shrink]]:
    yield "GroupTesting", GroupTesting().shrink
    yield "QuickXplain", QuickXplain().shrink
    yield "Attribution", Attribution().shrink


def _crossed(entrants: list[Found], seed: int) -> Iterator[tuple[str, Shrink, Tensor]]:
    """Prunings of the union of two circuits, as long as one of them gives a smaller circuit than all before."""
    idle = number = 0
    while idle < PATIENCE:
        smallest = _size(min(entrants, key=_size))
        for one, other in combinations(_distinct(entrants)[:PARENTS], 2):
            number += 1
            union = one.kept | other.kept
            yield f"cross {number}", SoftMasks(lr=0.05, batch=128, seed=seed + number).shrink, union
        idle = 0 if _size(min(entrants, key=_size)) < smallest else idle + 1


def _swapped(problem: Problem, entrants: list[Found], progress: Progress) -> Iterator[Tensor]:
    """Sets with one unit more and two units less than the smallest circuit, as long as there are any."""
    importance = integrated_gradients(_again(problem))
    while (smaller := _swap(problem, entrants, importance, progress)) is not None:
        yield smaller


def _swap(problem: Problem, entrants: list[Found], importance: Tensor, progress: Progress) -> Tensor | None:
    """One unit for two: first the units that most circuits have, then the most important ones."""
    best = min(entrants, key=_size).kept
    votes = torch.stack([entrant.kept for entrant in entrants]).sum(0)
    important = importance.argsort(descending=True, stable=True)[: 4 * POOL]
    pool = (votes > 0).index_fill(0, important, True)
    mine = _again(problem)
    mine.focus(pool)
    outside = list(mine.removal_units(pool & ~best).values())
    outside.sort(key=lambda unit: (int(votes[unit].sum()), float(importance[unit].sum())), reverse=True)
    inside = list(mine.removal_units(best).values())
    for unit in outside[:POOL]:
        larger = best.clone()
        larger[unit] = True
        for place, gone in enumerate(inside):
            progress("swap", int(best.sum()))
            less = without(larger, gone)
            if not mine.works(less):
                continue
            for other in inside[place + 1 :]:
                if mine.works(without(less, other)):
                    return without(less, other)
    return None


def _again(problem: Problem) -> Problem:
    """The same problem for sets that were not announced; what is spent on it counts as the problem's own."""
    other = Problem(
        problem.engine.on(problem.discovery),
        problem.discovery,
        problem.criterion,
        problem.granularity,
        problem.reference,
    )
    other.cost = problem.cost
    return other


def _distinct(entrants: list[Found]) -> list[Found]:
    """The circuits without repetitions, the smallest first."""
    different: dict[bytes, Found] = {}
    for entrant in sorted(entrants, key=_size):
        different.setdefault(entrant.kept.cpu().numpy().tobytes(), entrant)
    return list(different.values())


def _union(entrants: list[Found]) -> Tensor:
    return torch.stack([entrant.kept for entrant in entrants]).any(0)


def _size(entrant: Found) -> int:
    return int(entrant.kept.sum())
