"""``sparselit configs``: the shipped experiments, and how ``--config NAME`` finds one."""

from __future__ import annotations

import sys
from importlib.resources import files
from itertools import takewhile
from pathlib import Path

from sparselit.cli.command_parser import PlainParser, listing
from sparselit.errors import SparselitError

#: How the first line of a file begins that is no experiment of its own.
OVERLAY = "Overlay. "


def run(argv: list[str]) -> None:
    """Print the name of each shipped configuration and the question that it answers."""
    PlainParser("configs", "List the experiments that come with sparselit.").parse_args(argv)
    found = {name: (path, question(path)) for name, path in shipped().items()}
    sys.stdout.write(listing((name, text) for name, (path, text) in found.items() if not is_overlay(path)))
    sys.stdout.write("\nRun one:  sparselit fit --config NAME\n\nOverlays, which change one part of an experiment:\n\n")
    overlays = ((name, text.removeprefix(OVERLAY)) for name, (path, text) in found.items() if is_overlay(path))
    sys.stdout.write(listing(overlays))
    sys.stdout.write("\nAdd one:  sparselit fit --config NAME --config OVERLAY\n")


def shipped() -> dict[str, Path]:
    """The shipped files by name."""
    folder = Path(str(files("sparselit.configs")))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def question(path: Path) -> str:
    """The sentences with which a configuration begins, up to the end of a line."""
    text = ""
    for line in takewhile(lambda line: line.startswith("#"), path.read_text(encoding="utf-8").splitlines()):
        text = f"{text} {line.strip('# ')}".strip()
        if text.endswith((".", "?")):
            break
    return text


def is_overlay(path: Path) -> bool:
    """Whether a configuration only changes a part of another one."""
    return question(path).startswith(OVERLAY)


def find_config(name: str) -> str:
    """The file that ``--config NAME`` means: an existing path, or else a shipped file of that name.

    Raises:
        SparselitError: there is neither.
    """
    from sparselit.errors import suggestion

    if not name.strip():
        raise SparselitError("--config is empty; name a YAML file or one of `sparselit configs`")
    try:
        if Path(name).is_file():
            return name
        if Path(name).is_dir():
            raise SparselitError(f"--config {name}: this is a folder; name a YAML file or one of `sparselit configs`")
    except OSError as error:  # longer than a file's name may be
        raise SparselitError(f"--config {name[:40]!r}…: {error.strerror}") from error
    known = shipped()
    stem = name.removesuffix(".yaml").removesuffix(".yml")
    if stem in known:
        return str(known[stem])
    hint = suggestion(Path(stem).name, list(known)) or "; `sparselit configs` lists the shipped ones"
    shown = name if name.isprintable() else repr(name)
    raise SparselitError(f"--config {shown}: no such file{hint}")
