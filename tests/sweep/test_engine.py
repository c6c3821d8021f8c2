"""Every point ends exactly once in the ledger, whatever is killed, and whoever else runs the same sweep."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest

from sparselit.sweep.points import Point, points
from sparselit.sweep.store import Store
from tests.sweep import pretended

POINTS = points({"grid": {"n": [0, 1, 2, 3, 4, 5]}}, {})


def driver(folder: Path, seconds: float, jobs: int = 2) -> subprocess.Popen[bytes]:
    """A sweep in a process of its own, whose runs sleep."""
    argv = [sys.executable, "-m", "tests.sweep.pretended", str(folder), str(seconds), str(jobs)]
    with (folder / "err.txt").open("wb") as file:
        return subprocess.Popen(argv, cwd=Path(__file__).parents[2], stderr=file)


def ended(folder: Path) -> Counter[str]:
    """How often each point has come to its end."""
    return Counter(path.name.partition(".")[0] for path in (folder / "ended").glob("*"))


def until(condition: object, seconds: float = 60) -> None:
    deadline = time.monotonic() + seconds
    while not condition() and time.monotonic() < deadline:  # type: ignore[operator]
        time.sleep(0.02)
    assert condition()  # type: ignore[operator]


def test_each_point_runs_once_failures_are_kept_and_run_again(tmp_path: Path) -> None:
    store = Store(tmp_path)
    (tmp_path / "broken").write_text(POINTS[3].id)
    assert driver(tmp_path, 0.0).wait(60) == 0
    assert [store.state(point) for point in POINTS] == ["complete"] * 3 + ["failed"] + ["complete"] * 2
    record = store.record(POINTS[3])
    assert record is not None
    assert (record.code, record.reason) == (2, "it is broken")
    (tmp_path / "broken").unlink()
    assert driver(tmp_path, 0.0).wait(60) == 0
    assert ended(tmp_path) == dict.fromkeys([point.id for point in POINTS], 1)


def test_runs_whose_sweep_is_killed_end_and_two_sweeps_share_the_points(tmp_path: Path) -> None:
    first = driver(tmp_path, 1.0)
    until(lambda: len(list((tmp_path / "begun").glob("*"))) >= 2)
    first.kill()
    first.wait()
    both = [driver(tmp_path, 0.3) for _ in range(2)]
    assert [process.wait(90) for process in both] == [0, 0]
    assert ended(tmp_path) == dict.fromkeys([point.id for point in POINTS], 1)
    assert {Store(tmp_path).state(point) for point in POINTS} == {"complete"}


def test_a_killed_run_is_a_failure_that_runs_again_and_ctrl_c_keeps_the_rest(tmp_path: Path) -> None:
    process = driver(tmp_path, 2.0, jobs=1)
    until(lambda: list((tmp_path / "begun").glob("*")))
    (begun,) = (tmp_path / "begun").glob("*")
    os.kill(int(begun.read_text()), signal.SIGKILL)
    until(lambda: Store(tmp_path).record(POINTS[0]) is not None)
    until(lambda: len(list((tmp_path / "begun").glob("*"))) == 2)
    process.send_signal(signal.SIGINT)
    assert process.wait(60) == 130
    assert "keep a checkpoint" in (tmp_path / "err.txt").read_text()
    assert Store(tmp_path).state(POINTS[0]) == "failed"
    assert Store(tmp_path).state(POINTS[5]) == "missing"
    assert driver(tmp_path, 0.0).wait(60) == 0
    assert ended(tmp_path) == dict.fromkeys([point.id for point in POINTS], 1)


@pytest.mark.slow
def test_kills_of_anybody_at_random_moments_lose_nothing(tmp_path: Path) -> None:
    """Ten kills of sweeps and of runs; then one undisturbed sweep."""
    generator = random.Random(0)
    for _ in range(10):
        process = driver(tmp_path, 0.7)
        time.sleep(generator.uniform(4, 9))
        victims = [int(path.read_text()) for path in (tmp_path / "begun").glob("*")]
        alive = [pid for pid in [*victims, process.pid] if pretended.is_alive(pid)]
        os.kill(generator.choice(alive or [process.pid]), signal.SIGKILL)
        process.kill()
        process.wait()
    assert driver(tmp_path, 0.1).wait(120) == 0
    assert ended(tmp_path) == dict.fromkeys([point.id for point in POINTS], 1)


def test_points_of_another_base_are_others() -> None:
    (point,) = points({"grid": {"n": [0]}}, {"other": 1})
    assert isinstance(point, Point)
    assert point.id not in {other.id for other in POINTS}
