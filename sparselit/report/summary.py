"""The summary of a run: a page of Markdown that a person reads in a terminal 80 columns wide."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from sparselit.circuits.circuit import Circuit
from sparselit.report.terminal import controlled, minimal
from sparselit.sparsity.density import Row, total
from sparselit.statistics.intervals import wilson

WIDTH = 80
#: Splits whose accuracies are shown, in this order.
SPLITS = ("val", "report", "out_of_distribution")


class Score(NamedTuple):
    """Accuracy on the prompts of one kind.

    Attributes:
        split: where the prompts come from, e.g. ``report``.
        stratum: which of them; ``all`` for all.
        right: prompts answered right.
        n: prompts.
    """

    split: str
    stratum: str
    right: int
    n: int


@dataclass
class Summary:
    """What there is to say after a run.

    Attributes:
        name: of the run, e.g. ``quotes/version_0``.
        task: class of the task.
        model: class of the model.
        steps: optimizer steps taken in all.
        seconds: wall time of the training, seconds.
        scores: accuracies on held-out prompts.
        circuit: facts about the circuit, as (name, text); see :func:`circuit_facts`.
        rows: the density table of the model.
        lines: further facts, as (name, text); a circuit's size for example.
        commands: what to type next, as (purpose, command).
    """

    name: str
    task: str
    model: str
    steps: int
    seconds: float
    scores: Sequence[Score] = ()
    circuit: Sequence[tuple[str, str]] = ()
    rows: Sequence[Row] = ()
    lines: Sequence[tuple[str, str]] = ()
    commands: Sequence[tuple[str, str]] = field(default_factory=list)

    def __str__(self) -> str:
        facts = [
            ("task", self.task),
            ("model", f"{self.model}, {total(self.rows).numel:,} parameters"),
            ("training", f"{self.steps:,} steps, {self.seconds:.1f} s"),
            *self.lines,
        ]
        blocks = [f"# {self.name}", _facts(facts)]
        if self.scores:
            blocks += ["## Accuracy on held-out prompts", _code(score_lines(self.scores))]
        if self.circuit:
            blocks += ["## Circuit", _facts(self.circuit)]
        if self.rows:
            blocks += ["## Density", _code(density_lines(self.rows, vectors=False))]
        if self.commands:
            lines = [line for purpose, command in self.commands for line in (f"# {purpose}", command)]
            blocks += ["## Commands", _code(lines)]
        return "\n\n".join(blocks) + "\n"


def scores(metrics: Mapping[str, float]) -> list[Score]:
    """The accuracies among logged metrics, ``report/accuracy/<stratum>`` with its ``report/n/<stratum>``.

    Args:
        metrics: logged values by name, after validation or test.
    """
    found = []
    for split in SPLITS:
        prefix = f"{split}/accuracy"
        for name, value in metrics.items():
            if name == prefix or name.startswith(f"{prefix}/"):
                stratum = name[len(prefix) + 1 :]
                n = round(metrics.get(f"{split}/n/{stratum}" if stratum else f"{split}/n", 0))
                if n:
                    found.append(Score(split, stratum or "all", round(float(value) * n), n))
    return found


def circuit_facts(circuit: Circuit) -> list[tuple[str, str]]:
    """What there is to say of a circuit in a few lines, as (name, text); scores are those on the report split."""
    size, evidence = circuit.size, circuit.evidence
    held_out = evidence.held_out
    certificate = minimal(circuit) if circuit.certificate.complete else "NONE, the search was ended before"
    facts = [controlled(circuit), ("size", f"{size.edges:,} edges, {size.nodes:,} nodes, {size.free:,} free")]
    for row in circuit.criterion:
        sign, bound = ("≤", row.at_most) if row.at_most is not None else ("≥", row.at_least)
        text = f"{row.value:.4f}, to be {sign} {bound:g} ({held_out.split} split, n {held_out.n:,})"
        facts.append((row.metric, text))
    return [
        *facts,
        ("certificate", certificate),
        ("ablation", str(circuit.ablation)),
        ("necessity", f"loss {evidence.complement.task_loss:.4f} with exactly these edges ablated"),
        ("null", f"{evidence.nulls.random_orders.median:,} edges needed in random order"),
    ]


def score_lines(found: Sequence[Score]) -> list[str]:
    """A table of accuracies with their 95 % intervals."""
    split = max(len("split"), *(len(score.split) for score in found))
    stratum = max(len("stratum"), *(len(score.stratum) for score in found))
    lines = [f"{'split':<{split}}  {'stratum':<{stratum}}  {'accuracy':>9}  {'95 % interval':>17}  {'n':>7}"]
    for score in found:
        low, high = wilson(score.right, score.n)
        interval = f"{100 * low:.2f} - {100 * high:.2f} %"
        share = f"{100 * score.right / score.n:.2f} %"
        lines.append(f"{score.split:<{split}}  {score.stratum:<{stratum}}  {share:>9}  {interval:>17}  {score.n:>7,}")
    return lines


def density_lines(rows: Iterable[Row], vectors: bool = True) -> list[str]:
    """A table of densities with its total.

    Args:
        rows: the density table.
        vectors: list biases, gains and sinks one by one; otherwise they are one line.
    """
    rows = list(rows)
    matrices = [row for row in rows if len(row.shape) > 1]
    small = [row for row in rows if len(row.shape) <= 1]
    shown = [(row.name, "x".join(map(str, row.shape)), row) for row in (rows if vectors else matrices)]
    if small:
        text = f"{len(small)} biases, gains, sinks"
        if matrices:
            shown.append(("matrices", "", total(matrices)))
        shown.append((text, "", total(small)))
    shown.append(("total", "", total(rows)))
    shape = max(len("shape"), *(len(text) for _, text, _ in shown))
    entries = max(len("non-zero"), *(len(f"{row.numel:,}") for _, _, row in shown))
    name = min(max(len(text) for text, _, _ in shown), WIDTH - shape - 2 * entries - 9 - 8)
    lines = [f"{'tensor':<{name}}  {'shape':>{shape}}  {'density':>9}  {'non-zero':>{entries}}  {'entries':>{entries}}"]
    for text, size, row in shown:
        text = text if len(text) <= name else "…" + text[1 - name :]
        numbers = f"{row.density:>9.5f}  {row.nonzero:>{entries},}  {row.numel:>{entries},}"
        lines.append(f"{text:<{name}}  {size:>{shape}}  {numbers}")
    return lines


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in facts)
    lines: list[str] = []
    for name, text in facts:
        start, indent = f"- {name:<{width}}  ", " " * (width + 4)
        wrapped = textwrap.wrap(text, WIDTH - len(indent), break_long_words=False, break_on_hyphens=False)
        lines += [f"{indent if i else start}{line}" for i, line in enumerate(wrapped or [""])]
    return "\n".join(lines)


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])
