"""The circuits of several behaviours of one model, one after the other or in processes of their own."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor, wait
from contextlib import contextmanager
from copy import copy
from multiprocessing import active_children, get_context
from multiprocessing.synchronize import Event
from pathlib import Path

import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_info

from sparselit.data.behaviour import Behaviour
from sparselit.model.transformer import Transformer
from sparselit.report.progress import display
from sparselit.training.discovery import Discovery, SearchResult
from sparselit.training.undisturbed import stoppable

#: Most processes at once.
MOST_JOBS = 1024
_DENORMAL = 1e-40
_OFTEN = 0.2  # seconds


def each_behaviour(
    search: Discovery,
    model: Transformer,
    behaviours: Mapping[str, Behaviour],
    step: int,
    folder: Path,
    visible: bool,
    jobs: int = 1,
) -> Iterator[tuple[str, SearchResult]]:
    """Search for the circuit of each behaviour. How many processes do it changes no circuit.

    Args:
        search: how to search.
        model: the transformer, on any device.
        behaviours: by task.
        step: number of optimizer steps that the model has been trained for.
        folder: where earlier circuits stand, in a folder for each task.
        visible: whether progress is shown.
        jobs: processes, at least 1.

    Yields:
        Each task with its result, in order. After Ctrl-C the searches that run end with what they have, and no other
        begins.
    """
    if min(jobs, len(behaviours)) == 1:
        for task, behaviour in behaviours.items():
            result = search.seek(model, behaviour, step, folder / task, visible)
            yield task, result
            if result.stopped:
                return
        return
    portable = copy(search)
    portable.announce = rank_zero_info  # another may not be known to a new process
    device, here = next(model.parameters()).device, model.to("cpu")
    spawn = get_context("spawn")
    ended = spawn.Event()
    alike = ended, torch.get_num_threads(), not bool(torch.tensor(_DENORMAL) * 1)
    pool = ProcessPoolExecutor(min(jobs, len(behaviours)), spawn, _begin, alike)
    try:
        with _deaf():  # inherited by the processes, which hear of Ctrl-C by the event alone
            futures = {
                task: pool.submit(_seek, portable, here, device, behaviour, step, folder / task)
                for task, behaviour in behaviours.items()
            }
        with stoppable() as stop, display("circuits", visible) as shown:
            for number, (task, future) in enumerate(futures.items()):
                shown.counting(number, len(futures))
                while not wait([future], _OFTEN).done:
                    if stop.requested and not ended.is_set():
                        ended.set()
                        pool.shutdown(wait=False, cancel_futures=True)
                if not future.cancelled():
                    yield task, future.result()
    except BaseException:
        for process in active_children():
            process.terminate()
        raise
    finally:
        pool.shutdown(cancel_futures=True)
        model.to(device)


@contextmanager
def _deaf() -> Iterator[None]:
    """Ctrl-C does nothing meanwhile."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


# -- in a process of its own ------------------------------------------------------------------------------------------

_ended: Event  # the user has pressed Ctrl-C


def _begin(ended: Event, threads: int, flushed: bool) -> None:
    """What the process shares with the first one: the end, and settings on which the last bits of a result depend."""
    global _ended
    _ended = ended
    torch.set_num_threads(threads)
    torch.set_flush_denormal(flushed)


def _seek(
    search: Discovery, model: Transformer, device: torch.device, behaviour: Behaviour, step: int, folder: Path
) -> SearchResult:
    """One search, without a display, which ends with what it has once the event says so."""
    return search.seek(model.to(device), behaviour, step, folder, visible=False, ended=_ended.is_set)
