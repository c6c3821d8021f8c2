"""``sparselit frontier``: capability against the size of circuits, from the results of a sweep's runs alone."""

from __future__ import annotations

import csv
import math
import sys
import textwrap
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.report.facts import shortened
from sparselit.runs.folder import shown

if TYPE_CHECKING:
    from sparselit.report.frontier import Frontier, FrontierRun
    from sparselit.runs.result import Result

_SEED = "seed_everything"
_SUFFIXES = (".png", ".svg", ".pdf", ".html")


def run(argv: list[str]) -> None:
    """Print the table and what it supports, and write the figure."""
    parser = PlainParser(
        "frontier",
        "Show what sparsity costs and buys over the runs of a sweep: held-out loss against the edges of the circuits, "
        "with the range over seeds, the settings that no other one beats, and in words what the runs support.",
    )
    parser.add_argument("sweep", metavar="SWEEP", help="folder of a sweep, such as sweeps/mine")
    parser.add_argument("--capability", default="loss", choices=("loss", "error"), help="default: loss")
    parser.add_argument("--size", default="edges", choices=("edges", "nodes", "nonzeros"), help="default: edges")
    parser.add_argument(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only runs with this setting; may be repeated",
    )
    parser.add_argument("-o", "--output", metavar="FILE", help="png, svg, pdf or html; default: SWEEP/frontier.png")
    parser.add_argument("--csv", action="store_true", help="the settings as comma-separated values, and no figure")
    options = parser.parse_args(argv)
    folder = Path(options.sweep)
    output = Path(options.output or folder / "frontier.png")
    if output.suffix not in _SUFFIXES:
        raise SparselitError(f"--output must end in one of {', '.join(_SUFFIXES)}, got {str(output)!r}")
    wanted = dict(_pair(text) for text in options.filter)

    from sparselit.report.frontier import Frontier

    frontier = Frontier(list(runs_of(folder, wanted)), options.capability, options.size)
    if options.csv:
        rows = frontier.rows()
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return
    sys.stdout.write("".join(f"{line}\n" for line in _table(frontier)))
    sys.stdout.write("".join(f"\n{textwrap.fill(text, 79)}" for text in frontier.words()) + "\n")
    _draw(frontier, output)
    sys.stdout.write(f"\nfigure  {shown(output)}\n")


def runs_of(folder: Path, wanted: Mapping[str, str]) -> Iterator[FrontierRun]:
    """The runs of a sweep that have ended well.

    Args:
        folder: of the sweep.
        wanted: settings, as texts, that a run must have.

    Raises:
        SparselitError: the folder is none of a sweep, or a file is damaged.
    """
    from sparselit.runs.plain_file import read_json
    from sparselit.runs.result import Result
    from sparselit.sweep.points import labelled
    from sparselit.sweep.store import PLAN, POINTS, RECORD, Record

    if not (folder / PLAN).is_file():
        raise SparselitError(f"{folder} is no folder of a sweep; `sparselit sweep` leaves one, such as sweeps/mine")
    for path in sorted((folder / POINTS).glob(f"*/{RECORD}")):
        try:
            record = Record(**read_json(path))
        except (ValueError, TypeError) as error:
            raise SparselitError(f"{shown(path)} is damaged: {error}") from None
        settings = dict(record.settings)
        texts = {key: str(value) for key, value in settings.items()}
        if record.state != "complete" or not wanted.items() <= texts.items():
            continue
        settings.pop(_SEED, None)
        found = _run(Result.read(folder / record.run / "result.json"), labelled(settings), str(folder / record.run))
        if found is not None:
            yield found


def _run(result: Result, setting: str, folder: str) -> FrontierRun | None:
    from sparselit.report.frontier import FrontierRun

    losses = {row.split: row.nats_per_token for row in result.losses}
    loss = losses.get("report", losses.get("val"))
    accuracy = result.accuracy("report")
    if result.density is None or loss is None:
        return None
    latest = result.circuits.latest if result.circuits else ()
    whole = result.circuits is not None and result.circuits.edges is not None
    return FrontierRun(
        setting=setting,
        seed=result.seed,
        parameters=sum(tensor.numel for tensor in result.density.tensors),
        nonzeros=sum(tensor.nonzero for tensor in result.density.tensors),
        density=result.density.reached,
        loss=loss,
        accuracy=math.nan if accuracy is None else accuracy,
        edges=result.circuits.edges if whole and result.circuits else None,
        nodes=math.exp(sum(math.log(max(1, c.nodes)) for c in latest) / len(latest)) if whole and latest else None,
        certified=whole and all(circuit.complete and circuit.generalises for circuit in latest),
        folder=folder,
    )


def _table(frontier: Frontier) -> Iterator[str]:
    yield f"{'setting':<30}{frontier.capability:>9}{'range':>17}{frontier.size:>9}{'range':>14}"
    best = set(frontier.best)
    for row in sorted(frontier.rows(), key=lambda row: row[frontier.size]):
        mark = "*" if row["setting"] in best else " "
        first, second = frontier.capability, frontier.size
        span = f"{row[f'{first}_low']:.4g} - {row[f'{first}_high']:.4g}"
        sizes = f"{row[f'{second}_low']:,.0f} - {row[f'{second}_high']:,.0f}"
        yield f"{mark}{shortened(row['setting'], 28):<29}{row[first]:>9.4g}{span:>17}{row[second]:>9,.0f}{sizes:>14}"
    yield "* no other setting beats it"


def _draw(frontier: Frontier, output: Path) -> None:
    from sparselit.runs.atomic import write_atomically

    output.parent.mkdir(parents=True, exist_ok=True)
    if output.suffix == ".html":
        from sparselit.report.frontier_page import page

        text = page(frontier)
        write_atomically(output, lambda file: file.write(text.encode()))
        return
    from sparselit.report.frontier import draw_frontier

    figure = draw_frontier(frontier)
    write_atomically(output, lambda file: figure.savefig(file, format=output.suffix[1:]))


def _pair(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not equals:
        raise SparselitError(f"--filter needs KEY=VALUE, as in model.d_model=64, got {text!r}")
    return key, value
