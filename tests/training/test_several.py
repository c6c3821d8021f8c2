"""Searches in processes of their own: each is told of Ctrl-C, and what it has then comes back."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass
from pathlib import Path

from sparselit.callbacks import CircuitDiscovery

from sparselit.circuits import Bound
from sparselit.circuits.search import Found, GroupTesting, Progress
from sparselit.circuits.search.problem import Problem
from sparselit.training.several import each_behaviour
from tests.circuits.models import randomised, some_behaviour


@dataclass
class Patient(GroupTesting):
    """Says by a file that it has begun, and goes on until it is ended."""

    mark: Path

    def __post_init__(self) -> None:
        super().__init__()

    def shrink(self, problem: Problem, found: Found, progress: Progress) -> None:
        self.mark.with_name(f"{os.getpid()}.begun").touch()
        while True:
            time.sleep(0.01)
            progress("waiting", int(found.kept.sum()))


def test_ctrl_c_ends_all_searches_with_what_they_have(tmp_path: Path) -> None:
    search = CircuitDiscovery([Bound("accuracy", at_least=0.01)], search=Patient(tmp_path / "mark"))

    def press() -> None:
        deadline = time.monotonic() + 60
        while len(list(tmp_path.glob("*.begun"))) < 2 and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    model = randomised()
    behaviours = dict.fromkeys("abc", some_behaviour(model))
    threading.Thread(target=press, daemon=True).start()
    results = dict(each_behaviour(search, model, behaviours, 0, tmp_path, visible=False, jobs=2))
    assert list(results)[:2] == ["a", "b"]
    for result in results.values():
        assert result.stopped
        assert result.circuit is not None
        assert not result.circuit.certificate.complete
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
