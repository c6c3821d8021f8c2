"""Does more sparsity at equal accuracy give a smaller certified circuit?

    python -m benchmarks.density_circuits --seeds 3 --output docs/results/density_circuits.png
    python -m benchmarks.density_circuits --seeds 3 --output docs/results/density_circuits.png --table    what there is

Trains the model of ``configs/quotes_synthetic.yaml`` down to several densities with everything else equal, and searches
each for the smallest circuit (``task_loss`` at most 0.15 nats and ``accuracy`` at least 0.999, searched under bounds
tightened by 0.3, confirmed on other prompts) under zero and mean ablation. Numbers are kept in
``results/density_circuits.jsonl``, weights and circuits in ``results/density_circuits/<density>-<seed>``, so that the
command goes on where it was stopped.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import sys
import time
import warnings
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from sparselit.callbacks import SelfPacedSparsity
from sparselit.tasks import Quotes

from benchmarks.records import Records
from benchmarks.short_runs import trained
from sparselit.circuits import Bound, discover
from sparselit.circuits.criterion import measure
from sparselit.circuits.discover import NoCircuitError
from sparselit.circuits.files import write_circuit
from sparselit.model.transformer import Transformer
from sparselit.modules import SparseTransformer
from sparselit.sparsity import Schedule

DENSITIES = (0.2, 0.05, 0.02, 0.01, 0.006, 0.004)
ABLATIONS = ("zero", "mean")
CRITERION = [Bound("task_loss", at_most=0.15), Bound("accuracy", at_least=0.999)]
MARGIN = 0.3
STEPS = 2000
FOLDER = Path("results/density_circuits")
RECORDS = Records(FOLDER.with_suffix(".jsonl"))


def train(density: float, seed: int, data: Quotes) -> tuple[Transformer, dict[str, Any]]:
    """A model of about one density, and what is left of it; one that cannot go so far says so in its counts."""
    torch.manual_seed(seed)
    sizes = {"vocab_size": data.vocab_size, "max_length": data.max_length, "d_model": 32, "positions": "none"}
    model = SparseTransformer(**sizes, lr=0.01, eps=0.001, label_smoothing=0.0005)
    fall = Schedule(to=density, begin=0.02, end=0.5, shape="exponential")
    sparsity = SelfPacedSparsity(fall, loss_below=0.05)
    seconds = trained(model, data, sparsity, STEPS)
    with torch.no_grad():
        report = data.split("report")
        values = measure(model.eval()(report.tokens, report.length - 1), report)
    live = sum(int(p.count_nonzero()) for p in sparsity.tensors(model).values())
    about = {"live": live, "n": len(report.answer), "rollbacks": sparsity.pace.rollbacks}
    return model.transformer, {**values, **about, "seconds": seconds}


def load(folder: Path, density: float, seed: int, data: Quotes) -> tuple[Transformer, dict[str, Any]]:
    """The trained model, from disk where it is there."""
    weights = folder / "weights.pt"

    def trained() -> dict[str, Any]:
        folder.mkdir(parents=True, exist_ok=True)
        model, values = train(density, seed, data)
        torch.save({"config": model.config, "state": model.state_dict()}, weights)
        return values

    about = RECORDS.once(key(density, seed), trained)
    saved = torch.load(weights, weights_only=True)
    model = Transformer(**saved["config"]).eval()
    model.load_state_dict(saved["state"])
    return model, about


def key(density: float, seed: int, ablation: str | None = None) -> dict[str, Any]:
    """What identifies a model in the records, or its circuit under an ablation."""
    return {"density": density, "seed": seed, "ablation": ablation}


def circuit(folder: Path, model: Transformer, data: Quotes, ablation: str) -> dict[str, Any]:
    """Size and scores of the circuit."""
    start = time.process_time()
    behaviour = data.behaviour()
    try:
        found = discover(model, behaviour, CRITERION, ablation, margin=MARGIN)
    except NoCircuitError as error:
        result: dict[str, Any] = {"reason": str(error)}
    else:
        write_circuit(folder / f"{ablation}/circuit.json", found, model, behaviour)
        scores = {bound.metric: bound.value for bound in found.criterion}
        certified = found.certificate.complete
        result = {**asdict(found.size), "biases": len(found.biases), "certified": certified, **scores}
    return {**result, "seconds": time.process_time() - start}


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """Edges of the circuits against non-zero weights of the models."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(7, 4.5))
    for number, ablation in enumerate(ABLATIONS):
        points = [(row["live"], row[ablation]["edges"]) for row in rows if "edges" in row[ablation]]
        axis.plot(*zip(*points, strict=True), "ox"[number], color=f"C{number}", label=f"{ablation} ablation, each seed")
        middle = []
        for density in DENSITIES:
            group = [row for row in rows if row["density"] == density and "edges" in row[ablation]]
            if group:
                edges = statistics.median(row[ablation]["edges"] for row in group)
                middle.append((statistics.median(row["live"] for row in group), edges))
        axis.plot(*zip(*middle, strict=True), "-", color=f"C{number}", lw=1, label=f"{ablation} ablation, median")
    ends = [min(row["live"] for row in rows), max(row["live"] for row in rows)]
    axis.plot(ends, ends, ":", color="grey", label="all weights of the model")
    axis.set(xscale="log", yscale="log", xlabel="non-zero weights of the model", ylabel="edges of its circuit")
    axis.invert_xaxis()
    axis.legend(fontsize=8)
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Circuit size against density at equal accuracy.")
    parser.add_argument("--seeds", type=int, default=1, help="trainings at each density, at least 1")
    parser.add_argument("--densities", type=float, nargs="*", default=list(DENSITIES), choices=DENSITIES, metavar="D")
    parser.add_argument("--output", type=Path, help="file of the figure, .png")
    parser.add_argument("--table", action="store_true", help="train and search nothing, show what there is")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    data = Quotes(source="synthetic", length=24, batch_size=128, discovery=2048, seed=0)
    rows: list[dict[str, Any]] = []
    for seed in range(arguments.seeds):
        for density in arguments.densities:
            folder = FOLDER / f"{density}-{seed}"
            if arguments.table and not RECORDS.find(key(density, seed)):
                continue
            model, about = load(folder, density, seed, data)
            found: dict[str, Any] = {}
            for ablation in ABLATIONS:
                place = key(density, seed, ablation)
                search = partial(circuit, folder, model, data, ablation)
                found[ablation] = (RECORDS.find(place) or {}) if arguments.table else RECORDS.once(place, search)
            rows.append({**about, **found})
            sys.stderr.write(f"{density} {seed}: {found}\n")
    columns = "| configured density | seed | accuracy | loss | non-zeros |"
    columns += "".join(f" {ablation}: edges | accuracy |" for ablation in ABLATIONS)
    sys.stdout.write(columns + "\n" + "|---" * (columns.count("|") - 1) + "|\n")
    for row in sorted(rows, key=lambda row: (-row["density"], row["seed"])):
        line = (
            f"| {row['density']} | {row['seed']} | {row['accuracy']:.2%} | {row['task_loss']:.4f} | {row['live']:,} |"
        )
        for ablation in ABLATIONS:
            one = row[ablation]
            sure = "" if one.get("certified", True) else " (not certified)"
            none = " none | |" if one else " – | |"
            line += f" {one['edges']}{sure} | {one['accuracy']:.2%} |" if "edges" in one else none
        sys.stdout.write(line + "\n")
    if arguments.output:
        draw(rows, arguments.output)


if __name__ == "__main__":
    main()
