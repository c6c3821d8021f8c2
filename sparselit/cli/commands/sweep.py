"""``sparselit sweep``: one experiment at many settings, each an ordinary run; what is complete is never run again."""

from __future__ import annotations

import json
import shlex
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sparselit.cli.command_parser import PlainParser
from sparselit.errors import SparselitError, check_whole
from sparselit.report.facts import percent, shortened
from sparselit.runs.atomic import write_text

_DESCRIPTION = (
    "Run an experiment at many settings. The key `sweep` of a configuration says which: grid, zip or random. Every "
    "other option is handed to each run, as in `sparselit fit`. The same command goes on where it was stopped, and "
    "runs what is missing or has failed."
)
#: Name of the command in its own options, as in ``--sweep.grid.model.d_model``.
KEY = "sweep"
MOST_JOBS = 1024


def run(argv: list[str]) -> None:
    """Run the points of a sweep, list them, or say how they stand."""
    parser = PlainParser("sweep", _DESCRIPTION)
    parser.usage = (
        "sparselit sweep --config FILE … [--KEY VALUE …] [--folder FOLDER] [--jobs N]\n"
        "       [--shard I/N] [--dry_run] [--status] [--accept]"
    )
    parser.add_argument("--config", action="append", default=[], metavar="FILE", help="an experiment, or the sweep")
    parser.add_argument("--folder", metavar="FOLDER", help="default: sweeps/NAME, after the last configuration")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at once, in processes of their own")
    parser.add_argument("--shard", default="1/1", metavar="I/N", help="only every N-th run, beginning with the I-th")
    parser.add_argument("--dry_run", action="store_true", help="list the runs and stop")
    parser.add_argument("--status", action="store_true", help="say what has become of them and stop")
    parser.add_argument("--accept", action="store_true", help="go on although the experiment has changed")
    options, rest = parser.parse_known_args(argv)
    check_whole("--jobs", options.jobs, 1, most=MOST_JOBS)

    from sparselit.cli.commands.configs import find_config
    from sparselit.cli.experiment import yaml_text
    from sparselit.sweep.points import flattened, points
    from sparselit.sweep.store import Store

    if not options.config:
        raise SparselitError("sweep needs --config FILE with the key sweep: {grid: {model.d_model: [32, 64]}}")
    contents = [yaml_text.read(Path(find_config(name))) for name in options.config]
    description: dict[str, Any] = {}
    for content in contents:
        _merge(description, content.pop(KEY, None) or {})
    typed: list[str] = []
    base = {key: value for content in contents for key, value in flattened(content).items()}
    for name, text in _pairs(rest):
        value = yaml_text.load(text, f"--{name}")
        if name.startswith(f"{KEY}."):
            _, part, *key = name.split(".", 2)
            _merge(description, {part: {key[0]: value} if key else value})
        else:
            base[name] = value
            typed.append(f"--{name}={text}")
    every = points(description, base)
    store = Store(Path(options.folder or f"sweeps/{Path(options.config[-1]).stem}"))
    first, step = _shard(options.shard)
    chosen = every[first::step]
    if options.status or options.dry_run:
        _list(store, chosen, options.jobs)
        return
    if not chosen:
        raise SparselitError(f"--shard {options.shard} holds none of the {len(every)} runs")
    (store.folder / "base").mkdir(parents=True, exist_ok=True)
    store.claim(base, options.accept)
    files = []
    for number, content in enumerate(contents):
        if content:
            files.append(store.folder / "base" / f"{number}.yaml")
            write_text(files[-1], yaml_text.dump(content))
    _start(store, chosen, [*(f"--config={file}" for file in files), *typed], options.jobs, argv)


def _start(store: Any, chosen: Sequence[Any], shared: list[str], jobs: int, argv: list[str]) -> None:
    """Try one batch of the first point, so that a slip in the grid is told before anything runs, then run all."""
    from sparselit.cli import main
    from sparselit.report.progress import display
    from sparselit.runs.result import Result
    from sparselit.sweep.engine import Progress, run_all, tried

    def command(point: Any) -> list[str]:
        given = [f"--{key}={_text(value)}" for key, value in point.settings.items()]
        return ["fit", *shared, *given, f"--trainer.default_root_dir={store.folder}", f"--name={point.id}"]

    if not any(store.state(point) == "complete" for point in chosen):
        with tempfile.TemporaryDirectory() as folder:
            once = [f"--trainer.default_root_dir={folder}", "--trainer.fast_dev_run=true"]
            problem = tried(main, [*_with_recipe(command(chosen[0])), *once], Path(folder) / "log.txt")
        if problem:
            raise SparselitError(f"{chosen[0].label}: {problem}")
    with display("sweep") as shown:

        def told(progress: Progress, point: Any) -> None:
            shown.counting(progress.complete + progress.failed, progress.total)
            shown.doing_now(_standing(progress, jobs))
            if point is not None and (record := store.record(point)) is not None:
                result = None
                if record.state == "complete" and (store.folder / record.run / "result.json").is_file():
                    result = Result.read(store.folder / record.run / "result.json")
                sys.stdout.write(f"{_line(point.label, record, result)}\n")
                sys.stdout.flush()

        whole = run_all(store, chosen, command, main, jobs, told)
    states = [store.state(point) for point in chosen]
    sys.stdout.write(f"{_counted(states)} in {store.folder}\n")
    if not whole:
        sys.stderr.write(f"go on with:\n{shlex.join(['sparselit', 'sweep', *argv])}\n")
        sys.exit(130)
    if "failed" in states:
        sys.stderr.write("the same command runs again what has failed\n")
        sys.exit(1)


