"""A dry run at the release's largest shape: what loading, one evaluation and one step of the masks cost.

    python -m benchmarks.largest [--d_model 2048 --n_layers 8] [--examples 128 --length 32]

Random weights, one in a thousand of which is not zero, are written in OpenAI's folder format and loaded in a process of
their own. The unit of memory is what the tensors of the file take; the interpreter's own memory is taken off.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from benchmarks.scale import peak
from sparselit.circuits import Bound
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.interop import load_openai, save_openai
from sparselit.model.transformer import Transformer

DENSITY, VOCABULARY, CONTEXT, D_HEAD = 1 / 1000, 2048, 1024, 16


def write(folder: Path, d_model: int, n_layers: int) -> None:
    """A model of this shape in OpenAI's format."""
    generator = torch.Generator().manual_seed(0)
    options = {"norm_eps": torch.finfo(torch.float32).eps, "activation_density": 0.25, "sink": True, "bigram": True}
    model = Transformer(VOCABULARY, CONTEXT, n_layers, d_model, d_model // D_HEAD, **options)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 2:
                parameter.mul_(torch.rand(parameter.shape, generator=generator) < DENSITY)
    save_openai(model, folder)


def measure(folder: Path, n: int, length: int) -> dict[str, float]:
    """Seconds and memory of each part, in this process."""
    torch.set_num_threads(1)
    rows: dict[str, float] = {}
    start = peak()

    def done(what: str, began: float) -> None:
        rows[f"{what}, s"], rows[f"{what}, MiB"] = round(time.process_time() - began, 1), round(peak() - start)

    began = time.process_time()
    model = load_openai(folder)
    done("loading", began)
    rows["tensors, MiB"] = round(sum(p.numel() * p.element_size() for p in model.parameters()) / 2**20)
    rows["entries"] = sum(p.numel() for p in model.parameters())
    rows["non-zeros"] = sum(int(p.count_nonzero()) for p in model.parameters())
    tokens = torch.randint(VOCABULARY, (n, length), generator=torch.Generator().manual_seed(0))
    answer = torch.zeros(n, dtype=torch.long)
    examples = Examples(tokens, torch.full((n,), length), answer, answer + 1, tokens, answer)
    began = time.process_time()
    with torch.no_grad():
        model(tokens, examples.length - 1)
    done("full forward", began)
    began = time.process_time()
    problem = Problem.of(model, examples, [Bound("task_loss", at_most=100.0)], "mean")
    done("means", began)
    kept = problem.all_edges()
    problem.focus(kept)
    half = kept & (torch.rand(len(kept), generator=torch.Generator().manual_seed(1)) < 0.5)
    began = time.process_time()
    problem.works(half)
    done("one evaluation", began)
    shares = kept.float().requires_grad_()
    began = time.process_time()
    problem.soft_logits(shares, examples).sum().backward()
    done("one step of the masks", began)
    return rows


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--d_model", type=int, default=2048)
    parser.add_argument("--n_layers", type=int, default=8)
    parser.add_argument("--examples", type=int, default=128)
    parser.add_argument("--length", type=int, default=32)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.folder is not None:
        print(json.dumps(measure(options.folder, options.examples, options.length)))
        return
    with tempfile.TemporaryDirectory() as name:
        write(Path(name), options.d_model, options.n_layers)
        command = [sys.executable, "-m", "benchmarks.largest", "--folder", name]
        command += ["--examples", str(options.examples), "--length", str(options.length)]
        rows = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout)
    for what, value in rows.items():
        print(f"{what:<28}{value:>14,}")
    print(f"{'loading over tensors':<28}{rows['loading, MiB'] / rows['tensors, MiB']:>14.2f}")


if __name__ == "__main__":
    main()
