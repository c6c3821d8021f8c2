"""How often the tests of a circuit err where their null hypothesis is true, against the level they promise.

    python -m benchmarks.calibration

Draws 1,000 experiments for each row in which the null hypothesis holds and sits on its bound, and counts how often the
test rejects it at alpha 0.05. "ok": inside of the 99 % binomial interval around alpha; "low": below it, the test is
only cautious; "HIGH": above it. The rows of sufficiency use random circuits of a small transformer. An exact copy of
the model is tested as well: it must never be called different. It takes some minutes.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from sparselit.circuits.criterion import task_loss
from sparselit.circuits.evidence.hypothesis_tests import equivalence, minimality, sufficiency
from sparselit.circuits.evidence.nulls import random_circuit
from sparselit.circuits.run.naive import NaiveEngine
from sparselit.circuits.subnetwork import Subnetwork
from sparselit.data.examples import Examples
from sparselit.model.transformer import Transformer

EXPERIMENTS, ALPHA = 1000, 0.05
Generator = torch.Generator


def noise(kind: str, n: int, g: Generator) -> Tensor:
    """Independent differences (example,) of mean zero: what a loss difference may look like."""
    if kind == "normal":
        return torch.randn(n, generator=g)
    exponential = -torch.rand(n, generator=g).clamp(min=1e-9).log()
    if kind == "exponential":
        return exponential - 1
    if kind == "lognormal":
        return torch.randn(n, generator=g).exp() - math.exp(0.5)
    return (torch.rand(n, generator=g) < 0.02) * exponential - 0.02  # rare: nothing on 98 % of the examples


def equivalence_of_losses(kind: str, n: int, g: Generator) -> bool:
    """The mean difference is exactly the margin, on a random side: not equivalent."""
    side = 1 if torch.rand((), generator=g) < 0.5 else -1
    full = torch.rand(n, generator=g)
    circuit = full + 0.05 * noise(kind, n, g) + side * 0.05
    return equivalence(circuit, full, "task_loss", 0.05, ALPHA)["verdict"] == "equivalent"


def equivalence_of_accuracies(kind: str, n: int, g: Generator) -> bool:
    """The circuit is right less often by exactly the margin of 0.05, and swaps some answers besides."""
    swapped = {"one-sided": 0.0, "two-sided": 0.1}[kind]
    u = torch.rand(n, generator=g)
    right = (u < 0.4).float()  # in both; then in the circuit only, in the model only, in neither
    circuit = right + ((u >= 0.4) & (u < 0.4 + swapped)).float()
    full = right + ((u >= 0.4 + swapped) & (u < 0.45 + 2 * swapped)).float()
    return equivalence(circuit, full, "accuracy", 0.05, ALPHA)["verdict"] == "equivalent"


def minimality_of_losses(kind: str, n: int, g: Generator) -> bool:
    """Five edges of which none has any effect on average: is any of them said to matter?"""
    without = {str(i): {"task_loss": noise(kind, n, g)} for i in range(5)}
    return minimality({"task_loss": torch.zeros(n)}, without, 0.0, ALPHA)["matter"] > 0


def minimality_of_accuracies(kind: str, n: int, g: Generator) -> bool:
    """Five edges whose removal breaks as many answers as it mends."""
    whole = (torch.rand(n, generator=g) < 0.8).float()

    def swapped() -> Tensor:
        u = torch.rand(n, generator=g)
        return torch.where(u < 0.2, (torch.rand(n, generator=g) < 0.8).float(), whole)

    without = {str(i): {"accuracy": swapped()} for i in range(5)}
    return minimality({"accuracy": whole}, without, 0.0, ALPHA)["matter"] > 0


class RandomCircuits:
    """Losses of random circuits of one small transformer, each drawn anew."""

    def __init__(self, draws: int) -> None:
        torch.manual_seed(0)
        model = Transformer(8, 6, n_layers=1, d_model=8, n_heads=2, d_mlp=8, init_std=0.5).eval()
        engine = NaiveEngine.of(model)
        self.profile = Subnetwork(engine, torch.rand(len(engine.edges)) < 0.5)
        tokens = torch.randint(8, (32, 6))
        full = torch.full((32,), 6)
        with torch.no_grad():
            answer = model(tokens, full - 1).argmax(-1)
        self.examples = Examples(tokens, full, answer, (answer + 1) % 8, tokens, torch.zeros(32, dtype=torch.long))
        self.draws, self.seed = draws, 0

    @torch.no_grad()
    def loss(self) -> float:
        """Of the next random circuit."""
        self.seed += 1
        logits = self.profile.keeping(random_circuit(self.profile, self.seed)).logits(self.examples)
        return float(task_loss(logits, self.examples).mean())

    def rejects(self, kind: str, n: int, g: Generator) -> bool:
        """The circuit is itself a random one."""
        return sufficiency(self.loss(), [self.loss() for _ in range(self.draws)], ALPHA)["verdict"] == "sufficient"


def rows() -> Iterator[tuple[str, str, int, Callable[[str, int, Generator], bool]]]:
    """Test, kind of data, number of examples (random circuits), one experiment."""
    for kind in ("normal", "exponential", "lognormal", "rare"):
        for n in (100, 1000, 4000):
            yield "equivalence, loss", kind, n, equivalence_of_losses
    for kind in ("one-sided", "two-sided"):
        for n in (100, 1000, 4000):
            yield "equivalence, accuracy", kind, n, equivalence_of_accuracies
    for draws in (19, 39):
        yield "sufficiency", "random circuits", draws, RandomCircuits(draws).rejects
    for kind in ("normal", "exponential", "lognormal", "rare"):
        for n in (100, 1000, 4000):
            yield "minimality (5 edges), loss", kind, n, minimality_of_losses
    for n in (100, 1000, 4000):
        yield "minimality (5 edges), accuracy", "swaps", n, minimality_of_accuracies


def copies(g: Generator) -> int:
    """How many of 1,000 exact copies are called different, by loss or by accuracy."""
    called = 0
    for _ in range(EXPERIMENTS):
        loss = -torch.rand(200, generator=g).log()
        called += equivalence(loss, loss.clone(), "task_loss", 0.05, ALPHA)["verdict"] != "equivalent"
        right = (loss < 1).float()
        called += equivalence(right, right.clone(), "accuracy", 0.01, ALPHA)["verdict"] == "different"
    return called


def main() -> None:
    """Print the table."""
    g = torch.Generator().manual_seed(0)
    half = 2.576 * math.sqrt(ALPHA * (1 - ALPHA) / EXPERIMENTS)
    sys.stdout.write(f"{'test':<34}{'data':<17}{'n':>6}{'false positives':>18}\n")
    for test, kind, n, experiment in rows():
        share = sum(experiment(kind, n, g) for _ in range(EXPERIMENTS)) / EXPERIMENTS
        verdict = "HIGH" if share > ALPHA + half else "low" if share < ALPHA - half else "ok"
        sys.stdout.write(f"{test:<34}{kind:<17}{n:>6,}{share:>12.3f}  {verdict}\n")
        sys.stdout.flush()
    sys.stdout.write(f"\n{EXPERIMENTS:,} experiments a row; alpha {ALPHA:g}, 99 % interval {ALPHA - half:.3f} - ")
    sys.stdout.write(f"{ALPHA + half:.3f}\nexact copies called different: {copies(g)} of {2 * EXPERIMENTS:,}\n")


if __name__ == "__main__":
    torch.set_num_threads(1)
    main()
