"""The command line: ``sparselit COMMAND …``. What a command needs is imported only when it runs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from importlib import import_module
from typing import NoReturn

from sparselit.errors import SparselitError

__all__ = ["main"]

#: Commands that train or use a model; their options come from classes (sparselit.cli.experiment.experiment).
EXPERIMENT = {
    "fit": "train the experiment of a YAML file",
    "validate": "measure a checkpoint on the selection split",
    "test": "measure a checkpoint on the report split",
    "predict": "show what a checkpoint answers",
    "discover": "find the circuit of a checkpoint",
}
#: Commands with a plain parser: each is a module of sparselit.cli.commands that has ``run(argv)``.
PLAIN = {
    "tasks": "list the tasks that can be trained on",
    "configs": "list the experiments that come with sparselit",
    "convert": "turn a checkpoint of OpenAI's circuit_sparsity into ours, or back",
    "density": "show the share of non-zero weights of each tensor of a checkpoint",
    "show": "show a circuit: a table here and a picture in a file",
    "verify": "recompute every claim of a circuit from its files",
    "hypotheses": "test a circuit: as the model? better than chance? minimal?",
    "stability": "find a circuit again and again: which edges come back?",
    "story": "say what the nodes of a circuit read, write and react to",
    "intervene": "scale, ablate or patch parts of a model: what changes?",
    "diff": "say what two circuits share and what differs",
    "union": "say what all circuits of a model explain together",
    "history": "show which edges were born and died during a run",
}


def main(argv: Sequence[str] | None = None) -> None:
    """Run one command.

    Args:
        argv: arguments without the program's name; default: those of the process.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    try:
        _run(arguments)
        sys.stdout.flush()
    except SparselitError as error:
        _fail(str(error))
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # the reader, e.g. `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _run(argv: list[str]) -> None:
    command, *rest = argv or [""]
    if not command:
        sys.stderr.write(f"usage: sparselit {{{','.join({**EXPERIMENT, **PLAIN})}}} …\n")
        raise SparselitError("no command given; see `sparselit --help`")
    if command in ("-h", "--help", "help"):
        sys.stdout.write(_help())
    elif command == "--version":
        from importlib.metadata import version

        sys.stdout.write(f"sparselit {version('sparselit')}\n")
    elif command in PLAIN:
        import_module(f"sparselit.cli.commands.{command}").run(rest)
    elif command in EXPERIMENT:
        if os.getcwd() not in sys.path:  # a console script does not have it; a user's own tasks stand there
            sys.path.append(os.getcwd())
        from sparselit.cli.experiment.arguments import prepare

        prepared = prepare(argv)  # what can be refused without torch is refused without torch
        from sparselit.cli.experiment.experiment import run

        run(prepared)
    else:
        raise SparselitError(f"unknown command {command!r}{suggestion(command, [*EXPERIMENT, *PLAIN])}")


def _help() -> str:
    width = max(map(len, {**EXPERIMENT, **PLAIN}))
    lines = [
        "usage: sparselit COMMAND …",
        "",
        "Train weight-sparse transformers and find the circuit behind each behaviour.",
        "",
        "experiments (options from --config FILE.yaml and --key value):",
        *(f"  {name:<{width}}  {text}" for name, text in EXPERIMENT.items()),
        "",
        "other commands:",
        *(f"  {name:<{width}}  {text}" for name, text in PLAIN.items()),
        "",
        "examples:",
        "  sparselit fit --config quotes",
        "  sparselit fit --config quotes --ckpt_path last      go on where a run stopped",
        "  sparselit fit --config quotes --sparsity.density.to 0.01",
        "",
        "`sparselit COMMAND --help` explains one command.",
    ]
    return "\n".join(lines) + "\n"


def suggestion(word: str, known: Sequence[str]) -> str:
    """``; did you mean 'fit'?``, or nothing where no known word is close."""
    lower = {name.lower(): name for name in known}
    close = get_close_matches(word.lower(), lower, n=1, cutoff=0.6)
    return f"; did you mean {lower[close[0]]!r}?" if close else ""


def _fail(message: str) -> NoReturn:
    sys.stderr.write(f"error: {message}\n")
    sys.exit(2)
