"""The shipped tasks under the recipe alone, no key but the task and the seed: the table of docs/results/recipe.md.

    python -m benchmarks.recipe                      runs what is missing, seed by seed, then prints the table
    python -m benchmarks.recipe --only Minimum       the same for some tasks
    python -m benchmarks.recipe --table              only prints the table, from the results that there are

Results are kept in benchmarks/recipe.jsonl, one line for each finished run, under the digest of the recipe's file: a
changed recipe is measured anew. Beside each row stands the row of the hand-tuned configuration of the same task, from
benchmarks/suite.jsonl. Run folders are in results/recipe/.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import resource
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.records import Records
from sparselit.runs.folder import RESULT
from sparselit.runs.result import Result

ROOT = Path(__file__).resolve().parents[1]
RECIPE, RECORD, RESULTS = ROOT / "configs" / "recipe.yaml", ROOT / "benchmarks" / "recipe.jsonl", ROOT / "results"
#: Each task by name, with the shipped configuration that was tuned for it.
TASKS = {
    "Minimum": "minimum",
    "FirstToken": "first_token",
    "LastToken": "last_token",
    "MajorityToken": "majority_token",
    "Quotes": "quotes_synthetic",
    "BracketDepth": "bracket_depth",
    "BracketType": "bracket_type",
    "NestedQuotes": "nested_quotes",
    "EscapedQuotes": "escaped_quotes",
    "IndirectObject": "indirect_object",
    "Copying": "copying",
    "Reversing": "reversing",
    "Induction": "induction",
    "Parity": "parity",
    "Comparison": "comparison",
    "VariableType": "variable_type",
    "KeyValueRecall": "key_value_recall",
    "ModularAddition": "modular_addition",
    "ModularMultiplication": "modular_multiplication",
}
#: What a task needs in order to run without a file of texts.
ARGUMENTS = {"Quotes": ("--data.source", "synthetic")}
_HEAD = (
    "| task | seed | accuracy | density | edges | circuit | certified | seconds | CPU "
    "| tuned: accuracy, density, edges |"
)


def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", metavar="TASK", choices=list(TASKS), default=list(TASKS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--table", action="store_true", help="only print the table")
    options = parser.parse_args(argv)
    records = Records(RECORD)
    recipe = hashlib.sha256(RECIPE.read_bytes()).hexdigest()[:12]
    for seed in options.seeds if not options.table else ():
        for task in options.only:
            row = records.once({"task": task, "seed": seed, "recipe": recipe}, lambda t=task, s=seed: measured(t, s))
            sys.stdout.write(json.dumps(row) + "\n")
            sys.stdout.flush()
    sys.stdout.write("\n".join(table([row for row in records.read() if row["recipe"] == recipe])) + "\n")


def measured(task: str, seed: int) -> dict[str, Any]:
    """Train and search once; what came of it.

    Args:
        task: its short name.
        seed: of the run.
    """
    before = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime
    name = f"{task.lower()}_{seed}"
    command = [str(Path(sys.executable).with_name("sparselit")), "fit", "--data", task, *ARGUMENTS.get(task, ())]
    command += ["--seed_everything", str(seed), "--name", name, "--trainer.default_root_dir", str(RESULTS / "recipe")]
    done = subprocess.run([*command, "--trainer.enable_progress_bar", "false"], capture_output=True, text=True)
    cpu = resource.getrusage(resource.RUSAGE_CHILDREN).ru_utime - before
    versions = sorted((RESULTS / "recipe" / "runs" / name).glob("version_*"), key=lambda path: path.stat().st_mtime)
    if not versions or not (versions[-1] / RESULT).is_file():
        return {"exit": done.returncode, "problem": done.stderr[-300:]}
    return {"exit": done.returncode, "cpu": round(cpu, 1), **facts(Result.read(versions[-1] / RESULT))}


def facts(result: Result) -> dict[str, Any]:
    """The figures of a run, those of the circuit from the report split.

    Args:
        result: of a finished run.
    """
    latest = result.circuits.latest if result.circuits else ()
    circuit = latest[0] if latest else None
    return {
        "accuracy": result.accuracy("report"),
        "n": next((row.n for row in result.accuracies if (row.split, row.stratum) == ("report", "all")), None),
        "shifted": result.accuracy("out_of_distribution"),
        "density": result.density and result.density.reached,  # of the sparsified tensors, all matrices
        "edges": circuit and circuit.edges,
        "circuit": circuit and circuit.accuracy,
        "holds": circuit and circuit.generalises,
        "certified": circuit and circuit.complete,
        "reason": result.circuits.reason if result.circuits else "",
        "seconds": round(result.seconds.training, 1),
        "advice": list(result.advice),
    }


def table(rows: list[Mapping[str, Any]]) -> list[str]:
    """Lines of Markdown, by task and seed.

    Args:
        rows: of one recipe.
    """
    tuned = {
        row.get("configuration"): row
        for row in Records(ROOT / "benchmarks" / "suite.jsonl").read()
        if not row.get("seed")
    }
    order = list(TASKS)
    lines = [_HEAD, "|---" * (_HEAD.count("|") - 1) + "|"]
    for row in sorted(rows, key=lambda row: (order.index(row["task"]), row["seed"])):
        other = tuned.get(TASKS[row["task"]], {})
        beside = ", ".join(_shown(other.get(key), share) for key, share in (("accuracy", True), ("density", False)))
        cells = [row["task"], row["seed"], _shown(row.get("accuracy"), True), _shown(row.get("density"))]
        cells += [row.get("edges") or "none", _shown(row.get("circuit"), True)]
        cells += ["yes" if row.get("certified") and row.get("holds") else "no"]
        cells += [row.get("seconds", "-"), row.get("cpu", "-"), f"{beside}, {other.get('edges') or '-'}"]
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


def _shown(value: float | None, share: bool = False) -> str:
    return "-" if value is None else f"{100 * value:.2f} %" if share else f"{value:.4f}"


if __name__ == "__main__":
    main()
