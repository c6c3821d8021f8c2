"""What a run shows while it trains: one line of 80 columns on a terminal, plain lines in a file."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import sys
import termios
from pathlib import Path

import pytest

from sparselit.cli.experiment import bar
from sparselit.cli.experiment.bar import figures

from .conftest import QUICK, Command

WITH_BAR = QUICK.replace("enable_progress_bar: false", "enable_progress_bar: true")


def on_a_terminal(folder: Path, *argv: str) -> list[str]:
    """What a command writes on a terminal of 80 columns, cut where the cursor goes back or down."""
    number, terminal = pty.fork()
    if number == 0:
        os.chdir(folder)
        os.execv(Path(sys.executable).with_name("sparselit"), ["sparselit", *argv])
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    written = b""
    while True:
        try:
            block = os.read(terminal, 65536)
        except OSError:  # the other end is closed
            break
        if not block:
            break
        written += block
    assert os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]) == 0, written.decode()
    return re.split(r"[\r\n]+", written.decode())


def test_a_terminal_shows_step_time_left_loss_accuracy_density(folder: Path) -> None:
    (folder / "quick.yaml").write_text(WITH_BAR)
    lines = on_a_terminal(folder, "fit", "--config", "quick.yaml")
    last = [line for line in lines if line.startswith("step ")][-1]
    assert re.fullmatch(r"step 6/6  00:00 left, loss [\d.]+, accuracy [\d.]+%, density 0\.2\d*\s*", last)
    assert max(map(len, lines[: lines.index(last)])) <= 80
    lines = on_a_terminal(folder, "fit", "--ckpt_path", "runs/quick/version_0", "--trainer.max_steps", "9")
    steps = [line for line in lines if line.startswith("step ")]
    assert steps[0].startswith("step 6/9  ? left")
    assert re.match(r"step [78]/9  00:0\d left", steps[1]) or steps[1].startswith("step 9/9")
    assert not any("\\x" in line for line in lines)


def test_a_file_gets_plain_lines_now_and_then(
    sparselit: Command, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "quick.yaml").write_text(WITH_BAR)
    outcome = sparselit("fit", "--config", "quick.yaml")
    assert outcome.err.splitlines() == ["run folder runs/quick/version_0"]
    monkeypatch.setattr(bar, "_EVERY", 0.0)
    outcome = sparselit("fit", "--config", "quick.yaml")
    assert re.search(r"^step 4 of 6, loss [\d.]+, accuracy [\d.]+%, density [\d.]+$", outcome.err, re.MULTILINE)
    assert "\r" not in outcome.err + outcome.out


def test_the_size_of_a_circuit_is_shown_where_one_was_found() -> None:
    metrics = {"circuit/edges": 1234.0, "density/total": 0.05, "train/loss": float("nan"), "val/loss": 1.0}
    assert figures(metrics) == "density 0.05"
    assert figures({**metrics, "circuit/found": 1.0}) == "density 0.05, edges 1,234"
