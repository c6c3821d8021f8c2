"""Circuit sizes of sparse and dense models of one shape and task, and their ratio, under several protocols.

    python -m benchmarks.sparse_dense              trains and searches what is missing, then prints the tables
    python -m benchmarks.sparse_dense --table      only prints the tables, from the results that there are
    python -m benchmarks.sparse_dense --minutes 3  as the first, but begins no search after three minutes
    python -m benchmarks.sparse_dense --seconds 720  gives each search so long, and again those that ran out of less

A size belongs to its protocol: search x ablation x bounds. Beside each stands what the same search needs for nulls:
other answers in the same model, and the task in an untrained model of the same shape and density. Results are kept in
results/sparse_dense.jsonl, one line for each search, so that an interrupted command goes on where it was.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import geometric_mean
from typing import Any, NamedTuple

import torch
from sparselit.tasks import MajorityToken, Minimum, Quotes

from benchmarks.records import Records
from sparselit.circuits import Bound
from sparselit.circuits import search as searches
from sparselit.circuits.criterion import Criterion, measure
from sparselit.circuits.evidence.null_searches import null_problem, working_set
from sparselit.circuits.run.granularity import Granularity
from sparselit.circuits.search.base import Found
from sparselit.circuits.search.problem import Problem
from sparselit.data.examples import Examples
from sparselit.data.task import Task
from sparselit.model.transformer import Transformer

ROOT = Path(__file__).resolve().parents[1]
RESULTS = ROOT / "results"
FILE = RESULTS / "sparse_dense.jsonl"
SEEDS, SECONDS = 3, 100.0  # of CPU time, the longest that one search may take unless told otherwise
MODELS = ("sparse", "dense")


class Pair(NamedTuple):
    """A task with a sparse and a dense model of one shape.

    Attributes:
        task: makes the data.
        dense: what makes ``sparselit fit`` train the dense partner; the sparse one's configuration has the key's name.
    """

    task: Callable[[], Task]
    dense: Sequence[str]


#: A dense model learns these tasks in fewer steps.
_DENSE = ("--sparsity", "null", "--trainer.max_steps", "1000")
TASKS = {
    "quotes_synthetic": Pair(
        lambda: Quotes(source="synthetic", length=24, batch_size=128, discovery=512), ["--config", "quotes_dense"]
    ),
    "majority_token": Pair(
        lambda: MajorityToken(batch_size=128, discovery=512), ["--config", "majority_token", *_DENSE]
    ),
    "minimum": Pair(lambda: Minimum(batch_size=128, discovery=512), ["--config", "minimum", *_DENSE]),
}


class Protocol(NamedTuple):
    """How a size is measured.

    Attributes:
        search: class name.
        ablation: kind.
        bounds: the criterion.
        granularity: what is removed as one.
        certified: whether the search ends in a certificate; without it its own answer counts, as in the paper.
    """

    search: str
    ablation: str
    bounds: Criterion
    granularity: Granularity = "weight"
    certified: bool = True

    def __str__(self) -> str:
        kind = self.granularity if self.certified else f"{self.granularity}, not certified"
        return " · ".join([self.search, self.ablation, kind, ", ".join(map(str, self.bounds))])


LOSS, FAITHFUL = Bound("task_loss", at_most=0.15), Bound("kl", at_most=0.02)
ROBUST = Protocol("SoftMasks", "mean", [LOSS, FAITHFUL])
#: Of every task; then of the first one only.
COMMON = [
    Protocol("SoftMasks", "zero", [LOSS]),
    Protocol("SoftMasks", "mean", [LOSS]),
    Protocol("NodeMasks", "mean", [Bound("calibrated_loss", at_most=0.15)], "channel", certified=False),  # the paper's
    ROBUST,
]
MORE = [Protocol(search, "mean", [LOSS, FAITHFUL]) for search in ("Auto", "GroupTesting")]
#: What is searched beside, the third one under the robust protocol only.
NULLS = ("swapped_target", "untrained_model", "nonsense_target")


class Job(NamedTuple):
    """One search."""

    task: str
    model: str
    seed: int
    protocol: Protocol
    null: str | None

    @property
    def key(self) -> dict[str, Any]:
        """What identifies its line in the results."""
        return {**self._asdict(), "protocol": str(self.protocol)}


def jobs(seeds: int) -> Iterator[Job]:
    """All searches, those of the robust protocol and of the first task first."""
    first, *others = TASKS
    for protocol in (ROBUST, *MORE, *(each for each in COMMON if each != ROBUST)):
        yield from (Job(first, model, seed, protocol, None) for seed in range(seeds) for model in MODELS)
        if protocol in COMMON and protocol.certified:
            for null in NULLS[: 3 if protocol == ROBUST else 2]:
                yield from (Job(first, model, 0, protocol, null) for model in MODELS)
    for seed in range(seeds):
        for protocol in COMMON[::-1]:
            yield from (Job(task, model, seed, protocol, None) for task in others for model in MODELS)
    for seed in range(1, seeds):
        for null in NULLS:
            yield from (Job(first, model, seed, ROBUST, null) for model in MODELS)
    for task in others:
        yield from (Job(task, model, 0, ROBUST, null) for null in NULLS for model in MODELS)


def missing(done: Sequence[Mapping[str, Any]], seeds: int, seconds: float) -> list[Job]:
    """The searches without a result, and those that ran out of less time than ``seconds``."""

    def has(job: Job) -> bool:
        rows = [row for row in done if job.key.items() <= row.items()]
        return bool(rows) and (rows[-1].get("complete", True) or rows[-1]["cpu_seconds"] >= seconds)

    return [job for job in jobs(seeds) if not has(job)]


def main() -> None:
    """Train, search, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--table", action="store_true", help="only print the tables")
    parser.add_argument("--seeds", type=int, default=SEEDS)
    parser.add_argument("--minutes", type=float, default=1e9, help="after which no search begins")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="CPU time, the longest one search may take")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)
    end = time.monotonic() + 60 * options.minutes
    records = Records(FILE)
    left = missing(records.read(), options.seeds, options.seconds)
    while left and not options.table and time.monotonic() < end:
        job = left.pop(0)
        row = job.key | measured(job, options.seconds)
        records.append(row)
        sys.stderr.write(f"{row}\n")
    sys.stdout.write(tables(records.read()))
    sys.stdout.write(f"\nsearches that are missing: {len(left)}\n")


