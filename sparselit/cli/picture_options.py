"""The picture that ``show`` and ``history`` write: its options, and the file."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import TYPE_CHECKING

from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

FORMATS = (".png", ".svg", ".pdf")


def add_options(parser: argparse.ArgumentParser, default: str) -> None:
    """``--output`` and ``--no-picture``; ``default`` says where the picture goes otherwise.

    Args:
        parser: of the command.
        default: words for where the picture goes without ``--output``.
    """
    parser.add_argument(
        "--output", metavar="PICTURE", help=f"the picture's file, {', '.join(FORMATS)}; default: {default}"
    )
    parser.add_argument("--no-picture", action="store_true", help="the table only")


def output_of(options: argparse.Namespace, default: Path) -> Path:
    """Where the picture goes.

    Args:
        options: of the command.
        default: the path without ``--output``.

    Raises:
        SparselitError: the options exclude each other, or the file's ending is no picture's.
    """
    output = Path(options.output) if options.output else default
    if options.output and options.no_picture:
        raise SparselitError("--output and --no-picture exclude each other")
    if output.suffix.lower() not in FORMATS:
        raise SparselitError(f"--output {output} must end in {', '.join(FORMATS[:-1])} or {FORMATS[-1]}")
    return output


def save(figure: Figure, output: Path) -> str:
    """Write the picture and return its path as typed from here, where that is shorter.

    Args:
        figure: the picture.
        output: the file; its ending is the format.

    Raises:
        SparselitError: it cannot be written.
    """
    if not output.parent.is_dir():
        raise SparselitError(f"cannot write the picture {output}: there is no folder {output.parent}")
    try:
        write_atomically(output, lambda file: figure.savefig(file, format=output.suffix[1:].lower()))
    except OSError as error:
        raise SparselitError(f"cannot write the picture {output}: {error.strerror}") from error
    try:
        return min(str(output), os.path.relpath(output), key=len)
    except ValueError:  # another drive
        return str(output)
