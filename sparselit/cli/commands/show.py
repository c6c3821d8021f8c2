"""``sparselit show``: a circuit as a table in the terminal, and as a picture."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sparselit.cli.command_parser import PlainParser
from sparselit.cli.picture_options import add_options, output_of, save
from sparselit.errors import SparselitError


def run(argv: list[str]) -> None:
    """Print the table and write the picture."""
    parser = PlainParser("show", "Show a circuit: a table here, and a picture in a file.")
    parser.add_argument("circuit", metavar="CIRCUIT", help="file such as circuits/step=2000.json")
    add_options(parser, "beside the circuit, same name, .png")
    options = parser.parse_args(argv)
    path = Path(options.circuit)
    output = output_of(options, path.with_suffix(".png"))

    from sparselit.circuits.files import read_circuit
    from sparselit.report.terminal import circuit_lines

    circuit = read_circuit(path)
    with _explained(path):
        lines = circuit_lines(circuit)
    sys.stdout.write("\n".join(lines) + "\n")
    if options.no_picture:
        return
    sys.stdout.flush()  # the table first: drawing takes a moment
    from sparselit.report.picture import draw

    with _explained(path):
        figure = draw(circuit)
    sys.stdout.write(f"\npicture      {save(figure, output)}\n")


@contextmanager
def _explained(path: Path) -> Iterator[None]:
    """Say of a field that is missing or of another type that the file is to blame; ``verify`` names false claims."""
    try:
        yield
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        text = f"{type(error).__name__}: {error}".splitlines()[0]
        raise SparselitError(f"{path}: a field is missing or has another type than the format says ({text})") from error
