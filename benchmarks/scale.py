"""Does the cost of a circuit follow the circuit, or the model? One function, planted in larger and larger models.

A trained quote model is planted in random sparse models: its channels, heads and neurons become some of theirs, its
layers two of theirs, and all other weights are random. The function survives, and so its circuit is in every one of
them; what grows is the model around it. One full forward over the discovery split is the unit of cost.

    python -m benchmarks.scale CHECKPOINT [--sizes 128x2 256x4] [--ablation zero mean] [--output docs/results/scale.md]

CHECKPOINT is one of ``sparselit fit --config quotes_synthetic``. Times are of the processor, on one thread. The row of
1,024 channels is long and has to be named: ``--sizes 1024x8``.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import EVIDENCE, discover
from sparselit.data.behaviour import Behaviour
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer
from sparselit.model.wiring import Edges
from tasks import Quotes

#: Width and layers of the models around the planted one.
SIZES = ("32x2", "128x2", "256x4", "512x8")
#: Share of the matrices' entries that are not zero.
DENSITY = 1 / 60
#: Channels of a head, as in the paper; the planted heads have fewer.
D_HEAD = 16
#: Standard deviation of the random weights: small enough that the planted function survives them.
NOISE = 0.02
#: Examples of each split.
EXAMPLES = {"discovery": 1024, "selection": 1024, "report": 1024}
CRITERIA = {
    "zero": [Bound("task_loss", at_most=0.15)],
    "mean": [Bound("task_loss", at_most=0.15), Bound("kl", at_most=0.02)],
}

INTRODUCTION = """# Scale

Does the cost of a circuit follow the circuit, or the model? A trained quote model is planted in larger and larger
random sparse models: the function stays, the model around it grows. The unit of cost is one full forward over the 1,024
discovery prompts, timed in the same process; processor seconds, one thread, default search. The evidence is what comes
after it.

    sparselit fit --config quotes_synthetic
    python -m benchmarks.scale CHECKPOINT --output docs/results/scale.md

"""


@torch.no_grad()
def plant(small: Transformer, width: int, n_layers: int, seed: int = 0) -> Transformer:
    """A sparse model with ``small`` somewhere inside and random weights everywhere else.

    Args:
        small: a model with RMSNorm and without positions, sinks, bigram table and AbsTopK.
        width: channels of the residual stream, at least those of ``small``.
        n_layers: at least those of ``small``.
        seed: of the places and of the random weights.
    """
    if (width, n_layers) == (small.d_model, len(small.layers)):
        return small
    g = torch.Generator().manual_seed(seed)
    config = small.config | {
        "d_model": width,
        "n_layers": n_layers,
        "n_heads": width // D_HEAD,
        "d_head": D_HEAD,
        "d_mlp": 4 * width,
        "norm_eps": small.norm_eps * small.d_model / width,
    }
    big = Transformer(**config)
    stream = torch.randperm(width, generator=g)[: small.d_model].sort().values
    layers = torch.linspace(0, n_layers - 1, len(small.layers)).round().long().tolist()
    for name, parameter in big.named_parameters():
        if parameter.ndim == 2:
            alive = torch.rand(parameter.shape, generator=g) < DENSITY
            parameter.copy_(torch.randn(parameter.shape, generator=g) * NOISE * alive)
        elif name.endswith("bias"):
            parameter.zero_()
    scale = math.sqrt(small.d_model / width)  # of gains: the mean square is over more channels
    _put(big.embed.token.weight, small.embed.token.weight, None, stream)
    _put(big.unembed.weight, small.unembed.weight, None, stream)
    big.unembed.bias.copy_(small.unembed.bias)
    big.norm.weight[stream] = small.norm.weight * scale
    for old, new in zip(small.layers, (big.layers[i] for i in layers), strict=True):
        heads = torch.randperm(big.n_heads, generator=g)[: small.n_heads].sort().values
        channels = (heads[:, None] * D_HEAD + torch.arange(small.d_head)).flatten()
        neurons = torch.randperm(big.d_mlp, generator=g)[: small.d_mlp].sort().values
        for block in ("attn", "mlp"):
            getattr(new, block).norm.weight[stream] = getattr(old, block).norm.weight * scale
        sharpness = math.sqrt(D_HEAD / small.d_head)  # scores are divided by the root of the head's width
        for letter, factor in (("q", sharpness), ("k", 1.0), ("v", 1.0)):
            one, other = getattr(new.attn, letter), getattr(old.attn, letter)
            _put(one.weight, other.weight * factor, channels, stream)
            one.bias[channels] = other.bias * factor
        _put(new.attn.o.weight, old.attn.o.weight, stream, channels)
        new.attn.o.bias[stream] = old.attn.o.bias
        _put(new.mlp.up.weight, old.mlp.up.weight, neurons, stream)
        new.mlp.up.bias[neurons] = old.mlp.up.bias
        _put(new.mlp.down.weight, old.mlp.down.weight, stream, neurons)
        new.mlp.down.bias[stream] = old.mlp.down.bias
    return big.eval()


def _put(big: Tensor, small: Tensor, rows: Tensor | None, columns: Tensor) -> None:
    """Add the planted entries, whose place stays empty where the planted model has none."""
    rows = torch.arange(len(big)) if rows is None else rows
    big[rows[:, None], columns] = small


def seconds_of_a_forward(model: Transformer, examples: Examples) -> float:
    """The unit: the best of some full forwards over the split, for its answers only."""
    times = []
    with torch.no_grad():
        for _ in range(3):
            began = time.process_time()
            for first in range(0, len(examples.answer), 512):
                some = examples.select(slice(first, first + 512))
                model(some.tokens, some.length - 1)
            times.append(time.process_time() - began)
    return min(times)


def one(checkpoint: Path, size: str, ablation: str) -> dict[str, Any]:
    """One row of the table, in this process."""
    torch.set_num_threads(1)
    width, n_layers = map(int, size.split("x"))
    small = Transformer.from_checkpoint(checkpoint)
    model = plant(small, width, n_layers)
    task = Quotes("synthetic", length=24, **EXAMPLES)
    behaviour: Behaviour = task.behaviours()[""]
    report = behaviour.splits["report"]
    with torch.no_grad():
        right = float((model(report.tokens, report.length - 1).argmax(-1) == report.answer).float().mean())
    unit = seconds_of_a_forward(model, behaviour.splits["discovery"])
    before = peak()
    began = last = time.process_time()
    named, stages = "begin", dict[str, float]()

    def progress(stage: str, left: int) -> None:
        nonlocal last, named
        now = time.process_time()
        stages[named] = stages.get(named, 0.0) + now - last
        last, named = now, stage

    circuit = discover(model, behaviour, CRITERIA[ablation], ablation, progress=progress)
    progress("end", 0)
    total = time.process_time() - began
    evidence = sum(seconds for stage, seconds in stages.items() if stage.startswith(EVIDENCE))
    return {
        "size": size,
        "ablation": ablation,
        "nonzeros": len(Edges.of(model, False)),
        "accuracy": right,
        "forward": unit,
        "edges": circuit.size.edges,
        "complete": circuit.certificate.complete,
        "seconds": total,
        "search": total - evidence,
        "evidence": evidence,
        "forwards": total / unit,
        "evaluations": circuit.search.evaluations,
        "peak": peak(),
        "peak_before": before,
        "stages": {name: round(value, 2) for name, value in stages.items()},
    }


def peak() -> float:
    """Largest memory of this process so far, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10


