"""Every search on the same weights, under every ablation: size, evaluations and seconds, beside the bound.

The bound is what any search by yes-or-no questions needs to find k edges in N and to certify them one by one:
``log2 C(N, k) + k`` (``docs/results/searches.md``). The seconds are those of the search alone.

    python -m benchmarks.search MODEL [--examples FILE] [--ablation zero mean] [--search Auto GroupTesting]

MODEL is a circuit file, whose weights and prompts are used, or a folder in OpenAI's format; then FILE holds the tensors
``discovery_tokens``, ``discovery_answers``, ``report_tokens``, ``report_answers`` and ``answer_pair``.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import torch

from sparselit.circuits import Bound
from sparselit.circuits import search as searches
from sparselit.circuits.criterion import measure
from sparselit.circuits.files import read_behaviour, read_circuit, read_model
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.interop import load_openai
from sparselit.model.transformer import Transformer

SEARCHES = [name for name in searches.__all__ if name[0].isupper() and name not in ("Found", "Progress", "Search")]


def load(model: Path, examples: Path | None) -> tuple[Transformer, Examples, Examples]:
    """The model, its discovery and its report examples."""
    if model.is_dir():
        if examples is None:
            sys.exit("error: a folder in OpenAI's format needs --examples FILE")
        tensors = torch.load(examples, weights_only=True)
        both = [_prompts(tensors, split) for split in ("discovery", "report")]
        return load_openai(model), both[0], both[1]
    circuit = read_circuit(model)
    splits = read_behaviour(model, circuit).splits
    return read_model(model, circuit), splits["discovery"], splits["report"]


def _prompts(tensors: dict[str, torch.Tensor], split: str) -> Examples:
    tokens, answer = tensors[f"{split}_tokens"].long(), tensors[f"{split}_answers"].long()
    one, other = tensors["answer_pair"].tolist()
    corrupted = torch.where(tokens == one, other, torch.where(tokens == other, one, tokens))
    length = torch.full_like(answer, tokens.shape[1])
    return Examples(tokens, length, answer, one + other - answer, corrupted, torch.zeros_like(answer))


def bound(n: int, k: int) -> float:
    """``log2 C(n, k) + k``."""
    return (math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1)) / math.log(2) + k


def main() -> None:
    """Print one row for each search and ablation."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--examples", type=Path)
    parser.add_argument("--ablation", nargs="+", default=["zero", "mean", "resample"])
    parser.add_argument("--search", nargs="+", default=SEARCHES)
    parser.add_argument("--task_loss", type=float, default=0.14, help="bound of the search, nats")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.set_flush_denormal(True)
    torch.optim.Adam([torch.zeros(1, requires_grad=True)]).step()  # the first one imports for two seconds
    model, discovery, report = load(options.model, options.examples)
    criterion = [Bound("task_loss", at_most=options.task_loss)]
    sys.stdout.write(
        f"task_loss ≤ {options.task_loss} on {len(discovery.answer):,} examples; loss and accuracy on "
        f"{len(report.answer):,} others\n\n"
        "| ablation | search | edges | in the layers | free biases | loss | accuracy | evaluations | bound | "
        "forwards | backwards | seconds | MiB |\n|---|---|---|---|---|---|---|---|---|---|---|---|---|\n"
    )
    for ablation in options.ablation:
        for name in options.search:
            problem = Problem.of(model, discovery, criterion, ablation)
            found = getattr(searches, name)().run(problem)
            edges, cost = problem.edges, problem.cost
            weights = found.kept & ~edges.is_bias
            inside = torch.tensor([parameter.startswith("layers.") for parameter in edges.names])[edges.matrix]
            values = measure(problem.naive_logits(found.kept, report), report)
            row = [
                ablation,
                name,
                int(weights.sum()),
                int((weights & inside).sum()),
                int((found.kept & edges.is_bias).sum()),
                f"{values['task_loss']:.4f}",
                f"{100 * values['accuracy']:.2f} %",
                cost.evaluations,
                round(bound(len(edges), int(found.kept.sum()))),
                cost.forwards,
                cost.backwards,
                f"{cost.seconds:.1f}",
                round(cost.peak_memory),
            ]
            sys.stdout.write("| " + " | ".join(map(str, row)) + " |\n")
            sys.stdout.flush()


if __name__ == "__main__":
    main()
