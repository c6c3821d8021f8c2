"""``sparselit models``: the trained models that come with the library, from their cards alone."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

from sparselit.cli.command_parser import PlainParser, listing
from sparselit.report.facts import hanging
from sparselit.runs.shipped import card, shipped_models


def run(argv: list[str]) -> None:
    """Print one line for each model, or all that is known of one."""
    parser = PlainParser("models", "List the trained models that come with sparselit, or show the card of one.")
    parser.add_argument("name", metavar="NAME", nargs="?", help="a model whose card is to be shown")
    name = parser.parse_args(argv).name
    if name is not None:
        sys.stdout.write("".join(f"{line}\n" for line in _lines(name, card(name))))
        return
    sys.stdout.write(listing((name, str(card(name)["what"])) for name in shipped_models()))
    sys.stdout.write("\nIts card:     sparselit models NAME\n")
    sys.stdout.write("A circuit:    sparselit discover --ckpt_path NAME --circuits.task TASK\n")
    sys.stdout.write("From Python:  from sparselit import load_model\n")


def _lines(name: str, facts: dict[str, Any]) -> Iterator[str]:
    yield name
    for key, value in facts.items():
        if key == "tasks":
            yield ""
            yield f"{'task, accuracy':<28}{'of the two answers':>20}{'of all tokens':>16}{'n':>8}"
            for task, row in value.items():
                yield f"{task:<28}{row['two']:>20.1%}{row['all']:>16.1%}{row['n']:>8,}"
        elif not isinstance(value, dict):
            yield from hanging(f"{key:<14}", str(value))
        else:
            yield f"{key}"
            yield from ("  " + line for line in listing(value.items(), 77).splitlines())
