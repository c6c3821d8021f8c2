"""Every shipped task, trained, sparsified and searched: the table of docs/results/suite.md, as one command.

    python -m benchmarks.suite                     runs what is missing, then writes docs/results/suite.md
    python -m benchmarks.suite --only parity       the same for some configurations
    python -m benchmarks.suite --table             only writes the page, from the results that there are
    python -m benchmarks.suite --nightly           reruns every configuration; exit code 1 where numbers have drifted

A shipped configuration says in a line ``# measured: {...}`` of its header what it reaches, and above it with which
command; one without such a line (`quotes_dense`, today all overlays) is not run. The page has those that are
experiments of their own. Results are kept in benchmarks/suite.jsonl, one line for each finished run, so that an
interrupted command goes on where it was and a fresh clone has what was measured before; a changed YAML is run again.
Delete the file to run everything anew. Run folders are in results/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from statistics import geometric_mean, mean
from typing import Any

import yaml

from benchmarks.records import Records
from sparselit.cli.commands.configs import is_overlay
from sparselit.runs.folder import RESULT
from sparselit.runs.result import Result

ROOT = Path(__file__).resolve().parents[1]
PAGE, RECORD, RESULTS = ROOT / "docs" / "results" / "suite.md", ROOT / "benchmarks" / "suite.jsonl", ROOT / "results"
#: In place of the digest of a result's YAML: found with an earlier version of the library, to be run again.
EARLIER = "earlier"
#: Configurations that are run with three seeds; all others with one.
THREE_SEEDS = ("quotes_synthetic", "parity", "majority_token", "minimum", "first_token", "last_token")
#: Largest drift of a number from the header's, as a share of it. Seconds depend on the machine and are not judged.
DRIFT, JUDGED = 0.2, ("accuracy", "density", "edges")
_HEADER = re.compile(r"^# measured: (\{.*\})$", re.MULTILINE)
_COMMAND = re.compile(r"^# +sparselit (fit --config .*)$", re.MULTILINE)
_INTRODUCTION = """\
# The suite

