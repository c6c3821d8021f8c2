"""The frontier of capability and circuit size: runs the study and writes its page.

    python -m benchmarks.frontier FOLDER [--jobs N] [--output docs/results/frontier.md]
    python -m benchmarks.frontier FOLDER --page                          the page of what there is

FOLDER is the sweep's; a command that was interrupted goes on. The analysis was written down before the runs, in
``frontier_plan.md``.
"""

from __future__ import annotations

import argparse
import csv
import math
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from statistics import fmean, variance

from sparselit.cli.commands.frontier import runs_of
from sparselit.report.frontier import Frontier, FrontierRun, draw_frontier
from sparselit.statistics.frontier import interval

CONFIG = Path(__file__).with_suffix(".yaml")
#: Two settings have as many non-zero weights where they differ by at most this factor.
AS_MANY = 1.3
#: Runs of the first sweep.
RUNS = 84
#: Settings of the second sweep, about search seeds.
SEEDS = ["--sweep.zip", "{model.d_model: [32], model.n_heads: [4]}", "--sweep.grid",
         "{sparsity.density.to: [0.04], seed_everything: [0, 1, 2], circuits.search.seed: [0, 1, 2]}"]  # fmt: skip

PLAN = Path(__file__).with_name("frontier_plan.md")


def sweep(folder: Path, jobs: int, *more: str) -> None:
    """Run what is missing of a sweep; failures are left for the page to say."""
    command = [sys.executable, "-c", "from sparselit.cli import main; main()", "sweep", "--config", str(CONFIG)]
    subprocess.run([*command, "--folder", str(folder), "--jobs", str(jobs), *more], check=False)


def pairs(frontier: Frontier) -> list[tuple[str, str]]:
    """Settings with as many non-zero weights, the narrower first."""
    widths = list(frontier.sizes.items())
    mean = {name: fmean(run.nonzeros for run in runs) for name, runs in frontier.by_setting.items()}
    found = []
    for (_, narrow), (_, wide) in pairwise(widths):
        for name in narrow:
            factor, nearest = min((abs(math.log(mean[other] / mean[name])), other) for other in wide)
            if factor <= math.log(AS_MANY):
                found.append((name, nearest))
    return found


def at_equal_nonzeros(frontier: Frontier) -> list[str]:
    """The third question."""
    found = pairs(frontier)
    if not found:
        return ["No two settings have as many non-zero weights."]
    every = [frontier.centres, *frontier.draws]
    loss = [fmean(c[wide][0] - c[narrow][0] for narrow, wide in found) for c in every]
    size = [math.exp(fmean(math.log(c[wide][1] / c[narrow][1]) for narrow, wide in found)) for c in every]
    return [
        f"Over {len(found)} pairs, twice the width at as many non-zeros has {interval(size[0], size[1:])} times the "
        f"edges and a loss that differs by {interval(loss[0], loss[1:])} nats (negative: the wider model is better)."
    ]


def scatter(runs: list[FrontierRun]) -> list[str]:
    """The fourth question; each setting names a search seed."""
    table: dict[int | None, list[float]] = {}
    for run in runs:
        if run.edges is not None:
            table.setdefault(run.seed, []).append(math.log(run.edges))
    if len(table) < 2 or min(map(len, table.values())) < 2:
        return ["There are too few runs for this."]
    within = fmean(variance(values) for values in table.values())
    n = fmean(map(len, table.values()))
    between = max(0.0, variance([fmean(values) for values in table.values()]) - within / n)
    return [
        f"{sum(map(len, table.values()))} runs: standard deviation of the logarithm of the edges "
        f"{math.sqrt(between):.2f} between training seeds, {math.sqrt(within):.2f} between search seeds. Edges: "
        + "; ".join(f"seed {seed}: {', '.join(f'{math.exp(x):.0f}' for x in sorted(v))}" for seed, v in table.items())
        + "."
    ]


def page(frontier: Frontier, searches: list[FrontierRun], picture: str) -> str:
    """The plan, and what came out."""
    first, second = frontier.capability, frontier.size
    lines = ["## What came out", ""]
    if len(frontier.runs) < RUNS:
        lines += [
            f"**So far {len(frontier.runs)} of {RUNS} runs**, the sparse settings first; the command goes on.",
            "",
        ]
    lines += [f"![loss over edges]({picture})", ""]
    lines += [
        "| setting | seeds | non-zeros | loss | range | edges | range | certified | on the front |",
        "|---" * 9 + "|",
    ]
    for row in sorted(frontier.rows(), key=lambda row: (row["parameters"], row["nonzeros"])):
        spans = [f"{row[f'{name}_low']:,.4g} – {row[f'{name}_high']:,.4g}" for name in (first, second)]
        cells = [row["setting"], row["seeds"], f"{row['nonzeros']:,}", f"{row[first]:.4g}", spans[0]]
        cells += [f"{row[second]:,.0f}", spans[1], row["certified"], f"{100 * row['on_front']:.0f} %"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines += ["", "**1 and 2.** " + "\n".join(frontier.words()), "", "**3.** " + "\n".join(at_equal_nonzeros(frontier))]
    return PLAN.read_text() + "\n" + "\n".join([*lines, "", "**4.** " + "\n".join(scatter(searches)), ""])


def main() -> None:
    """Run what is missing, then write page, figure and rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("docs/results/frontier.md"))
    parser.add_argument("--page", action="store_true", help="run nothing")
    options = parser.parse_args()
    if not options.page:
        sweep(options.folder / "sizes", options.jobs)
        sweep(options.folder / "searches", options.jobs, *SEEDS)
    frontier = Frontier(list(runs_of(options.folder / "sizes", {})))
    picture = options.output.with_suffix(".png")
    draw_frontier(frontier).savefig(picture)
    searches = options.folder / "searches"
    options.output.write_text(page(frontier, list(runs_of(searches, {})) if searches.is_dir() else [], picture.name))
    with CONFIG.with_suffix(".csv").open("w") as file:
        rows = [vars(run) | {"folder": Path(run.folder).parent.name} for run in frontier.runs]
        writer = csv.DictWriter(file, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    main()
