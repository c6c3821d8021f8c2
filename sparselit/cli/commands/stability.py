"""``sparselit stability``: find a circuit again and again, and see what stays."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from pathlib import Path
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.report.facts import shortened
from sparselit.report.progress import display
from sparselit.runs.atomic import write_text
from sparselit.runs.plain_file import read_json

FORMAT, VERSION = "sparselit-stability", 1


def run(argv: list[str]) -> None:
    """Search as often as is still missing, write each result at once, and print what they share."""
    parser = PlainParser(
        "stability",
        "Search a circuit again, with resampled examples, another order and another seed each time, and count what is "
        "found again. Each rerun is kept in a file beside the circuit as soon as it is done: after Ctrl-C the same "
        "command goes on.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument("--runs", type=int, default=20, metavar="N", help="reruns altogether; default 20")
    parser.add_argument(
        "--search", metavar="NAME", help="another search, as Auto or GroupTesting; default the circuit's"
    )
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the first rerun; default 0")
    parser.add_argument("--rows", type=int, default=20, metavar="N", help="edges to list; default 20")
    parser.add_argument(
        "--output", metavar="FILE.json", help="the file; default beside the circuit, step=2000.stability.json"
    )
    parser.add_argument("--json", action="store_true", help="print the summary as one object")
    options = parser.parse_args(argv)
    if options.runs < 2:
        raise SparselitError(f"--runs must be at least 2, got {options.runs}")
    path = Path(options.circuit)
    output = Path(options.output) if options.output else path.with_suffix(".stability.json")

    from sparselit.circuits.evidence.stability import rerun, search_of, summary
    from sparselit.circuits.loaded import load

    loaded = load(path)
    own = loaded.circuit.places
    kind, arguments = search_of(loaded.circuit.search, options.search)
    content = {
        "format": FORMAT,
        "version": VERSION,
        "circuit": {"file": path.name, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()},
        "search": {"class_path": f"{kind.__module__}.{kind.__qualname__}", "init_args": arguments},
        "seed": options.seed,
        "runs": [],
    }
    content["runs"] = runs = _earlier(output, content)
    with display("rerun") as shown:
        while len(runs) < options.runs:
            shown.counting(len(runs), options.runs)
            try:
                runs.append(rerun(loaded, kind, arguments, options.seed + len(runs)))
            except KeyboardInterrupt:
                sys.stderr.write(f"\n{len(runs)} of {options.runs} reruns are in {output}; the same command goes on\n")
                raise
            content["summary"] = summary(runs, own)
            _write(output, content)
    found = summary(runs[: options.runs], own)
    if options.json:
        text = json.dumps(found, indent=1, ensure_ascii=False)
    else:
        n = len(loaded.behaviour.splits["discovery"].answer)
        text = "\n".join(lines(found, set(own), n, options.rows))
        text += f"\n\nfile          {min(str(output), os.path.relpath(output), key=len)}"
    sys.stdout.write(text + "\n")


def lines(found: dict[str, Any], own: set[tuple[str, int, int]], n: int, rows: int) -> list[str]:
    """The summary of the reruns for a person, 80 columns wide.

    Args:
        found: :func:`sparselit.circuits.evidence.stability.summary`.
        own: edges and biases of the circuit itself.
        n: discovery examples.
        rows: edges to list.
    """
    from sparselit.model.wiring import place_name  # torch is slow to import

    count = found["found"]
    text = [f"reruns        {found['runs']}, on bootstrap samples of the {n:,} discovery examples"]
    if count < found["runs"]:
        text.append(f"              in {found['runs'] - count} of them the full model misses the bounds: nothing found")
    if not count:
        return text
    low, median, high = found["sizes"]
    overlap, core = found["jaccard"], found["core"]
    text.append(f"size          {low} to {high} edges and biases, median {median:g}; the circuit has {len(own)}")
    if overlap["mean"] is not None:
        pairs = f"mean of pairs {overlap['mean']:.2f}, least {overlap['least']:.2f}"
        text.append(f"Jaccard       {pairs}; with the circuit {overlap['own']:.2f}")
    text += [
        f"distinct      {found['distinct']} different circuits",
        f"core          {core['all']} edges and biases in all, {core['90 %']} in at least 90 %",
        f"holds         {found['hold']} of {found['runs']} meet the stated criterion on the report split",
        "",
        f"{'edge or bias':<50}{'reruns':>10}{'in the circuit':>18}",
    ]
    for name, row, column, times in found["frequency"][:rows]:
        label = shortened(place_name((name, row, column), name.endswith("bias")), 47)
        mine = "yes" if (name, row, column) in own else "-"
        text.append(f"  {label:<48}{times:>5}/{count:<4}{mine:>18}")
    if len(found["frequency"]) > rows:
        text.append(f"  … {len(found['frequency']) - rows} more in the file")
    return text


def _earlier(output: Path, content: dict[str, Any]) -> list[dict[str, Any]]:
    """The reruns that stand in the file already."""
    if not output.exists():
        return []
    try:
        there = read_json(output)
        same = all(there[key] == content[key] for key in ("format", "version", "circuit", "search", "seed"))
        runs = list(there["runs"])
        same = same and [run["seed"] for run in runs] == [content["seed"] + i for i in range(len(runs))]
    except (OSError, ValueError, KeyError, TypeError):
        same, runs = False, []
    if not same:
        raise SparselitError(
            f"{output} holds other reruns (circuit, search or seed differ); delete it or give --output"
        )
    return runs


def _write(output: Path, content: dict[str, Any]) -> None:
    try:
        write_text(output, json.dumps(content, ensure_ascii=False) + "\n")
    except OSError as error:
        raise SparselitError(f"cannot write {output}: {error.strerror}") from error
