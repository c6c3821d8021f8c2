"""``sparselit history``: birth and death of edges over the circuits of one run."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.cli.command_parser import PlainParser
from sparselit.cli.picture_options import add_options, output_of, save
from sparselit.errors import SparselitError
from sparselit.report.facts import percent, shortened
from sparselit.runs.folder import CIRCUITS

if TYPE_CHECKING:
    from sparselit.circuits.use.history import History


def run(argv: list[str]) -> None:
    """Print the table and write the figure."""
    parser = PlainParser(
        "history",
        "How the circuit of a run came about: which edges were born and which died from one step's circuit to the "
        "next, as a table here and a figure in a file.",
    )
    parser.add_argument("run", metavar="RUN", help="run folder such as runs/quotes/version_0, or a folder of circuits")
    parser.add_argument("--task", metavar="NAME", help="of a mixture: which of its tasks")
    parser.add_argument("--edges", action="store_true", help="list every edge with the steps at which it lives")
    add_options(parser, "history.png in the folder of the circuits")
    options = parser.parse_args(argv)
    folder = Path(options.run)
    folder = folder / CIRCUITS if (folder / CIRCUITS).is_dir() else folder
    folder = folder / options.task if options.task else folder
    if not folder.is_dir():
        raise SparselitError(f"{folder} is no folder; give a run's, such as runs/quotes/version_0")
    output = output_of(options, folder / "history.png")

    from sparselit.circuits.use.history import history

    found = history(folder)
    text = table(found) + (["", *lives(found)] if options.edges else [])
    sys.stdout.write("\n".join(text) + "\n")
    if options.no_picture:
        return
    sys.stdout.flush()
    from sparselit.report.history import draw_history

    sys.stdout.write(f"\npicture       {save(draw_history(found), output)}\n")


def table(found: History) -> list[str]:
    """One line for each circuit: its size and what changed since the one before."""
    head = f"{'step':>8}{'edges':>8}{'biases':>8}{'born':>8}{'died':>8}{'Jaccard':>10}{'loss':>10}{'accuracy':>12}"
    rows = [head]
    for step, circuit in found.circuits.items():
        overlap = found.kept(step)
        score = circuit.evidence.held_out
        rows.append(
            f"{step:>8,}{len(circuit.edges):>8,}{len(circuit.biases):>8,}{len(found.born(step)):>8,}"
            f"{len(found.died(step)):>8,}{'-' if overlap is None else f'{overlap:.2f}':>10}"
            f"{score.task_loss:>10.4f}{percent(score.accuracy):>12}"
        )
    last = len(found.circuits)
    always = sum(len(steps) == last for steps in found.lives.values())
    rows += ["", f"{len(found.lives):,} edges and biases in any of the {last} circuits, {always:,} in all of them"]
    return rows


def lives(found: History) -> list[str]:
    """Every edge with the steps at which it lives: a bar of one character for each circuit."""
    from sparselit.model.wiring import place_name  # torch is slow to import

    steps = list(found.circuits)
    shown = steps[-40:]
    title = f"steps {shown[0]:,} to {shown[-1]:,}"
    width = 78 - max(len(title), len(shown))
    rows = [f"{'edge or bias':<{width}}  {title}"]
    for (name, row, column), alive in found.lives.items():
        label = shortened(place_name((name, row, column), name.endswith("bias")), width)
        rows.append(f"{label:<{width}}  {''.join('█' if step in alive else '·' for step in shown)}")
    return rows
