"""docs/reference/command_line.md lists every command, and every option of the commands on files."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path

import pytest

from sparselit.cli import main
from sparselit.cli.commands import COMMAND_MODULES, EXPERIMENT

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "command_line.md").read_text(encoding="utf-8")


def help_of(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([command, "--help"])
    return out.getvalue()


def test_every_command_has_its_row() -> None:
    assert set(re.findall(r"^\| `([a-z]+)` \|", PAGE, re.MULTILINE)) == {*EXPERIMENT, *COMMAND_MODULES}


@pytest.mark.parametrize("command", COMMAND_MODULES)
def test_the_options_are_those_of_the_help(command: str) -> None:
    usage, _, _ = help_of(command).partition("\n\n")
    (line,) = re.findall(rf"^sparselit {command}\b(.*)$", PAGE, re.MULTILINE)
    options = re.compile(r"--[a-z][a-z-]*")
    assert set(options.findall(line)) == set(options.findall(usage))
