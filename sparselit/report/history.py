"""The lives of a circuit's edges over the steps of a run, as a figure."""

from __future__ import annotations

from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from sparselit.circuits.use.history import History
from sparselit.report.picture import NEGATIVE, POSITIVE

_NAMED = 80  # edges; with more of them names would not fit
_INK = "#333333"


def draw_history(found: History) -> Figure:
    """One row for each edge or bias, filled at the circuits that have it; above it the size of each circuit.

    The colour says the sign of the weight: as in the picture of a circuit, blue adds and orange subtracts.

    Args:
        found: the circuits of a run.
    """
    steps = list(found.circuits)
    count = len(found.lives)
    height = 2.2 + min(14.0, 0.16 * count)
    figure = Figure(figsize=(9.0, height), dpi=140, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    top, rows = figure.subplots(2, 1, sharex=True, height_ratios=[1.3, height - 1.5])
    x = range(len(steps))
    top.bar(x, [len(found.circuits[step].places) for step in steps], color="#bbbbbb", width=0.6, label="size")
    top.bar(x, [len(found.born(step)) for step in steps], color="#4c9f70", width=0.3, label="born")
    top.bar(x, [-len(found.died(step)) for step in steps], color="#b04a5a", width=0.3, label="died")
    top.axhline(0, color=_INK, lw=0.6)
    top.set_ylabel("edges and biases", fontsize=8)
    top.legend(fontsize=7, ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0, 1.0))
    for y, (edge, alive) in enumerate(found.lives.items()):
        for index in (i for i, step in enumerate(steps) if step in alive):
            weight = _weight(found, steps[index], edge)
            rows.barh(y, 0.92, left=index - 0.46, height=0.8, color=POSITIVE if weight > 0 else NEGATIVE)
    names = [f"{n}[{r}]" if n.endswith("bias") else f"{n}[{r},{c}]" for n, r, c in found.lives]
    rows.set_yticks(range(count) if count <= _NAMED else [], names if count <= _NAMED else [], fontsize=6)
    rows.set_xlim(-0.6, len(steps) - 0.4)
    rows.set_ylim(count - 0.5, -0.5)
    rows.set_xticks(list(x), [f"{step:,}" for step in steps], fontsize=7, rotation=45 if len(steps) > 8 else 0)
    rows.set_xlabel("optimizer step", fontsize=8)
    for axes in (top, rows):
        axes.tick_params(labelsize=6.5, length=2)
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _weight(found: History, step: int, edge: tuple[str, int, int]) -> float:
    return found.circuits[step].weights[edge]
