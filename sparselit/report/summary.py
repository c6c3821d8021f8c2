"""The summary of a run: a page of Markdown that a person reads in a terminal 80 columns wide."""

from __future__ import annotations

import math
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparselit.circuits.criterion import Bound, limit_text
from sparselit.circuits.evidence.assumptions import assumptions
from sparselit.circuits.run.ablation import as_ablation
from sparselit.report.facts import WIDTH, counted, hanging, interval_text, percent, shortened, size_text
from sparselit.report.terminal import ASSUMED, DID_NOT_GENERALISE, controlled, minimal
from sparselit.runs.folder import CONFIG, EVENTS, SUMMARY, RunFolder, shown
from sparselit.runs.result import ENDED, Accuracy, Circuits, Density, FoundCircuit, Loss, Result, Seconds
from sparselit.sparsity.density import Row, density_table, total


def summary(result: Result, folder: Path) -> str:
    """The page of Markdown that a person reads after a run, 80 columns wide; it says what ``result.json`` says.

    Args:
        result: what the run has come to.
        folder: the run folder.
    """
    blocks = [f"# {result.name}", _facts(list(_run_facts(result, folder)))]
    if result.accuracies:
        blocks += ["## Accuracy on held-out prompts", _code(score_lines(result.accuracies))]
    if any(row.nats_per_byte is not None for row in result.losses):
        blocks += ["## Loss on held-out text", _code(loss_lines(result.losses))]
    if result.circuits is not None and (lines := list(_circuit_lines(result.circuits, result.seconds, folder))):
        blocks += ["## Circuit", _facts(lines)]
    if assumed := list(dict.fromkeys(row for circuit in _latest(result) for row in _assumed(circuit))):
        blocks += [f"## {ASSUMED}", _facts(assumed)]
    if result.density is not None and result.density.tensors:
        blocks += ["## Density", _code(density_lines(_rows(result.density), vectors=False))]
    commands = [line for purpose, command in _commands(result, folder) for line in (f"# {purpose}", command)]
    blocks += ["## Commands", _code(commands)]
    return "\n\n".join(blocks) + "\n"


def _latest(result: Result) -> tuple[FoundCircuit, ...]:
    return result.circuits.latest if result.circuits is not None else ()


def _assumed(circuit: FoundCircuit) -> Iterator[tuple[str, str]]:
    """What a circuit rests on, and what would refute it."""
    criterion = [Bound(row.metric, row.at_most, row.at_least) for row in circuit.criterion]
    for row in assumptions(as_ablation(circuit.ablation), criterion, circuit.granularity):
        yield row.name, str(row)


def _run_facts(result: Result, folder: Path) -> Iterator[tuple[str, str]]:
    density = result.density
    parameters = "" if density is None else f", {total(_rows(density)).numel:,} parameters"
    yield "task", result.task
    yield "model", f"{result.model}{parameters}"
    yield "training", _training(result)
    for line in result.problems:
        yield "problem", line
    for line in result.advice:
        yield "advice", line
    if density is not None and density.target is not None and density.reached is not None:
        reached, target = f"{density.reached:.4g}", f"{density.target:.4g}"
        if reached != target:
            yield "density", f"{reached} reached, target {target} (of the sparsified tensors)"
    machine, versions = result.machine, result.versions
    threads = counted(machine.threads, "thread")
    threads += f", {machine.processes} processes" if machine.processes > 1 else ""
    software = f"torch {versions.torch}, lightning {versions.lightning}, python {versions.python}"
    yield "machine", f"{machine.capability}, {threads}, {machine.device}, {machine.precision}; {software}"
    if result.checkpoint is not None:
        yield "checkpoint", shown(folder / result.checkpoint)
    for table in sorted(folder.rglob("metrics.csv")):
        yield "curves", shown(table)
    yield "summary", shown(folder / SUMMARY)


def _training(result: Result) -> str:
    steps, reason = result.steps, ENDED[result.ended]
    asked = "" if steps.asked in (None, steps.done) else f" ({steps.asked:,} asked)"
    return f"{counted(steps.done, 'step')}, {result.seconds.training:.1f} s; {reason}{asked}"


def _circuit_lines(circuits: Circuits, seconds: Seconds, folder: Path) -> Iterator[tuple[str, str]]:
    """The circuit of a run, of a mixture the circuit of each task, and what it cost."""
    latest = circuits.latest
    for circuit in latest:
        if circuit.task:
            yield "task", circuit.task
        yield from circuit_facts(circuit)
        yield "file", shown(folder / circuit.path)
    if len(latest) > 1:
        yield "all", f"{circuits.edges:.1f} edges, geometric mean of {len(latest)} circuits"
        yield "overlap", f"{percent(circuits.overlap or 0, 1)} of the edges of two circuits, mean of all pairs"
    if circuits.reason:
        note = "none found by the last search" if latest else "none found"
        yield "circuit", f"{note}: {circuits.reason}"
    if circuits.searches:
        share = f", {percent(seconds.discovery / seconds.training, 0)} of the run's time" if seconds.training else ""
        yield "discovery", f"{seconds.discovery:.1f} s in {counted(circuits.searches, 'search', 'searches')}{share}"


