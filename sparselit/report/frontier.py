"""The frontier of a sweep: capability against the size of circuits, as a table, words and a figure."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparselit.errors import SparselitError
from sparselit.report.facts import percent
from sparselit.statistics.frontier import Interval, Run, centre, front, hypervolume, interval, resampled

#: Accuracy from which on a task says nothing more of capability.
CEILING = 0.999
#: Figures that are better when smaller, and how they are called.
CAPABILITIES = {"loss": "held-out loss, nats", "error": "share of wrong answers"}
SIZES = {"edges": "edges of the circuit", "nodes": "nodes of the circuit", "nonzeros": "non-zero weights of the model"}


@dataclass(frozen=True)
class FrontierRun:
    """One run of a sweep.

    Attributes:
        setting: its settings without the seed, in words.
        seed: of the run.
        parameters: of the model.
        nonzeros: parameters that are not zero.
        density: of the sparsified tensors; None for a dense model.
        loss: on the report split, or on the selection split of data without one, nats.
        accuracy: on the report split, in [0, 1].
        edges: geometric mean over the tasks' circuits; None where a task has none.
        nodes: the same of nodes.
        certified: every circuit is certified and meets its bounds on the report split.
        folder: of the run.
    """

    setting: str
    seed: int | None
    parameters: int
    nonzeros: int
    density: float | None
    loss: float
    accuracy: float
    edges: float | None
    nodes: float | None
    certified: bool
    folder: str

    def costs(self, capability: str, size: str) -> Run:
        """Both axes; a run without a circuit has the whole model for one."""
        found = {"edges": self.edges, "nodes": self.nodes, "nonzeros": self.nonzeros}[size]
        return (self.loss if capability == "loss" else 1 - self.accuracy), max(1.0, found or self.nonzeros)


class Frontier:
    """What the runs of a sweep say together.

    Args:
        runs: at least one.
        capability: a key of :data:`CAPABILITIES`.
        size: a key of :data:`SIZES`.

    Raises:
        SparselitError: there is no run.
    """

    def __init__(self, runs: Sequence[FrontierRun], capability: str = "loss", size: str = "edges") -> None:
        if not runs:
            raise SparselitError("no run has ended with a held-out loss")
        self.runs, self.capability, self.size = runs, capability, size
        self.by_setting: dict[str, list[FrontierRun]] = {}
        for run in runs:
            self.by_setting.setdefault(run.setting, []).append(run)

    @cached_property
    def costs(self) -> dict[str, list[Run]]:
        """Both costs of each run, by setting."""
        return {name: [run.costs(self.capability, self.size) for run in runs] for name, runs in self.by_setting.items()}

    @cached_property
    def centres(self) -> dict[str, Run]:
        """Each setting's mean over its seeds."""
        return {name: centre(runs) for name, runs in self.costs.items()}

    @cached_property
    def draws(self) -> list[dict[str, Run]]:
        """The centres of resampled runs."""
        return resampled(self.costs)

    @cached_property
    def best(self) -> list[str]:
        """The settings on the front."""
        return front(self.centres)

    @cached_property
    def support(self) -> dict[str, float]:
        """In which share of the resamples a setting is on the front."""
        fronts = [front(draw) for draw in self.draws]
        return {name: sum(name in found for found in fronts) / len(fronts) for name in self.centres}

    @cached_property
    def sizes(self) -> dict[int, list[str]]:
        """The sparse settings of each number of parameters, the smallest model first."""
        found: dict[int, list[str]] = {}
        for name, runs in self.by_setting.items():
            if not is_dense(runs[0]):
                found.setdefault(runs[0].parameters, []).append(name)
        return dict(sorted(found.items()))

    def volumes(self) -> dict[int, tuple[Interval, list[float]]]:
        """The hypervolume of each size, with its draws; the corner is the worst of all runs."""
        every = [run for runs in self.costs.values() for run in runs]
        corner = max(run[0] for run in every), max(run[1] for run in every)
        found = {}
        for parameters, names in self.sizes.items():
            draws = [hypervolume([draw[name] for name in names], corner) for draw in self.draws]
            value = hypervolume([self.centres[name] for name in names], corner)
            found[parameters] = interval(value, draws), draws
        return found

    def rows(self) -> list[dict[str, Any]]:
        """A row for each setting: means over seeds, the range, how many have a certified circuit."""
        return [
            {
                "setting": name,
                "seeds": len(runs),
                "parameters": runs[0].parameters,
                "nonzeros": round(sum(run.nonzeros for run in runs) / len(runs)),
                self.capability: self.centres[name][0],
                f"{self.capability}_low": min(run[0] for run in self.costs[name]),
                f"{self.capability}_high": max(run[0] for run in self.costs[name]),
                self.size: self.centres[name][1],
                f"{self.size}_low": min(run[1] for run in self.costs[name]),
                f"{self.size}_high": max(run[1] for run in self.costs[name]),
                "certified": sum(run.certified for run in runs),
                "on_front": self.support[name],
            }
            for name, runs in self.by_setting.items()
        ]

    def words(self) -> list[str]:
        """What the runs support, and what they do not."""
        return [*self._at_fixed_size(), *self._between_sizes(), *self._reservations()]

    def _at_fixed_size(self) -> list[str]:
        lines = []
        for parameters, names in self.sizes.items():
            names = sorted(names, key=lambda name: self.by_setting[name][0].density or 1.0)
            if len(names) < 2:
                continue
            sparse, dense = names[0], names[-1]
            ratio = self._ratio(sparse, dense)
            worse = interval(
                self.centres[sparse][0] - self.centres[dense][0],
                [draw[sparse][0] - draw[dense][0] for draw in self.draws],
            )
            lines.append(
                f"At {parameters:,} parameters the sparsest setting has {ratio} times the {self.size} of the densest, "
                f"and its {self.capability} is higher by {worse}."
            )
        return lines

    def _ratio(self, one: str, other: str) -> Interval:
        return interval(
            self.centres[one][1] / self.centres[other][1], [draw[one][1] / draw[other][1] for draw in self.draws]
        )

    def _between_sizes(self) -> list[str]:
        volumes, lines = self.volumes(), []
        for smaller, larger in zip(list(volumes), list(volumes)[1:], strict=False):
            (one, before), (other, after) = volumes[smaller], volumes[larger]
            gain = interval(other.value - one.value, [b - a for a, b in zip(before, after, strict=True)])
            says = (
                "moves outwards" if gain.low > 0 else "moves inwards" if gain.high < 0 else "does not move for certain"
            )
            lines.append(
                f"From {smaller:,} to {larger:,} parameters the frontier {says}: hypervolume {one} and {other}, "
                f"difference {gain}."
            )
        return lines

    def _reservations(self) -> list[str]:
        lines = []
        none = sum(run.edges is None for run in self.runs)
        doubtful = sum(run.edges is not None and not run.certified for run in self.runs)
        if none:
            lines.append(f"{none} of {len(self.runs)} runs have no circuit; the whole model stands in for it.")
        if doubtful:
            lines.append(
                f"{doubtful} of {len(self.runs)} runs have a circuit without certificate, or one that misses its bound."
            )
        if all(run.accuracy >= CEILING for run in self.runs):
            lines.append(
                f"Every run answers at least {percent(CEILING)} right: at this ceiling no trade-off can be seen. "
                "Choose a task that is harder."
            )
        fewest = min(map(len, self.by_setting.values()))
        if fewest < 3:
            lines.append(f"Some settings have {fewest} seed{'s' * (fewest != 1)}: their intervals say little.")
        return lines


