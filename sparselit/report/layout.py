"""Where the nodes of a layered graph stand from left to right, so that few of its links cross.

The order within the rows is moved by barycentres (Sugiyama et al. 1981), then by exchanging neighbours. Lengths are
inches.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from sparselit.circuits.use.graph import NodeKey

SPACE = 0.11  # between nodes
Row = tuple[int, int]  # layer (-1 below the first), number in the layer
Thing = tuple[str, int]  # what has one x: a node, or a residual channel ("stream", channel)


class Boxed(Protocol):
    """A node with its size."""

    @property
    def row(self) -> Row:
        """Its row."""

    @property
    def thing(self) -> Thing:
        """What it shares its x with."""

    @property
    def group(self) -> tuple[str, int]:
        """Things of one group stand together."""

    @property
    def width(self) -> float:
        """Width of its box."""


class Columns:
    """Where things stand from left to right.

    Args:
        boxes: every node, in the order of the rows.
        links: what should stand close together; those from a token straight to a logit are left out.
        passed: the rows of a layer that the edges of its values pass on their way up.
    """

    def __init__(
        self,
        boxes: Mapping[NodeKey, Boxed],
        links: Sequence[tuple[NodeKey, NodeKey]],
        passed: Callable[[int], tuple[Row, Row]],
    ) -> None:
        number = {row: i for i, row in enumerate(dict.fromkeys(box.row for box in boxes.values()))}
        self.half: dict[Thing, dict[int, float]] = defaultdict(dict)  # by row
        for box in boxes.values():
            self.half[box.thing][number[box.row]] = box.width / 2
        for thing, taken in self.half.items():
            if thing[0].endswith(".attn.v"):  # its edges pass between the queries, the keys and their pattern
                layer = next(row[0] for row, i in number.items() if i in taken)
                taken.update({i: 0.05 for row, i in number.items() if row in passed(layer)})
            for row in range(min(taken), max(taken)):
                taken.setdefault(row, 0.05)  # the residual stream passes
        self.things = list(self.half)
        index = {thing: i for i, thing in enumerate(self.things)}
        groups = {box.thing: box.group for box in boxes.values()}
        first = {group: i for i, group in reversed(list(enumerate(groups.values())))}
        self.group = np.array([first[groups[thing]] for thing in self.things], dtype=int)
        links = [pair for pair in links if (pair[0][0], pair[1][0]) != ("token", "logits")]
        indices = [[index[boxes[node].thing] for node in pair] for pair in links]
        self.links = np.array(indices, dtype=int).reshape(-1, 2)
        self.band = np.array([number[boxes[source].row] for source, _ in links], dtype=int)
        self.degree = np.bincount(self.links.ravel(), minlength=len(self.things))

    def solve(self, refine: bool) -> dict[Thing, float]:
        """Left-aligned x by thing; ``refine`` searches longer for an order with few crossings."""
        n = len(self.things)
        if not n:
            return {}
        random = np.random.default_rng(0)
        starts = [np.arange(n), *(random.permutation(n) for _ in range(3 if refine else 0))]
        tried = []
        for start in starts:
            x = start.astype(float)
            for _ in range(25):
                order = self._order(self._pull(x))
                x = self._apart(self._pull(x), order)
                tried.append((self._cost(self._settle(x, order, 5)), order))
        cost, order = min(tried)
        better = refine
        while better:
            swapped, lower = self._swap(order, cost)
            better, cost, order = lower < cost, lower, swapped
        x = self._align(self._settle(np.argsort(order).astype(float), order, 100), order)
        left = min(x[i] - half for i, thing in enumerate(self.things) for half in self.half[thing].values())
        return {thing: float(x[i] - left) for i, thing in enumerate(self.things)}

    def _order(self, x: NDArray[np.float64]) -> list[int]:
        """Things from left to right, groups together."""
        middle = np.bincount(self.group, weights=x) / np.maximum(np.bincount(self.group), 1)
        own, shared = x.round(6).tolist(), middle[self.group].round(6).tolist()
        return sorted(range(len(x)), key=lambda i: (shared[i], self.group[i], own[i], i))

    def _swap(self, order: list[int], cost: float) -> tuple[list[int], float]:
        """Exchange things that are neighbours in some row, wherever that helps."""
        rows: dict[int, list[int]] = defaultdict(list)
        for i in order:
            for row in self.half[self.things[i]]:
                rows[row].append(i)
        sizes = np.bincount(self.group)[self.group]
        for a, b in sorted({pair for row in rows.values() for pair in pairwise(row)}):
            if self.group[a] == self.group[b] or sizes[a] == sizes[b] == 1:
                trial = [{a: b, b: a}.get(i, i) for i in order]
                x = self._settle(np.argsort(trial).astype(float), trial, 12)
                if (now := self._cost(x)) < cost - 1e-6:
                    order, cost = trial, now
        return order, cost

    def _settle(self, x: NDArray[np.float64], order: list[int], steps: int) -> NDArray[np.float64]:
        """Shorten the links without changing the order."""
        for _ in range(steps):
            x = self._apart(self._pull(x), order)
        return x

    def _align(self, x: NDArray[np.float64], order: list[int]) -> NDArray[np.float64]:
        """Put one thing after the other exactly above what it is linked to, as far as its neighbours leave room."""
        below: dict[int, list[int]] = defaultdict(list)
        above: dict[int, list[int]] = defaultdict(list)
        for a, b in self.links.tolist():
            above[a].append(b)
            below[b].append(a)
        room: dict[int, list[tuple[int, float]]] = defaultdict(list)  # signed distances to keep
        last: dict[int, int] = {}
        for i in order:
            for row, half in self.half[self.things[i]].items():
                if row in last:
                    distance = half + self.half[self.things[last[row]]][row] + SPACE
                    room[i].append((last[row], distance))
                    room[last[row]].append((i, -distance))
                last[row] = i
        for _ in range(100):
            for i in sorted({*below, *above}):
                # What only passes on stands straight above its source, so that paths are straight.
                passes = len(below[i]) == len(above[i]) == 1
                wanted = np.mean(x[below[i] if passes else below[i] + above[i]])
                low = max([x[j] + d for j, d in room[i] if d > 0], default=-np.inf)
                high = min([x[j] + d for j, d in room[i] if d < 0], default=np.inf)
                x[i] = min(max(wanted, low), high)
        return x

    def _pull(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        """Halfway towards the mean of what each thing is linked to; of everything, where it is linked to nothing."""
        total = np.zeros_like(x)
        np.add.at(total, self.links, x[self.links[:, ::-1]])
        return (x + np.where(self.degree > 0, total / np.maximum(self.degree, 1), x.mean())) / 2

    def _apart(self, x: NDArray[np.float64], order: list[int]) -> NDArray[np.float64]:
        """Push things apart, to both sides alike, until none overlap and every row is in this order."""
        return (self._push(x, order) - self._push(-x, order[::-1])) / 2

    def _push(self, x: NDArray[np.float64], order: list[int]) -> NDArray[np.float64]:
        pushed = x.copy()
        taken: dict[int, float] = {}
        for i in order:
            half = self.half[self.things[i]]
            pushed[i] = max([x[i], *(taken[row] + h + SPACE for row, h in half.items() if row in taken)])
            taken.update((row, pushed[i] + h) for row, h in half.items())
        return pushed

    def _cost(self, x: NDArray[np.float64]) -> float:
        """Crossings of links that start in one row, and a little for length."""
        tips = x[self.links]
        crossings = 0
        for band in np.unique(self.band):
            source, target = tips[self.band == band].T
            product = np.subtract.outer(source, source) * np.subtract.outer(target, target)
            crossings += int((product < -1e-9).sum()) // 2
        return crossings + 0.2 * float(np.abs(tips[:, 0] - tips[:, 1]).sum())
