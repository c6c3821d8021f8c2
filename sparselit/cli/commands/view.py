"""``sparselit view``: a circuit, two of them, or all circuits of a run as one HTML page."""

from __future__ import annotations

import sys
from pathlib import Path

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError
from sparselit.runs.atomic import write_text
from sparselit.runs.folder import CIRCUITS


def run(argv: list[str]) -> None:
    """Write the page and say where it lies."""
    parser = PlainParser(
        "view",
        "Write one HTML file that shows a circuit: its graph, the evidence for it, its prompts step by step. It needs "
        "no server and no network. Of two circuits it shows what they share, of a run's folder all steps.",
    )
    parser.add_argument(
        "circuits", nargs="+", metavar="CIRCUIT", help="file such as circuits/step=2000.json, two of them, or a run"
    )
    parser.add_argument("-o", "--output", metavar="PAGE", help="the page's file, .html; default: beside the circuit")
    parser.add_argument("--task", metavar="NAME", help="of the run of a mixture: which of its tasks")
    parser.add_argument("--open", action="store_true", help="open the page in the browser")
    options = parser.parse_args(argv)
    paths = [Path(name) for name in options.circuits]
    if len(paths) > 2:
        raise SparselitError(f"view takes one circuit, two, or a run's folder, got {len(paths)}")
    if options.task and not paths[0].is_dir():
        raise SparselitError("--task goes with a run's folder")
    if paths[0].is_dir():
        default = _folder(paths[0], options.task) / "history.html"
    elif len(paths) == 2:
        default = paths[0].with_name(f"{paths[0].stem}_and_{paths[1].stem}.html")
    else:
        default = paths[0].with_name(f"{paths[0].stem}.html")
    output = Path(options.output) if options.output else default
    if output.suffix.lower() not in (".html", ".htm"):
        raise SparselitError(f"--output {output} must end in .html")
    text = _text(paths, options.task)
    try:
        if not output.parent.is_dir():
            raise SparselitError(f"cannot write the page {output}: there is no folder {output.parent}")
        write_text(output, text)
    except OSError as error:
        raise SparselitError(f"cannot write the page {output}: {error.strerror}") from error
    sys.stdout.write(f"page  {output}\n")
    if options.open:
        import webbrowser

        webbrowser.open(output.resolve().as_uri())


def _folder(run: Path, task: str | None) -> Path:
    folder = run / CIRCUITS if (run / CIRCUITS).is_dir() else run
    return folder / task if task else folder


def _text(paths: list[Path], task: str | None) -> str:
    from sparselit.circuits.loaded import load
    from sparselit.report.page import circuit_page, compare_page, history_page

    if any(path.is_dir() for path in paths):
        if len(paths) > 1:
            raise SparselitError("a run's folder is shown alone; to compare two circuits, give their files")
        from sparselit.circuits.use.history import history

        return history_page(history(_folder(paths[0], task)))
    if len(paths) == 1:
        return circuit_page(load(paths[0]))
    return compare_page(load(paths[0]), load(paths[1]), (str(paths[0]), str(paths[1])))
