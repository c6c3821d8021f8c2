"""The circuits of the shipped language model, for each of the twenty tasks that it can do.

    python -m benchmarks.python20                       # hours; goes on where it was stopped
    python -m benchmarks.python20 --tasks for_while --means texts
    python -m benchmarks.python20 --table               # searches nothing

Each circuit is one ``sparselit discover --ckpt_path python_base --circuits.task TASK``, in a process of its own, under
mean ablation: the means of the task's own prompts, or those of the training distribution as in Gao et al. 2025. Rows
are kept in ``benchmarks/python20.jsonl``, circuits in ``results/python20/MEANS/TASK/``.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.records import Records
from sparselit.circuits.files import read_circuit
from sparselit.runs.shipped import card

MODEL = "python_base"
FOLDER = Path("results/python20")
RECORDS = Records(Path(__file__).with_suffix(".jsonl"))
#: What the means are taken over: the task's own prompts, or windows of held-out text.
MEANS = ("discovery", "texts")
#: Share of prompts on which the right one of the two answers has the larger logit; below it nothing is to be explained.
ABLE = 0.9


def able() -> list[str]:
    """The tasks that the model can do, as its card has it."""
    return [name for name, row in card(MODEL)["tasks"].items() if row["two"] >= ABLE]


def search(task: str, means: str) -> dict[str, Any]:
    """Size and report-split scores of one circuit, or why there is none."""
    output = FOLDER / means / task / f"{task}.json"
    argv = ["discover", "--ckpt_path", MODEL, "--circuits.task", task, "--output", str(FOLDER / means / f"{task}.json")]
    argv += ["--data.texts", "256"] if means == "texts" else []
    argv += ["--circuits.ablation", "{kind: mean, distribution: " + means + "}"]
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", "from sparselit.cli import main; main()", *argv], capture_output=True, text=True
    )
    seconds = {"seconds": round(time.perf_counter() - start)}
    if done.returncode not in (0, 4) or not output.is_file():
        return {"none": " ".join((done.stderr or done.stdout).split())[-300:], **seconds}
    found = read_circuit(output)
    values = {bound.metric: round(bound.value, 5) for bound in found.criterion}
    return {
        "edges": found.size.edges,
        "nodes": found.size.nodes,
        "evaluations": found.search.evaluations,
        "complete": found.certificate.complete,
        "generalises": found.generalises,
        **values,
        **seconds,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """The rows by task, both means side by side, with the geometric means of what was found."""
    lines = ["| task | right between the two |"]
    lines[0] += "".join(f" {means}: edges | nodes | loss | seconds |" for means in MEANS)
    lines.append("|---" * (lines[0].count("|") - 1) + "|")
    latest = {(row["task"], row["means"]): row for row in rows}
    for task in able():
        line = f"| {task} | {card(MODEL)['tasks'][task]['two']:.1%} |"
        for means in MEANS:
            row = latest.get((task, means), {})
            mark = "" if row.get("complete", True) and row.get("generalises", True) else "*"
            if "edges" in row:
                line += f" {row['edges']}{mark} | {row['nodes']} | {row['answer_loss']:.3f} | {row['seconds']} |"
            else:
                line += f" {'none' if row else '–'} | | | {row.get('seconds', '')} |"
        lines.append(line)
    line = "| geometric mean | |"
    for means in MEANS:
        found = [latest[task, means] for task in able() if "edges" in latest.get((task, means), {})]
        for size in ("edges", "nodes"):
            line += f" {statistics.geometric_mean(row[size] for row in found):.0f} |" if found else " |"
        line += f" (n {len(found)}) | |"
    return "\n".join([*lines, line]) + "\n"


def main() -> None:
    """Search what is missing, and print the table."""
    parser = argparse.ArgumentParser(description="Circuits of the shipped language model.")
    parser.add_argument(
        "--tasks", nargs="+", default=able(), choices=able(), metavar="TASK", help="default: all it can"
    )
    parser.add_argument("--means", nargs="+", default=MEANS, choices=MEANS, help="of what prompts; default: both")
    parser.add_argument("--table", action="store_true", help="search nothing, show what there is")
    options = parser.parse_args()
    for means in () if options.table else options.means:
        for task in options.tasks:
            row = RECORDS.once({"task": task, "means": means}, lambda task=task, means=means: search(task, means))
            sys.stderr.write(f"{row}\n")
    sys.stdout.write(table(RECORDS.read()))


if __name__ == "__main__":
    main()