def is_dense(run: FrontierRun) -> bool:
    """Whether a run has no sparsity."""
    return run.density is None or run.density >= 1


def draw_frontier(frontier: Frontier) -> Figure:
    """Each setting as a point with the range over its seeds; those of one model size are joined, the front dotted."""
    figure = Figure(figsize=(6.4, 4.4), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    series: list[tuple[str, list[str], str]] = [
        (f"{parameters:,} parameters", names, "o-") for parameters, names in frontier.sizes.items()
    ]
    dense = [name for name, runs in frontier.by_setting.items() if is_dense(runs[0])]
    series += [("dense", dense, "s")] if dense else []
    for label, names, style in series:
        names = sorted(names, key=lambda name: frontier.centres[name][1])
        x, y = ([frontier.centres[name][axis] for name in names] for axis in (1, 0))
        (line,) = axes.plot(x, y, style, label=label, markersize=4.5, lw=1)
        for name in names:
            first, second = zip(*frontier.costs[name], strict=True)
            at = frontier.centres[name]
            axes.plot([min(second), max(second)], [at[0]] * 2, color=line.get_color(), lw=0.8, alpha=0.6)
            axes.plot([at[1]] * 2, [min(first), max(first)], color=line.get_color(), lw=0.8, alpha=0.6)
    best = [frontier.centres[name] for name in frontier.best]
    axes.step([run[1] for run in best], [run[0] for run in best], where="post", color="#555555", lw=0.8, ls=":")
    axes.set(xscale="log", xlabel=SIZES[frontier.size], ylabel=CAPABILITIES[frontier.capability])
    if all(run[0] > 0 for run in frontier.centres.values()) and _spread(frontier.centres) > 30:
        axes.set_yscale("log")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(fontsize=7, frameon=False)
    return figure


def _spread(centres: Mapping[str, Run]) -> float:
    values = [run[0] for run in centres.values()]
    return max(values) / min(values) if min(values) > 0 else math.inf