def _with_recipe(argv: list[str]) -> list[str]:
    """The recipe, where a run has it beneath its own options: one batch is a length, which would take it away."""
    from sparselit.cli.experiment.recipe import beneath

    options: list[tuple[str, str | None]] = [tuple(word.split("=", 1)) for word in argv[1:]]  # type: ignore[misc]
    return [argv[0], *(f"{name}={value}" for name, value in beneath(argv[0], options)), *argv[1:]]


def _list(store: Any, chosen: Sequence[Any], jobs: int) -> None:
    """A line for each run, their count, and the time that is left by those that are complete."""
    records = [store.record(point) for point in chosen]
    states = [store.state(point) for point in chosen]
    for point, record, state in zip(chosen, records, states, strict=True):
        reason = f"  {record.reason}" if record is not None and state == "failed" else ""
        sys.stdout.write(f"{shortened(f'{point.id}  {state:<8}  {point.label}{reason}', 79)}\n")
    sys.stdout.write(f"{_counted(states)}\n")
    seconds = [record.seconds for record in records if record is not None and record.state == "complete"]
    left = sum(state not in ("complete", "running") for state in states)
    if left and seconds:
        sys.stdout.write(f"about {_duration(sum(seconds) / len(seconds) * left / jobs)} left, by those complete\n")


def _counted(states: Sequence[str]) -> str:
    parts = [
        f"{states.count(state)} {state}" for state in ("complete", "failed", "running", "missing") if state in states
    ]
    return f"{len(states)} runs: {', '.join(parts)}"


def _standing(progress: Any, jobs: int) -> str:
    text = f"{progress.running} running, {progress.failed} failed"
    done, left = progress.complete, progress.total - progress.complete - progress.failed
    if progress.seconds and done:
        text += f", about {_duration(progress.seconds / done * left / jobs)} left"
    return text


def _line(label: str, record: Any, result: Any) -> str:
    """One run that has ended, in a line of a terminal."""
    if record.state == "failed":
        reason = f": failed: {record.reason[:50]}"
        return shortened(label, 79 - len(reason)) + reason
    parts = []
    if result is not None:
        accuracy, density, circuits = result.accuracy("report"), result.density, result.circuits
        parts += [] if accuracy is None else [percent(accuracy)]
        parts += [] if density is None or density.reached is None else [f"density {density.reached:.4g}"]
        parts += (
            [] if circuits is None else ["no circuit" if circuits.edges is None else f"{circuits.edges:,.0f} edges"]
        )
    end = f": {', '.join([*parts, f'{record.seconds:.0f} s'])}"
    return shortened(label, max(10, 79 - len(end))) + end


def _duration(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds > 5400 else f"{max(1, round(seconds / 60))} min"


def _pairs(rest: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Options that are handed on, by key."""
    words = iter(rest)
    for word in words:
        name, equals, value = word.removeprefix("--").partition("=")
        if not word.startswith("--") or not name:
            raise SparselitError(f"{word!r} is no option; see `sparselit sweep --help`")
        if not equals:
            value = next(words, "")
            if not value or value.startswith("--"):
                raise SparselitError(f"--{name} needs a value")
        yield name, value


def _merge(into: dict[str, Any], content: object) -> None:
    """Later parts of the description win, key by key."""
    if not isinstance(content, Mapping):
        raise SparselitError(f"sweep must be a mapping such as {{grid: {{model.d_model: [32, 64]}}}}, got {content!r}")
    for part, value in content.items():
        if isinstance(value, Mapping) and isinstance(into.get(part), dict):
            into[part] |= value
        else:
            into[str(part)] = dict(value) if isinstance(value, Mapping) else value


def _shard(text: str) -> tuple[int, int]:
    """The first index and the step of ``I/N``."""
    try:
        number, count = map(int, text.split("/"))
    except ValueError:
        number = count = 0
    if not 1 <= number <= count:
        raise SparselitError(f"--shard must be I/N with 1 ≤ I ≤ N, as in 2/8, got {text!r}")
    return number - 1, count


def _text(value: object) -> str:
    """A value as it is typed: a text stays one, everything else is JSON, which is YAML."""
    return value if isinstance(value, str) else json.dumps(value)
