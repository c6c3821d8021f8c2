"""Stability: what another sample, another order and another seed would have found.

Each rerun draws the discovery examples again with replacement (bootstrap: Efron 1979), lists the edges in a random
order, and gives the search another seed where it takes one. What all reruns share does not depend on those choices.
"""

from __future__ import annotations

import inspect
import random
import statistics
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits import search as searches
from sparselit.circuits.circuit import SearchRecord
from sparselit.circuits.criterion import holds, is_relative, measure
from sparselit.circuits.loaded import Loaded
from sparselit.circuits.run.granularity import RemovalUnits
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.search import Progress, Search
from sparselit.circuits.search.problem import Problem
from sparselit.circuits.sets import jaccard
from sparselit.errors import SparselitError
from sparselit.model.wiring import Place

DIGITS = 6


class Shuffled(Problem):
    """The same problem, with the units in a random order, in which a search and its certificate walk them.

    Attributes:
        seed: of the order.
    """

    seed = 0

    def removal_units(self, kept: Tensor) -> RemovalUnits:
        """What can be removed, by name, shuffled."""
        units = list(super().removal_units(kept).items())
        random.Random(self.seed).shuffle(units)
        return dict(units)


def search_of(record: SearchRecord, name: str | None = None) -> tuple[type[Search], dict[str, Any]]:
    """The class and the arguments of a circuit's search, or those of another of sparselit's by name.

    A circuit's file may come from anybody, so only sparselit's own searches are looked up in it.

    Args:
        record: what the circuit's file says of its search.
        name: class name of one of sparselit's searches; None for the circuit's own.

    Returns:
        The class and its arguments; those of a named search are its defaults.

    Raises:
        SparselitError: there is no such search.
    """
    known = {kind: getattr(searches, kind) for kind in searches.__all__}
    known = {kind: c for kind, c in known.items() if inspect.isclass(c) and issubclass(c, Search) and c is not Search}
    if name is not None:
        if name not in known:
            raise SparselitError(f"no search is called {name!r}; there are {', '.join(known)}")
        return known[name], {}
    module, _, own = record.class_path.rpartition(".")
    if own not in known or not module.startswith("sparselit."):
        raise SparselitError(f"the circuit's search {record.class_path} is none of sparselit's; name one of them")
    return known[own], dict(record.init_args)


def rerun(
    circuit: Loaded, kind: type[Search], arguments: Mapping[str, Any], seed: int, progress: Progress | None = None
) -> dict[str, Any]:
    """One more search for the circuit, from the full model, under the bounds that its own search had.

    Args:
        circuit: the circuit.
        kind: class of the search.
        arguments: its arguments; ``seed`` is replaced where it takes one.
        seed: of the sample, of the order and of the search.
        progress: called as (stage, edges left).

    Returns:
        ``seed``, ``places`` (edges and biases found, in the order of the forward pass) and ``holds`` (whether they meet
        the stated criterion on the report split); ``places`` is None where the full model misses the bounds on the
        sample.

    Raises:
        KeyboardInterrupt: the search was ended by Ctrl-C.
        SparselitError: the search refuses its arguments.
    """
    splits = circuit.behaviour.splits
    n = len(splits["discovery"].answer)
    sample = splits["discovery"].select(torch.randint(n, (n,), generator=torch.Generator().manual_seed(seed)))
    engine = NaiveEngine.of(circuit.model, circuit.ablation, {**splits, "discovery": sample})
    problem = Shuffled(engine, sample, circuit.problem.criterion, circuit.problem.granularity)
    problem.seed = seed
    if not problem.works(problem.all_edges()):
        return {"seed": seed, "places": None, "holds": False}
    taken = inspect.signature(kind).parameters
    try:
        search = kind(**{**arguments, **({"seed": seed} if "seed" in taken else {})})
    except TypeError as error:
        raise SparselitError(f"the search {kind.__name__} does not take its arguments: {error}") from error
    found = search.run(problem, progress=progress)
    if not found.complete:
        raise KeyboardInterrupt
    test = splits["report"]
    reference = problem.logits(problem.all_edges(), test) if is_relative(circuit.circuit.criterion) else None
    values = measure(problem.logits(found.kept, test), test, reference)
    places = [list(place) for place in problem.edges.places(found.kept)]
    return {"seed": seed, "places": places, "holds": holds(circuit.circuit.criterion, values)}


def summary(runs: Sequence[Mapping[str, Any]], own: Sequence[Place]) -> dict[str, Any]:
    """What the reruns have in common.

    Args:
        runs: results of :func:`rerun`.
        own: edges and biases of the circuit itself.

    Returns:
        ``runs`` (of which ``found`` a circuit, and ``hold`` on the report split), ``sizes`` (smallest, median,
        largest; biases counted), ``jaccard`` (mean and least of all pairs, and the mean with the circuit itself; None
        with fewer than two), ``distinct`` circuits, ``core`` (edges in all, and in at least 90 % of the reruns) and
        ``frequency``: ``[parameter, row, column, runs]``, the most frequent first.
    """
    found: list[tuple[Place, ...]] = [
        tuple((name, row, column) for name, row, column in run["places"]) for run in runs if run["places"] is not None
    ]
    count = Counter(place for places in found for place in places)
    pairs = [jaccard(one, other) for one, other in combinations(found, 2)]
    sizes = sorted(map(len, found))
    ordered = sorted(count.items(), key=lambda item: (-item[1], item[0]))
    return {
        "runs": len(runs),
        "found": len(found),
        "hold": sum(run["holds"] for run in runs),
        "sizes": [sizes[0], statistics.median(sizes), sizes[-1]] if sizes else None,
        "jaccard": {
            "mean": round(statistics.fmean(pairs), DIGITS) if pairs else None,
            "least": round(min(pairs), DIGITS) if pairs else None,
            "own": round(statistics.fmean(jaccard(own, places) for places in found), DIGITS) if found else None,
        },
        "distinct": len({frozenset(places) for places in found}),
        "core": {
            "all": sum(times == len(found) for times in count.values()),
            "90 %": sum(10 * times >= 9 * len(found) for times in count.values()),
        },
        "frequency": [[*place, times] for place, times in ordered],
    }
