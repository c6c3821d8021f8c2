"""Are two folders of runs the same? Circuits and prompts by their bytes, checkpoints by every tensor in them.

    python -m benchmarks.same_runs BEFORE AFTER

Both hold what ``sparselit fit`` wrote into ``runs/``, made on one machine by the same commands, for example by two
versions of sparselit. Wall times are left out. The exit code is 1 where anything differs or is missing on either side.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

#: What is compared byte by byte, as patterns below a run's folder.
BYTES = ("**/circuits/**/*.json", "**/circuits/**/*.safetensors", "**/circuits/**/*.jsonl")
#: Parts of a checkpoint that must be equal: weights, optimizer, and the masks and counters of the callbacks.
STATES = ("state_dict", "optimizer_states", "global_step")


def files(folder: Path, *patterns: str) -> set[Path]:
    """What a pattern finds, as paths below the folder, the side files of wall times left out."""
    found = {path.relative_to(folder) for pattern in patterns for path in folder.glob(pattern)}
    return {path for path in found if not path.name.endswith(".timing.json")}


def differences(one: Any, other: Any, name: str = "") -> Iterator[str]:
    """Names of the leaves at which two nested states differ; tensors must be equal bit for bit, NaN to NaN."""
    if isinstance(one, torch.Tensor) and isinstance(other, torch.Tensor):
        if one.dtype != other.dtype or not torch.equal(torch.nan_to_num(one), torch.nan_to_num(other)):
            yield name
    elif isinstance(one, dict) and isinstance(other, dict):
        for key in dict.fromkeys([*one, *other]):
            if key not in one or key not in other:
                yield f"{name}.{key}"
            else:
                yield from differences(one[key], other[key], f"{name}.{key}")
    elif isinstance(one, list | tuple) and isinstance(other, list | tuple) and len(one) == len(other):
        for i, (first, second) in enumerate(zip(one, other, strict=True)):
            yield from differences(first, second, f"{name}[{i}]")
    elif type(one) is not type(other) or one != other:
        yield name


def compare(before: Path, after: Path) -> tuple[int, list[str]]:
    """How many files were compared, and what differs."""
    told: list[str] = []
    patterns = (*BYTES, "**/checkpoints/*.ckpt")
    names = files(before, *patterns) | files(after, *patterns)
    for name in sorted(names):
        paths = (before / name, after / name)
        missing = [path for path in paths if not path.is_file()]
        if missing:
            told.append(f"{missing[0]} is missing")
        elif name.suffix == ".ckpt":
            one, other = (torch.load(path, map_location="cpu", weights_only=True) for path in paths)
            told += [f"{name}: {leaf}" for key in STATES for leaf in differences(one.get(key), other.get(key), key)]
        elif paths[0].read_bytes() != paths[1].read_bytes():
            told.append(f"{name}: other bytes")
    return len(names), told


def main() -> None:
    """Compare, print what differs, and exit with 1 if anything does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("before", type=Path)
    parser.add_argument("after", type=Path)
    options = parser.parse_args()
    count, told = compare(options.before, options.after)
    sys.stdout.write("".join(f"{line}\n" for line in told))
    sys.stdout.write(f"{count} files compared, {len(told)} differences\n")
    sys.exit(bool(told) or not count)


if __name__ == "__main__":
    main()
