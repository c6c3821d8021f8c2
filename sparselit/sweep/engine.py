"""The processes of a sweep: so many at once, each of which runs one point as the command line would.

A process that has loaded everything hands out copies of itself, so that a run costs no start of its own. What a run has
come to is written by the process that ran it: one whose sweep was killed finishes its run, and leaves its record.
"""

from __future__ import annotations

import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import connection, get_all_start_methods, get_context
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from sparselit.errors import SparselitError
from sparselit.runs.folder import RunFolder
from sparselit.runs.lock import locked
from sparselit.sweep.points import Point
from sparselit.sweep.store import LOG, Record, Store

#: Exit code of a process that found its point in the hands of another.
_ELSEWHERE = 75
#: Exit codes of a run that was ended from outside, which is no failure: it goes on the next time.
_ENDED = (130, 143, 129)
#: What the process that hands out copies has loaded.
_PRELOADED = "sparselit.cli.experiment.experiment"
_OFTEN, _AGAIN = 0.2, 2.0  # seconds between two looks at the processes, and at points in other hands

#: A command line in this process, as ``sparselit.cli.main``; it may end by SystemExit.
Main = Callable[[Sequence[str]], object]


@dataclass
class Progress:
    """Where a sweep stands.

    Attributes:
        total: points.
        complete: of them, ended well.
        failed: ended badly.
        running: in this sweep's processes.
        seconds: wall time of the runs that ended well here.
    """

    total: int
    complete: int = 0
    failed: int = 0
    running: int = 0
    seconds: float = 0.0


#: Called when a run has ended, and often in between (None).
Told = Callable[[Progress, Point | None], None]


def run_all(
    store: Store,
    points: Sequence[Point],
    command: Callable[[Point], list[str]],
    main: Main,
    jobs: int,
    told: Told,
    preloaded: Sequence[str] = (_PRELOADED,),
) -> bool:
    """Run what is missing or has failed, and wait for what other processes run.

    Args:
        store: the sweep's folder.
        points: what is to be complete in the end.
        command: the command line of a point's run.
        main: runs a command line.
        jobs: processes at once, at least 1.
        told: hears of the progress.
        preloaded: modules that the process has loaded which hands out copies of itself.

    Returns:
        Whether it came to its end; False after Ctrl-C, when the runs in flight have kept a checkpoint.
    """
    methods = get_all_start_methods()
    context: Any = get_context("forkserver" if "forkserver" in methods else "spawn")
    with suppress(AttributeError):
        context.set_forkserver_preload(list(preloaded))
    complete = [point for point in points if store.state(point) == "complete"]
    progress = Progress(len(points), len(complete))
    waiting = deque(point for point in points if point not in complete)
    running: dict[BaseProcess, Point] = {}
    elsewhere: deque[Point] = deque()
    stopped = False

    def stop(signum: int, frame: object) -> None:
        nonlocal stopped
        if stopped:
            for process in running:
                process.kill()
            raise KeyboardInterrupt
        stopped = True
        os.write(2, b"\nending the runs in flight, which keep a checkpoint; Ctrl-C again stops at once\n")

    before = signal.signal(signal.SIGINT, stop)
    try:
        looked = time.monotonic()
        while running or (not stopped and (waiting or elsewhere)):
            while waiting and len(running) < jobs and not stopped:
                point = waiting.popleft()
                arguments = (store, point, command(point), main)
                process = context.Process(target=_run, args=arguments, name=point.id)
                process.start()
                running[process] = point
            progress.running = len(running)
            told(progress, None)
            connection.wait([process.sentinel for process in running], _OFTEN) if running else time.sleep(_OFTEN)
            for process in [process for process in running if not process.is_alive()]:
                point = running.pop(process)
                process.join()
                record = store.record(point)
                if process.exitcode == _ELSEWHERE:
                    elsewhere.append(point)
                    continue
                if record is None and process.exitcode not in _ENDED:
                    record = Record(point.settings, process.exitcode or 1, "its process was killed", "", 0.0)
                    store.write(point, record)
                _count(progress, record)
                told(progress, point)
            if elsewhere and not stopped and time.monotonic() - looked > _AGAIN:
                looked = time.monotonic()
                for point in list(elsewhere):
                    if store.state(point) == "running":
                        continue
                    elsewhere.remove(point)
                    record = store.record(point)
                    if record is not None and record.state == "complete":
                        progress.complete += 1
                        told(progress, point)
                    else:
                        waiting.append(point)
    finally:
        signal.signal(signal.SIGINT, before)
    return not stopped


def _count(progress: Progress, record: Record | None) -> None:
    if record is None:
        return
    if record.state == "complete":
        progress.complete += 1
        progress.seconds += record.seconds
    else:
        progress.failed += 1


def tried(main: Main, argv: Sequence[str], log: Path) -> str:
    """Run a command line in a process of its own.

    Args:
        main: runs a command line.
        argv: the command line.
        log: where its output goes.

    Returns:
        What it says is wrong; empty where it ends well.
    """
    process = get_context("spawn").Process(target=_logged, args=(main, list(argv), log))
    process.start()
    process.join()
    return last_error(log) if process.exitcode else ""


def last_error(log: Path) -> str:
    """The last line of a log that names an error; else its last line."""
    lines = [line.strip() for line in log.read_text(encoding="utf-8", errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("error: ")]
    return (errors or lines or ["it ended without a word"])[-1].removeprefix("error: ")


def _run(store: Store, point: Point, argv: list[str], main: Main) -> None:
    """One point, in a process of its own."""
    folder = store.of(point)
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with locked(folder):
            if store.state_apart(point) == "complete":  # another sweep was quicker
                return
            unfinished = store.unfinished(point)
            if unfinished is not None:
                argv = ["fit", "--ckpt_path", str(unfinished.path)]
            began = time.monotonic()
            code = _code(main, argv, folder / LOG)
            if code in _ENDED:
                sys.exit(code)
            versions = RunFolder.versions(store.runs, point.id)
            run = os.path.relpath(versions[-1].path, store.folder) if versions else ""
            reason = last_error(folder / LOG) if code else ""
            store.write(point, Record(point.settings, code, reason, run, round(time.monotonic() - began, 1)))
    except SparselitError:
        sys.exit(_ELSEWHERE)


def _logged(main: Main, argv: list[str], log: Path) -> None:
    sys.exit(_code(main, argv, log))


def _code(main: Main, argv: Sequence[str], log: Path) -> int:
    """Run a command line with all output, also of what is no Python, in a file; its exit code."""
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)  # a log grows while it is read
    for stream in (1, 2):
        os.dup2(file, stream)
    os.close(file)
    sys.stdout, sys.stderr = (os.fdopen(stream, "w", 1, "utf-8", closefd=False) for stream in (1, 2))
    try:
        main(argv)
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except KeyboardInterrupt:
        return 130
    except Exception as error:  # a bug, which ends this run and not the sweep
        sys.stderr.write(f"error: {type(error).__name__}: {error}\n")
        return 1
    return 0
