"""Does the exported program of a circuit compute its logits? The largest difference on prompts of the report split.

python -m benchmarks.program CIRCUIT [--n 1000]
"""

from __future__ import annotations

import argparse
import runpy
import tempfile
from pathlib import Path

import numpy as np

from sparselit.circuits import load
from sparselit.interop.export import export


def main() -> None:
    """Print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("circuit", type=Path)
    parser.add_argument("--n", type=int, default=1000)
    options = parser.parse_args()
    circuit = load(options.circuit)
    examples = circuit.behaviour.splits["report"].select(slice(0, options.n))
    wanted = circuit.naive.logits(examples).numpy()
    with tempfile.TemporaryDirectory() as folder:
        logits = runpy.run_path(str(export(options.circuit, "python", Path(folder) / "program.py")))["logits"]
    rows = zip(examples.tokens.tolist(), examples.length.tolist(), strict=True)
    got = np.stack([logits(tokens[:length])[-1] for tokens, length in rows])
    print(f"{np.abs(got - wanted).max():.1e} is the largest difference of {got.size:,} logits on {len(got):,} prompts")


if __name__ == "__main__":
    main()