def trained(task: str, kind: str, seed: int) -> Transformer:
    """The model of one task, kind and seed; it is trained where no checkpoint is there."""
    folder = RESULTS / "sparse_dense" / task / f"{kind}{seed}"
    if not list(folder.rglob("*.ckpt")):
        command = [sys.executable, "-c", "from sparselit.cli import main; main()", "fit"]
        command += TASKS[task].dense if kind == "dense" else ["--config", task]
        command += ["--circuits", "null", "--seed_everything", str(seed), "--trainer.default_root_dir", str(folder)]
        subprocess.run(command, check=True, cwd=ROOT, stdout=subprocess.DEVNULL)
    newest = max(folder.rglob("*.ckpt"), key=lambda path: int(path.stem.partition("=")[2]))
    return Transformer.from_checkpoint(newest)


def examples_of(task: str) -> dict[str, Examples]:
    """Its splits, of which at most 512 prompts are searched on."""
    data = TASKS[task].task()
    data.prepare_data()
    data.setup("fit")
    return {split: data.split(split) for split in ("discovery", "report")}


def measured(job: Job, seconds: float) -> dict[str, Any]:
    """Edges that one search needs, and how the result does on the report split; None where it finds nothing.

    ``seconds`` of CPU time are the longest that the search may take.
    """
    model, protocol = trained(job.task, job.model, job.seed), job.protocol
    splits = examples_of(job.task)
    began = time.process_time()
    problem = Problem.of(model, splits["discovery"], protocol.bounds, protocol.ablation, protocol.granularity)
    if job.null is not None:
        problem = null_problem(job.null, problem, protocol.bounds)
    start, values = working_set(problem)
    reached = {bound.metric: values[bound.metric] for bound in protocol.bounds}
    row: dict[str, Any] = {"of": len(problem.edges), "edges": None}
    if start is not None:
        found = _searched(problem, start, protocol, seconds)
        reached = problem.values(found.kept)
        row |= {"edges": int((found.kept & ~problem.edges.is_bias).sum()), "complete": found.complete}
        row |= {"start": int(start.sum()), "evaluations": problem.cost.evaluations}
        if job.null is None:
            report = splits["report"]
            shown = measure(problem.logits(found.kept, report), report, problem.logits(problem.all_edges(), report))
            row |= {
                "report": {name: round(shown[name], 4) for name in ("task_loss", "calibrated_loss", "kl", "accuracy")}
            }
            row |= {"n": len(report.answer)}
    spent = round(time.process_time() - began, 1)
    return row | {"reached": {name: round(value, 4) for name, value in reached.items()}, "cpu_seconds": spent}


