"""The loss of the shipped language model over its training, beside its dense twin and what counting reaches.

    python -m benchmarks.language_curves --output docs/images/python_base.png

Draws what ``benchmarks/python_base.json`` holds: the curves of ``sparselit fit --config python_base`` and of the same
with ``--sparsity null``, and the rows of ``python -m benchmarks.language_baselines``. With ``--from RUN RUN`` the
curves are first taken from the event files of two finished runs, the sparse one and the dense one.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

DATA = Path(__file__).with_name("python_base.json")
CURVES = ("val/nats_per_byte", "density/total", "report/nats_per_byte")
#: Baselines that are drawn; the JSON file has all.
DRAWN = ("2 tokens, Kneser-Ney", "3 tokens, Kneser-Ney", "5 tokens, Kneser-Ney", "PPMd, order 6", "PPMd, order 16")


def curves(run: Path) -> dict[str, list[list[float]]]:
    """The logged curves of a run, as [step, value] pairs by name."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run))
    events.Reload()
    known = events.Tags()["scalars"]
    return {name: [[row.step, round(row.value, 4)] for row in events.Scalars(name)] for name in CURVES if name in known}


def draw(data: dict[str, Any]) -> Figure:
    """Loss over steps, the density below it."""
    figure = Figure(figsize=(8, 5), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    for row in data["baselines"]:
        if row["model"] in DRAWN:
            above.axhline(row["nats_per_byte"], color="0.7", linewidth=0.8, linestyle=":")
            above.text(
                1.01, row["nats_per_byte"], row["model"], transform=above.get_yaxis_transform(), fontsize=7, va="center"
            )
    for name, color in (("sparse", "C0"), ("dense", "C1")):
        steps, values = zip(*data[name]["val/nats_per_byte"], strict=True)
        above.plot(steps, values, marker="o", markersize=3, color=color, label=f"{name} model, validation split")
        above.plot(*data[name]["report/nats_per_byte"][-1], marker="*", color=color, markersize=10)
    above.set_ylabel("nats per byte")
    above.legend(fontsize=8)
    below.plot(*zip(*data["sparse"]["density/total"], strict=True), color="C0")
    below.set_yscale("log")
    below.set_ylabel("density")
    below.set_xlabel("optimizer steps (stars: report split)")
    return figure


def main() -> None:
    """Draw the figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=Path, required=True, help="PNG file")
    parser.add_argument(
        "--from", dest="runs", type=Path, nargs=2, metavar="RUN", help="take the curves from these runs"
    )
    options = parser.parse_args()
    data = json.loads(DATA.read_text(encoding="utf-8"))
    if options.runs:
        data |= dict(zip(("sparse", "dense"), map(curves, options.runs), strict=True))
        DATA.write_text(json.dumps(data) + "\n", encoding="utf-8")
    draw(data).savefig(options.output, dpi=110)
    sys.stdout.write(f"wrote {options.output}\n")


if __name__ == "__main__":
    main()
