"""What each node of a circuit carries: the share of answers that flip when it takes its value on the corrupted prompt.

    python benchmarks/interchange.py runs/quotes/version_0/circuits/step=3000.json

The node values come from the corrupted prompts of the report split (both quote kinds exchanged); 95 % Wilson
intervals. A flip rate near 1 says that all the deciding information passes through the node.
"""

from __future__ import annotations

import sys
from pathlib import Path

from sparselit.circuits import load
from sparselit.circuits.run.interchange import flip_rate
from sparselit.circuits.use.graph import node_of
from sparselit.statistics.intervals import wilson


def main(path: Path) -> None:
    loaded = load(path)
    circuit, model, naive = loaded.circuit, loaded.model, loaded.naive
    examples = loaded.behaviour.splits["report"].select(slice(0, 4000))
    n = len(examples.answer)
    sys.stdout.write(f"{'site':<18}{'node':<28}{'answers flipped':>16}   95 % interval  (n {n:,})\n")
    sites = [site for site in model.sites if site in circuit.nodes]
    for site in sites:
        channels = circuit.nodes[site]
        for chosen in [*([channel] for channel in channels), *([channels] if len(channels) > 1 else [])]:
            rate = flip_rate(naive.engine, naive.kept, examples, {site: chosen})
            low, high = wilson(rate * n, n)
            name = node_of(circuit, site, chosen[0]).text if len(chosen) == 1 else "together"
            sys.stdout.write(f"{site:<18}{name:<28}{rate:>15.1%}   {low:.1%} - {high:.1%}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