def _searched(problem: Problem, start: torch.Tensor, protocol: Protocol, seconds: float) -> Found:
    search: searches.Search = getattr(searches, protocol.search)()
    end = time.process_time() + seconds

    def ended(stage: str, edges: int) -> None:
        if time.process_time() > end:
            raise KeyboardInterrupt  # the search then gives what it has

    if protocol.certified:
        return search.run(problem, start, ended)
    found = Found(start.clone())
    search.shrink(problem, found, lambda stage, edges: None)
    found.complete = True  # as far as this protocol goes
    return found


def tables(rows: Iterable[Mapping[str, Any]]) -> str:
    """Sizes by seed with their ratio, by task; what the nulls need; the ratios' geometric mean over tasks."""
    rows = list(rows)
    protocols = list(map(str, [*COMMON, *MORE]))
    lines = ["| task | protocol | sparse | dense | ratio |", "|" + "---|" * 5]
    for task in TASKS:
        for protocol in protocols:
            sizes = [_of(rows, task, protocol, model) for model in MODELS]
            if any(sizes):
                lines.append(f"| {task} | {protocol} | {_list(sizes[0])} | {_list(sizes[1])} | {_ratio(*sizes)[1]} |")
    lines += ["", "| task | protocol | null | sparse | dense |", "|" + "---|" * 5]
    for task in TASKS:
        for protocol in protocols:
            for null in NULLS:
                sizes = [_of(rows, task, protocol, model, null) for model in MODELS]
                if any(sizes):
                    lines.append(f"| {task} | {protocol} | {null} | {_list(sizes[0])} | {_list(sizes[1])} |")
    lines += ["", f"| protocol | {' | '.join(TASKS)} | geometric mean |", "|" + "---|" * (len(TASKS) + 2)]
    for protocol in map(str, COMMON):
        ratios = [_ratio(*(_of(rows, task, protocol, model) for model in MODELS)) for task in TASKS]
        known = [value for value, _ in ratios if value]
        mean = f"{geometric_mean(known):.1f}" if len(known) == len(TASKS) else "–"
        bounded = "≤ " if any(text.startswith("≤") for _, text in ratios) and mean != "–" else ""
        lines.append(f"| {protocol} | {' | '.join(text for _, text in ratios)} | {bounded}{mean} |")
    return "\n".join(lines) + "\n"


def _of(
    rows: Iterable[Mapping[str, Any]], task: str, protocol: str, model: str, null: str | None = None
) -> dict[int, Mapping[str, Any]]:
    """The results of one cell, by seed."""
    wanted = {"task": task, "protocol": protocol, "model": model, "null": null}
    return {row["seed"]: row for row in rows if wanted.items() <= row.items()}


def _ratio(sparse: Mapping[int, Mapping[str, Any]], dense: Mapping[int, Mapping[str, Any]]) -> tuple[float | None, str]:
    """Geometric mean of dense / sparse over the seeds, and as text; ≤ where a dense search ran out of time."""
    seeds = [seed for seed in sparse if seed in dense and sparse[seed]["edges"] and dense[seed]["edges"]]
    if not seeds:
        return None, "–"
    ratio = geometric_mean(dense[seed]["edges"] / sparse[seed]["edges"] for seed in seeds)
    return ratio, f"{'' if all(dense[seed]['complete'] for seed in seeds) else '≤ '}{ratio:.1f}"


def _list(rows: Mapping[int, Mapping[str, Any]]) -> str:
    """Sizes by seed; ≤ where the search ran out of time, so that edges may still go; what a failed one came to."""
    return ", ".join(_shown(row) for _, row in sorted(rows.items())) or "–"


def _shown(row: Mapping[str, Any]) -> str:
    if row["edges"] is None:
        last = list(row.get("reached", {}).items())[-1:]
        return "none" + "".join(f" ({metric} {value:.2g})" for metric, value in last)
    return f"{'' if row['complete'] else '≤ '}{row['edges']:,}"


if __name__ == "__main__":
    main()
