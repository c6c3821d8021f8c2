"""``sparselit show``: a circuit as a table in the terminal, and as a picture."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparselit.cli.plain import PlainParser
from sparselit.errors import SparselitError

FORMATS = (".png", ".svg", ".pdf")


def run(argv: list[str]) -> None:
    """Print the table and write the picture."""
    parser = PlainParser("show", "Show a circuit: a table here, and a picture in a file.")
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    parser.add_argument(
        "--output",
        metavar="PICTURE",
        help=f"the picture's file, {', '.join(FORMATS)}; default: beside the circuit, same name, .png",
    )
    parser.add_argument("--no-picture", action="store_true", help="the table only")
    options = parser.parse_args(argv)
    path = Path(options.circuit)
    output = Path(options.output) if options.output else path.with_suffix(".png")
    if options.output and options.no_picture:
        raise SparselitError("--output and --no-picture exclude each other")
    if output.suffix.lower() not in FORMATS:
        raise SparselitError(f"--output {output} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")

    from sparselit.circuits.circuit import Circuit
    from sparselit.report.terminal import circuit_lines

    circuit = Circuit.load(path)
    with _explained(path):
        lines = circuit_lines(circuit)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.no_picture:
        return
    sys.stdout.flush()  # the table first: drawing takes a moment
    from sparselit.report.picture import draw

    with _explained(path):
        figure = draw(circuit)
    try:
        figure.savefig(output)
    except OSError as error:
        raise SparselitError(f"cannot write the picture {output}: {error.strerror}") from error
    sys.stdout.write(f"\npicture      {_short(output)}\n")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a field that is missing or of another type that the file is to blame; ``verify`` names false claims."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SparselitError(f"{path}: a field is missing or has another type than the format says ({text})") from error


def _short(path: Path) -> str:
    """The path as typed from here, where that is shorter."""
    try:
        return min(str(path), os.path.relpath(path), key=len)
    except ValueError:  # another drive
        return str(path)