def exponent(rows: list[dict[str, Any]]) -> float:
    """Slope of log(total time / full forward) over log(non-zeros), by least squares."""
    x, y = (torch.tensor([math.log(row[key]) for row in rows]) for key in ("nonzeros", "forwards"))
    x = x - x.mean()
    return float((x * y).sum() / x.square().sum())


def page(rows: list[dict[str, Any]], picture: str) -> str:
    """The table and the fitted exponents, as Markdown.

    Args:
        rows: as :func:`one` gives them.
        picture: file name of the plot.
    """
    columns = ["ablation", "model", "non-zeros", "forward, s", "edges", "complete", "total, s", "total, forwards"]
    columns += ["of which evidence", "peak, MiB (of a forward)"]
    lines = [*INTRODUCTION.splitlines(), f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for row in rows:
        unit = row["forward"]
        cells = [row["ablation"], row["size"], f"{row['nonzeros']:,}", f"{unit:.2f}", row["edges"]]
        cells += ["yes" if row["complete"] else "no", f"{row['seconds']:.1f}", f"{row['forwards']:.1f}"]
        cells += [f"{row['evidence'] / unit:.1f}", f"{row['peak']:,.0f} ({row['peak_before']:,.0f})"]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    lines.append("")
    for ablation in dict.fromkeys(row["ablation"] for row in rows):
        some = [row for row in rows if row["ablation"] == ablation]
        if len(some) > 1:
            lines.append(f"Under {ablation} ablation forwards go as the non-zeros to the power {exponent(some):.2f}.")
    return "\n".join([*lines, "", f"![forwards over non-zeros]({picture})", ""])


def write_page(rows: list[dict[str, Any]], path: Path) -> None:
    """Write the page and its plot.

    Args:
        rows: as :func:`one` gives them.
        path: of the page; the plot has its name and ``.png``.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(6, 4))
    for ablation in dict.fromkeys(row["ablation"] for row in rows):
        some = [row for row in rows if row["ablation"] == ablation]
        axis.plot([row["nonzeros"] for row in some], [row["forwards"] for row in some], "o-", label=ablation)
    axis.set(xscale="log", yscale="log", xlabel="non-zero weights of the model", ylabel="full forwards in all")
    axis.legend()
    figure.tight_layout()
    figure.savefig(path.with_suffix(".png"), dpi=110)
    path.write_text(page(rows, path.with_suffix(".png").name))


def main() -> None:
    """Print the table, one process for each row."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--sizes", nargs="+", default=SIZES)
    parser.add_argument("--ablation", nargs="+", default=["zero", "mean"], choices=["zero", "mean"])
    parser.add_argument("--output", type=Path, help="page for the table, with its plot beside it")
    parser.add_argument("--row", action="store_true", help="one row as JSON, in this process")
    arguments = parser.parse_args()
    if arguments.row:
        print(json.dumps(one(arguments.checkpoint, arguments.sizes[0], arguments.ablation[0])))
        return
    rows = []
    for ablation in arguments.ablation:
        for size in arguments.sizes:
            command = [sys.executable, "-m", "benchmarks.scale", str(arguments.checkpoint), "--row"]
            command += ["--sizes", size, "--ablation", ablation]
            line = subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
            print(line, flush=True)
            rows.append(json.loads(line))
    if arguments.output is not None:
        write_page(rows, arguments.output)


if __name__ == "__main__":
    main()