def circuit_facts(circuit: FoundCircuit) -> list[tuple[str, str]]:
    """What there is to say of a circuit in a few lines, as (name, text); scores are those on the report split."""
    certificate = (
        minimal(circuit.granularity, circuit.units) if circuit.complete else "NONE, some edges may not be needed"
    )
    size = size_text(circuit.edges, circuit.nodes, circuit.free)
    facts = [("controls", controlled(circuit.searched)), ("size", size)]
    if not circuit.generalises:
        facts.insert(0, ("verdict", DID_NOT_GENERALISE))
    for row in circuit.criterion:
        limit = limit_text(row.at_most, row.at_least)
        facts.append((row.metric, f"{row.value:.4f}, to be {limit} (report split, n {circuit.n:,})"))
    return [
        *facts,
        ("certificate", certificate),
        ("ablation", str(as_ablation(circuit.ablation))),
        ("necessity", f"loss {circuit.necessity:.4f} with exactly these edges ablated"),
        ("null", f"{circuit.null_edges:,.0f} edges needed in random order"),
    ]


def _commands(result: Result, folder: Path) -> Iterator[tuple[str, str]]:
    """What to type next, as (purpose, command)."""
    yield "the same run again", f"sparselit fit --config {shlex.quote(shown(folder / CONFIG))}"
    yield "go on from the last checkpoint", shlex.join(["sparselit", "fit", "--ckpt_path", shown(folder)])
    if any(folder.glob(EVENTS)):
        run = RunFolder.of(folder / CONFIG)
        yield "curves", f"tensorboard --logdir {shlex.quote(shown(run.root if run else folder))}"
    elif any(folder.rglob(EVENTS)):  # of a logger of the user's own
        yield "curves", f"tensorboard --logdir {shlex.quote(shown(folder))}"
    for offline in sorted(folder.rglob("wandb/offline-run-*")):
        yield "curves, to Weights & Biases", f"wandb sync {shlex.quote(shown(offline))}"
    for circuit in _latest(result):
        of = f" of {circuit.task}" if circuit.task else ""
        yield f"check every claim of the circuit{of}", verify_command(folder / circuit.path)


def verify_command(path: Path) -> str:
    """The command that recomputes every claim of a circuit."""
    return f"sparselit verify {shlex.quote(shown(path))}"


def _rows(density: Density) -> list[Row]:
    return [Row(row.name, row.shape, row.numel, row.nonzero) for row in density.tensors]


def score_lines(found: Sequence[Accuracy]) -> list[str]:
    """A table of accuracies with their 95 % intervals."""
    split = max(len("split"), *(len(score.split) for score in found))
    stratum = max(len("stratum"), *(len(score.stratum) for score in found))
    lines = [f"{'split':<{split}}  {'stratum':<{stratum}}  {'accuracy':>9}  {'95 % interval':>17}  {'n':>7}"]
    for score in found:
        interval, share = interval_text(score.interval), percent(score.value)
        lines.append(f"{score.split:<{split}}  {score.stratum:<{stratum}}  {share:>9}  {interval:>17}  {score.n:>7,}")
    return lines


def loss_lines(found: Sequence[Loss]) -> list[str]:
    """A table of losses of texts."""
    lines = ["split   nats/token  nats/byte  bits/byte"]
    for row in found:
        if row.nats_per_byte is not None:
            bits = row.nats_per_byte / math.log(2)
            lines.append(f"{row.split:<6}  {row.nats_per_token:>10.4f}  {row.nats_per_byte:>9.4f}  {bits:>9.4f}")
    return lines


def density_of(tensors: Mapping[str, Any]) -> tuple[list[Row], Row]:
    """What :func:`density_lines` shows of a model's tensors, and the row of all of them."""
    rows = density_table(tensors)
    return rows, total(rows)


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
        text = shortened(text, name)
        numbers = f"{row.density:>9.5f}  {row.nonzero:>{entries},}  {row.numel:>{entries},}"
        lines.append(f"{text:<{name}}  {size:>{shape}}  {numbers}")
    return lines


def _facts(facts: Sequence[tuple[str, str]]) -> str:
    width = max(len(name) for name, _ in facts)
    lines: list[str] = []
    for name, text in facts:
        lines += hanging(f"- {name:<{width}}  ", text, whole_words=True)
    return "\n".join(lines)


def _code(lines: Sequence[str]) -> str:
    return "\n".join(["```", *lines, "```"])
