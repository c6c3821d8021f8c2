"""The command line: ``sparselit COMMAND …``. What a command needs is imported only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NoReturn

from sparselit.cli.commands import COMMAND_MODULES, EXPERIMENT
from sparselit.cli.terminal import text_only
from sparselit.errors import SparselitError, disk_fault, suggestion
from sparselit.report.facts import visible

__all__ = ["main"]

#: Characters of a line of an error that are shown; a value that somebody has given may be of any length.
_LONGEST_LINE = 400


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        with text_only():
            _run(arguments)
            sys.stdout.flush()
    except SparselitError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        if (refusal := disk_fault(error)) is None:
            raise
        _fail(refusal)


def _run(argv: list[str]) -> None:
    command, *rest = argv or [""]
    if not command:
        sys.stderr.write(f"usage: sparselit {{{','.join({**EXPERIMENT, **COMMAND_MODULES})}}} …\n")
        raise SparselitError("no command given; see `sparselit --help`")
    if command in ("-h", "--help", "help"):
        sys.stdout.write(_help())
    elif command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"sparselit {version('sparselit')}\n")
    elif command in COMMAND_MODULES:
        import_module(f"sparselit.cli.commands.{command}").run(rest)
    elif command in EXPERIMENT:
        if os.getcwd() not in sys.path:  # a console script does not have it; a user's own tasks stand there
            sys.path.append(os.getcwd())
        from sparselit.cli.experiment.arguments import prepare

        prepared = prepare(argv)  # what can be refused without torch is refused without torch
        if prepared.reproducible:
            from sparselit.cli.experiment.reproducible import pin_kernels

            pin_kernels()
        from sparselit.cli.experiment.experiment import run

        run(prepared)
    else:
        raise SparselitError(f"unknown command {command!r}{suggestion(command, [*EXPERIMENT, *COMMAND_MODULES])}")


def _help() -> str:
    width = max(map(len, {**EXPERIMENT, **COMMAND_MODULES}))
    lines = [
        "usage: sparselit COMMAND …",
        "",
        "Train weight-sparse transformers and find the circuit behind each behaviour.",
        "",
        "experiments (options from --config FILE.yaml and --key value):",
        *(f"  {name:<{width}}  {text}" for name, text in EXPERIMENT.items()),
        "",
        "other commands:",
        *(f"  {name:<{width}}  {text}" for name, text in COMMAND_MODULES.items()),
        "",
        "examples:",
        "  sparselit fit --config quotes",
        "  sparselit fit --config quotes --ckpt_path last      go on where a run stopped",
        "  sparselit fit --config quotes --sparsity.density.to 0.01",
        "",
        "`sparselit COMMAND --help` explains one command.",
    ]
    return "\n".join(lines) + "\n"


def _fail(message: str) -> NoReturn:
    lines = [line if len(line) <= _LONGEST_LINE else f"{line[:300]} … {line[-80:]}" for line in message.split("\n")]
    sys.stderr.write(f"error: {visible(chr(10).join(lines))}\n")
    sys.exit(2)
