"""``sparselit export``: a circuit as a file that another tool reads."""

from __future__ import annotations

import sys

from sparselit.cli.command_parser import PlainParser, listing


def run(argv: list[str]) -> None:
    """Write the file, and say where it is."""
    parser = PlainParser("export", "Write a circuit as a file that another tool reads.")
    parser.add_argument("circuit", metavar="CIRCUIT", nargs="?", help="file such as circuits/step=2000.json")
    parser.add_argument("--to", metavar="FORMAT", help="the format; without it, the formats are listed")
    parser.add_argument("-o", "--output", metavar="FILE", help="default: beside the circuit, named after the format")
    parser.add_argument("--prompt", metavar="TEXT", help="for formats of one prompt; default: the report split's first")
    options = parser.parse_args(argv)

    from sparselit.interop.export import FORMATS, export

    if options.to is None or options.circuit is None:
        sys.stdout.write(listing((name, f"{form.what} ({form.suffix})") for name, form in FORMATS.items()))
        return
    sys.stdout.write(f"{export(options.circuit, options.to, options.output, options.prompt)}\n")