Made by `python -m benchmarks.suite`; do not edit. One row is one run of a shipped configuration on one thread.
*Accuracy* is the full sparse model's on held-out prompts, *circuit* the accuracy of the circuit alone on them, *out of
distribution* the model's on prompts of another kind (each task's help says which), *null* the number of edges that a
random order needs before the same criterion holds. Every circuit with a number of edges is certified: no single edge
can go, of the two modular tables no single channel. A circuit is chosen on other prompts than it is scored on, and may
fall a little below its bound here (`bracket_type` does: 99 %). Of a mixture these are means over its tasks. Seconds are
of one run on a machine that others used too. A star: found with an earlier version of the search or of the task's
splits, and not repeated since. On another processor the same seed gives circuits of another size: see
[sizes](sizes.md#sizes-differ-between-processors).

| configuration | seed | accuracy | density | edges | nodes | circuit | out of distribution | null | seconds |
|---|---|---|---|---|---|---|---|---|---|
"""


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit code is 1 where numbers have drifted or a run has failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="NAME", help="configurations by name")
    parser.add_argument("--nightly", action="store_true", help="rerun everything and compare with the headers")
    parser.add_argument(
        "--table", action="store_true", help="write the page from the results that there are, run nothing"
    )
    options = parser.parse_args(argv)
    configs = {path.stem: path for path in sorted((ROOT / "configs").glob("*.yaml")) if measured(path) is not None}
    names = options.only or list(configs)
    if unknown := [name for name in names if name not in configs]:
        parser.error(f"no configuration with a measured line is called {', '.join(unknown)}")
    if options.nightly:
        return nightly({name: configs[name] for name in names})
    configs = {name: path for name, path in configs.items() if not is_overlay(path)}
    records = Records(RECORD)
    for name in [] if options.table else [name for name in names if name in configs]:
        for seed in range(3 if name in THREE_SEEDS else 1):
            key = {"configuration": name, "seed": seed, "yaml": digest(configs[name])}
            try:
                records.once(key, partial(run, name, seed, RESULTS / "suite"))
            except RuntimeError as error:
                parser.exit(1, f"{error}\n")
    PAGE.write_text(
        _INTRODUCTION + table(shown(records.read(), {name: digest(path) for name, path in configs.items()}))
    )
    return 0


def shown(rows: Sequence[Mapping[str, Any]], digests: Mapping[str, str]) -> list[Mapping[str, Any]]:
    """The rows of configurations as they are now; an ``EARLIER`` row only where the run has not been repeated."""
    now = [row for row in rows if digests.get(row["configuration"]) == row["yaml"]]
    repeated = {(row["configuration"], row["seed"]) for row in now}
    before = [row for row in rows if row["yaml"] == EARLIER and row["configuration"] in digests]
    return now + [row for row in before if (row["configuration"], row["seed"]) not in repeated]


def nightly(configs: Mapping[str, Path]) -> int:
    """Rerun configurations as they are and say where numbers have drifted from their headers."""
    failed = 0
    for name, path in configs.items():
        header = measured(path) or {}
        try:
            found = run(name, int(header.get("seed", 0)), RESULTS / "nightly")
            faults = drifts(header, found)
            line = f"{name}: {'; '.join(faults) or 'as measured'} ({found['seconds']} s)"
        except Exception as error:  # whatever it is, the others still run
            faults = [line := str(error)]
        failed += bool(faults)
        sys.stdout.write(f"{line}\n")
        sys.stdout.flush()
    return int(failed > 0)


def measured(path: Path) -> dict[str, Any] | None:
    """The numbers in a configuration's header; None where it has no such line."""
    match = _HEADER.search(path.read_text(encoding="utf-8"))
    return None if match is None else json.loads(match[1])


def drifts(header: Mapping[str, Any], found: Mapping[str, Any]) -> list[str]:
    """A line for each judged number that differs by more than ``DRIFT``, or is there in one of the two only.

    The header of a configuration that was measured on several processors has the range of its edges, as [low, high]:
    there a number outside of it is a fault, however close (docs/results/sizes.md).
    """
    faults = []
    for key in JUDGED:
        before, now = header.get(key), found.get(key)
        if before is None or now is None:
            drifted = before is not now
        elif isinstance(before, list):
            drifted = not before[0] <= now <= before[1]
        else:
            drifted = abs(now - before) > DRIFT * abs(before)
        if drifted:
            faults.append(f"{key} {now}, header {before}")
    return faults


def run(name: str, seed: int, root: Path) -> dict[str, Any]:
    """Run the command in a configuration's header from the start in a process of its own and collect its numbers.

    Raises:
        RuntimeError: there is no such command, or the process failed; the message holds its last line.
    """
    told = _COMMAND.search((ROOT / "configs" / f"{name}.yaml").read_text(encoding="utf-8"))
    if told is None:
        raise RuntimeError(f"{name}: no line `#   sparselit fit --config …` in the header")
    command = [sys.executable, "-c", "from sparselit.cli import main; main()", *told[1].split()]
    command += ["--seed_everything", str(seed), "--trainer.default_root_dir", str(root)]
    done = subprocess.run([*command, "--trainer.enable_progress_bar", "false"], capture_output=True, text=True)
    if done.returncode != 0:
        last = (done.stderr.strip() or f"exit code {done.returncode}").splitlines()[-1]
        raise RuntimeError(f"{name}, seed {seed}: {last}")
    versions = (root / "runs" / told[1].split()[2]).glob("version_*")  # a run is called after its first file
    return collect(max(versions, key=lambda path: int(path.name.partition("_")[2])))


def collect(folder: Path) -> dict[str, Any]:
    """What a run's ``result.json`` says: shares in [0, 1], counts, seconds; null without a circuit or such a split."""
    result = Result.read(folder / RESULT)
    density = None if result.density is None else result.density.matrices
    row: dict[str, Any] = {
        "accuracy": _rounded(result.accuracy("report")),
        "out_of_distribution": _rounded(result.accuracy("out_of_distribution")),
        "density": _rounded(density),
        "seconds": round(result.seconds.training, 1),
        "edges": None,
    }
    latest = result.circuits.latest if result.circuits is not None else ()
    found = [circuit for circuit in latest if circuit.complete]
    if found:  # of a mixture, means over its tasks: geometric ones of sizes
        for key in ("edges", "nodes", "free"):
            sizes = [getattr(circuit, key) for circuit in found]
            row[key] = round(geometric_mean(max(size, 1) for size in sizes), 1) if len(sizes) > 1 else sizes[0]
        row["circuit"] = round(mean(circuit.accuracy for circuit in found), 6)
        row["null"] = round(geometric_mean(circuit.null_edges for circuit in found))
    return row


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 6)


def table(rows: Iterable[Mapping[str, Any]]) -> str:
    """Markdown lines, one per run."""
    lines = []
    for row in sorted(rows, key=lambda row: (row["configuration"], row["seed"])):
        mark = " *" if row["yaml"] == EARLIER else ""
        cells = [row["configuration"] + mark, row["seed"], share(row["accuracy"]), f"{row['density']:.4f}"]
        cells += [row.get(key) or "none" for key in ("edges", "nodes")]
        cells += [share(row.get(key)) for key in ("circuit", "out_of_distribution")]
        cells += [row.get("null") or "", f"{row['seconds']:.0f}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |\n")
    return "".join(lines)


def share(value: float | None) -> str:
    """A share as a percentage."""
    return "" if value is None else f"{100 * value:.2f} %"


def digest(path: Path) -> str:
    """What a result depends on: the configuration without its comments."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]


if __name__ == "__main__":
    sys.exit(main())
