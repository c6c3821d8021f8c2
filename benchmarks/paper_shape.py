"""What a step of the paper's shape costs here, in seconds and memory, and what that means on eight GPUs.

    python -m benchmarks.paper_shape                                  # the full shape; 24 GB of memory, minutes
    python -m benchmarks.paper_shape --keys --model.d_model 512 --model.n_heads 32

Runs ``sparselit fit --config python_paper`` for a few steps of one window each, with Lightning's profiler.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import yaml

from sparselit.model.memory import weights

CONFIG = Path(__file__).parents[1] / "configs" / "python_paper.yaml"
#: Rows of Lightning's profile, and what they are here.
ROWS = {
    "run_training_batch": "step, with what follows",
    ".training_step": "forward",
    ".backward": "backward",
    ".optimizer_step": "forward, backward and Adam",
    "AnnealedSparsity.on_before_zero_grad": "projection",
    "AnnealedSparsity.on_train_batch_end": "projection",
}
#: Bytes of a parameter: itself, its gradient, Adam's two moments; all in single precision, also under bf16-mixed.
PARTS = {"parameters": 4, "gradients": 4, "moments of Adam": 8}


def profile(keys: list[str], steps: int) -> tuple[dict[str, float], float, float]:
    """Mean seconds of each row, the peak of memory in GiB, and the seconds of everything."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["fit", "--config", str(CONFIG), "--trainer.max_steps", str(steps), "--trainer.accelerator", "cpu"]
        argv += ["--trainer.precision", "32-true", "--trainer.accumulate_grad_batches", "1", "--data.batch_size", "1"]
        argv += ["--trainer.limit_val_batches", "0", "--data.source", "stdlib", "--data.held_out", "4"]
        argv += ["--trainer.enable_checkpointing", "false", "--trainer.callbacks", "[]", "--trainer.logger", "false"]
        profiler = "{class_path: SimpleProfiler, init_args: {dirpath: " + folder + ", filename: profile}}"
        argv += ["--trainer.profiler", profiler, "--threads", "null", *keys]
        start = time.perf_counter()
        call = [sys.executable, "-c", "from sparselit.cli import main; main()", *argv]
        subprocess.run(call, cwd=folder, check=True, stdout=sys.stderr)
        seconds = time.perf_counter() - start
        text = next(Path(folder).glob("fit-profile*")).read_text()
    found = {}
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        for row in ROWS:
            if len(cells) > 2 and cells[1].endswith(row):
                found[row] = float(cells[2])
    return found, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 2**20, seconds


def main() -> None:
    """Measure, and print what was measured and what follows."""
    parser = argparse.ArgumentParser(description="A few steps of the paper's shape.")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument(
        "--keys", nargs=argparse.REMAINDER, default=[], help="further keys of fit, e.g. a smaller shape"
    )
    options = parser.parse_args()
    config = yaml.safe_load(CONFIG.read_text())
    shape = {"d_mlp": None, "d_position": None, "vocab_size": 2048, "max_length": 1024, **config["model"]}
    given = dict(zip(options.keys[::2], options.keys[1::2], strict=True))
    shape |= {key.removeprefix("--model."): int(value) for key, value in given.items() if key.startswith("--model.")}
    n = weights({**shape, "d_mlp": shape["d_mlp"] or 4 * shape["d_model"]})
    found, peak, seconds = profile(options.keys, options.steps)
    sys.stdout.write(f"{n:,} entries; {options.steps} steps of 1,024 tokens, {seconds:.0f} s in all\n\n")
    sys.stdout.write("| part | GiB |\n|---|---|\n")
    for part, size in PARTS.items():
        sys.stdout.write(f"| {part} | {n * size / 2**30:.2f} |\n")
    rest = peak - sum(n * size for size in PARTS.values()) / 2**30
    sys.stdout.write(f"| activations, data, the libraries | {rest:.2f} |\n| peak, measured | {peak:.2f} |\n\n")
    sys.stdout.write("| part of a step | s |\n|---|---|\n")
    for row, value in found.items():
        sys.stdout.write(f"| {ROWS[row]} (`{row.lstrip('.')}`) | {value:.2f} |\n")


if __name__ == "__main__":
    main()
