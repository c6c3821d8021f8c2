"""Why a sparse transformer collapses on the way down, one cause at a time.

    python -m benchmarks.extreme_density --output docs/results/extreme_density.png

Trains the model of ``configs/quotes_extreme.yaml`` at d_model 64 with one thing changed at a time, notes loss, gradient
and density, and draws them. Runs are kept in ``results/extreme_density.jsonl``, so that the command goes on where it
was stopped. About 40 s of one CPU core a run.
"""

from __future__ import annotations

import argparse
import logging
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer
from sparselit.callbacks import AnnealedSparsity, SelfPacedSparsity
from sparselit.tasks import Quotes

from benchmarks.records import Records
from sparselit.modules import SparseTransformer
from sparselit.sparsity import Rule, Schedule
from sparselit.training.sparsifier import Sparsifier

TO = 0.0015
FILE = Path("results/extreme_density.jsonl")


def schedule() -> Schedule:
    """1.35 % of the weights go per step."""
    return Schedule(to=TO, begin=150, end=630, shape="exponential")


def rules() -> list[Rule]:
    return [Rule("*.bias", density=0.02), Rule("*norm.weight", density=0.02)]


def paced(**arguments: Any) -> SelfPacedSparsity:
    fallen = Schedule(to=TO, end=480, shape="exponential")
    return SelfPacedSparsity(fallen, rules(), loss_below=0.15, hold=0.999, **arguments)


#: Name, epsilon of the norm, sparsity.
RUNS: dict[str, tuple[float, Callable[[], Sparsifier]]] = {
    "blind, eps 1e-7": (1e-7, lambda: AnnealedSparsity(schedule(), rules())),
    "blind, eps 0.01": (0.01, lambda: AnnealedSparsity(schedule(), rules())),
    "turns back + L1, eps 1e-7": (1e-7, lambda: paced(finish=0.7, shrink=0.1)),
    "turns back + L1, eps 0.01": (0.01, lambda: paced(finish=0.7, shrink=0.1)),
    "waits, eps 1e-7": (1e-7, lambda: paced(spike=None, patience=None)),
    "waits, eps 0.01": (0.01, lambda: paced(spike=None, patience=None)),
    "turns back, eps 1e-7": (1e-7, lambda: paced(finish=0.7)),
    "turns back, eps 0.01": (0.01, lambda: paced(finish=0.7)),
}


class Record(Callback):
    """Loss, gradient norm and non-zeros after every tenth step."""

    def __init__(self) -> None:
        self.rows: list[tuple[int, float, float, int]] = []
        self.norm = 0.0

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: Any, optimizer: Any) -> None:
        """Note the norm of the gradient."""
        norms = [p.grad.norm() for p in pl_module.parameters() if p.grad is not None]
        self.norm = float(torch.stack(norms).norm())

    def on_train_batch_end(self, trainer: Trainer, pl_module: Any, outputs: Any, *_: Any) -> None:
        """Note the rest."""
        if trainer.global_step % 10 == 0:
            live = sum(int(p.count_nonzero()) for p in pl_module.parameters())
            self.rows.append((trainer.global_step, float(outputs["loss"]), self.norm, live))


def train(eps: float, sparsity: Sparsifier, seed: int, steps: int) -> dict[str, Any]:
    """One run: its curve, and what is left at the end."""
    torch.manual_seed(seed)
    data = Quotes(source="synthetic", length=24, batch_size=32, seed=0)
    model = SparseTransformer(
        vocab_size=data.vocab_size,
        max_length=data.max_length,
        d_model=64,
        positions="none",
        norm_eps=eps,
        lr=0.003,
        eps=0.001,
        decay="none",
    )
    record = Record()
    quiet = dict.fromkeys(("logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"), False)
    trainer = Trainer(
        max_steps=steps,
        accelerator="cpu",
        gradient_clip_val=1.0,
        limit_val_batches=0,
        callbacks=[sparsity, record],
        **quiet,
    )
    trainer.fit(model, data)
    with torch.no_grad():
        report = data.split("report")
        right = float((model.eval()(report.tokens, report.length - 1).argmax(-1) == report.answer).float().mean())
    numel = sum(p.numel() for p in model.parameters())
    live = sum(int(p.count_nonzero()) for p in model.parameters())
    pace = getattr(sparsity, "pace", None)
    return {"rows": record.rows, "accuracy": right, "live": live, "numel": numel,
            "rollbacks": pace.rollbacks if pace else 0}  # fmt: skip


def draw(results: dict[str, dict[str, Any]], path: Path) -> None:
    """Loss and gradient norm against density."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    figure, axes = plt.subplots(2, 2, figsize=(11, 7), sharex=True, sharey="row")
    for number, (name, result) in enumerate(results.items()):
        column = 0 if "1e-7" in name else 1
        density = [row[3] / result["numel"] for row in result["rows"]]
        for row_number, field in enumerate((1, 2)):
            values = [max(row[field], 1e-6) for row in result["rows"]]
            label = name.rsplit(", ", 1)[0]
            axes[row_number, column].plot(density, values, label=label, color=f"C{number // 2}", lw=1.2, alpha=0.8)
    for column, eps in enumerate(("1e-7", "0.01")):
        axes[0, column].set(xscale="log", yscale="log", title=f"norm epsilon {eps}")
        axes[1, column].set(xscale="log", yscale="log", xlabel="density, all parameters counted")
    axes[0, 0].set_ylabel("training loss, nats")
    axes[1, 0].set_ylabel("gradient norm before clipping")
    axes[0, 0].invert_xaxis()
    handles, labels = axes[0, 0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="lower center", ncols=len(labels), frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description="Study the collapse at extreme density.")
    parser.add_argument("--output", type=Path, help="file of the figure, .png")
    parser.add_argument(
        "--runs", nargs="*", default=list(RUNS), choices=list(RUNS), metavar="NAME", help="which of them"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the initial weights")
    parser.add_argument("--steps", type=int, default=800, help="optimizer steps of each run, at least 700")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    records, results = Records(FILE), {}
    sys.stdout.write(
        "| run | accuracy | non-zeros | density | rollbacks | largest gradient |\n|---|---|---|---|---|---|\n"
    )
    for name in arguments.runs:
        eps, make = RUNS[name]
        key = {"run": name, "seed": arguments.seed}
        result = records.once(key, lambda eps=eps, make=make: train(eps, make(), arguments.seed, arguments.steps))
        results[name] = result
        sys.stdout.write(
            f"| {name} | {result['accuracy']:.2%} | {result['live']:,} | {result['live'] / result['numel']:.5f} "
            f"| {result['rollbacks']} | {max(row[2] for row in result['rows']):.1f} |\n"
        )
        sys.stdout.flush()
    if arguments.output:
        draw(results, arguments.output)


if __name__ == "__main__":
    main()
