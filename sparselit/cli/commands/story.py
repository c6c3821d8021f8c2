"""``sparselit story``: what the nodes of a circuit do, in words."""

from __future__ import annotations

import sys

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError


def run(argv: list[str]) -> None:
    """Print the story of some nodes, or of all."""
    parser = PlainParser(
        "story",
        "What nodes of a circuit read, write and react to: edges in words, and the prompts of the report split on "
        "which a node is furthest from zero, with the »token« marked.",
    )
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument(
        "nodes", nargs="*", metavar="NODE", help="as layers.0.mlp.act:64 or \"token:'\"; default: all of the circuit's"
    )
    parser.add_argument("--top", type=int, default=3, metavar="N", help="prompts for each node; default 3")
    options = parser.parse_args(argv)
    if options.top < 0:
        raise SparselitError(f"--top must be at least 0, got {options.top}")

    from sparselit.circuits.loaded import load
    from sparselit.circuits.use.names import parse_nodes
    from sparselit.circuits.use.story import story
    from sparselit.report.story import story_lines

    loaded = load(options.circuit)
    circuit, model = loaded.circuit, loaded.model
    order = {site: i for i, site in enumerate(["token", "position", *model.sites])}
    nodes = [(s, c) for s in sorted(circuit.nodes, key=lambda s: order.get(s, 0)) for c in circuit.nodes[s]]
    if options.nodes:
        parsed = [(text, parse_nodes(text, model, loaded.behaviour.vocabulary)) for text in options.nodes]
        # A whole site means those of its channels that the circuit has.
        nodes = [
            (site, c)
            for text, (site, channels) in parsed
            for c in (channels if ":" in text else circuit.nodes.get(site, channels[:1]))
        ]
    if not nodes:
        sys.stdout.write("the circuit has no nodes, so that there is nothing to tell of them\n")
    for i, node in enumerate(nodes):
        lines = story_lines(circuit, story(loaded, node, options.top))
        sys.stdout.write("\n" * bool(i) + "\n".join(lines) + "\n")
