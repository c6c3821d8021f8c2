"""``sparselit density``: the share of non-zero weights of each tensor of a checkpoint."""

from __future__ import annotations

import json
import sys
from typing import Any

from sparselit.cli.command_parser import PlainParser


def run(argv: list[str]) -> None:
    """Print the table, or the same numbers as JSON."""
    parser = PlainParser("density", "Show the share of non-zero weights of each tensor of a checkpoint.")
    parser.add_argument(
        "checkpoint", metavar="CKPT", help="file such as checkpoints/step=2000.ckpt, or the name of a shipped model"
    )
    parser.add_argument("--json", action="store_true", help="machine-readable, one object")
    options = parser.parse_args(argv)

    from sparselit.interop.shipped import load_model
    from sparselit.report.summary import density_lines, density_of
    from sparselit.runs.checkpoint_file import load_checkpoint
    from sparselit.runs.shipped import is_shipped

    def counts_of(row: Any) -> dict[str, object]:
        return {"numel": row.numel, "nonzero": row.nonzero, "density": row.density}

    name = options.checkpoint
    rows, total = density_of(load_model(name).state_dict() if is_shipped(name) else load_checkpoint(name)["state_dict"])
    if options.json:
        tensors = [{"name": row.name, "shape": list(row.shape), **counts_of(row)} for row in rows]
        sys.stdout.write(json.dumps({"tensors": tensors, "total": counts_of(total)}, indent=1) + "\n")
    else:
        sys.stdout.write("\n".join(density_lines(rows)) + "\n")
