"""What commands with a parser of their own share: a parser with our kind of error, and a two-column listing."""

from __future__ import annotations

import argparse
import textwrap
from collections.abc import Iterable
from typing import NoReturn

from sparselit.errors import SparselitError


class PlainParser(argparse.ArgumentParser):
    """A parser named after its command.

    Args:
        command: as typed after ``sparselit``.
        description: one sentence for ``--help``.
    """

    def __init__(self, command: str, description: str) -> None:
        super().__init__(f"sparselit {command}", description=description, allow_abbrev=False)

    def error(self, message: str) -> NoReturn:
        """Raise the message as our own error, which ``main`` prints."""
        raise SparselitError(f"{message}; see `{self.prog} --help`")


#: Columns of the first of two; what is longer has a line of its own.
_LONGEST = 26


def listing(rows: Iterable[tuple[str, object]], width: int = 79) -> str:
    """Names and what they mean, in two columns.

    Args:
        rows: pairs of name and text.
        width: columns of the terminal that may be used.
    """
    rows = list(rows)
    left = min(max((len(name) for name, _ in rows), default=0), _LONGEST) + 2
    lines = []
    for name, text in rows:
        first, *more = textwrap.wrap(str(text).replace("``", "`"), width - left) or [""]
        if len(name) > left - 2:
            lines.append(name)
            name = ""
        lines.append(f"{name:<{left}}{first}".rstrip())
        lines += [" " * left + line for line in more]
    return "".join(f"{line}\n" for line in lines)
