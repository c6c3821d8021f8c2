"""A run's folder has one owner; its end, however it comes, gives the folder free."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from sparselit.errors import SparselitError
from sparselit.runs.lock import OWNER, locked

HOLD = "import sys, time; from pathlib import Path; from sparselit.runs.lock import locked\n"
HOLD += "with locked(Path(sys.argv[1])):\n    print('held', flush=True); time.sleep(60)"


def test_a_second_process_is_refused_by_name_and_a_killed_owner_is_no_owner(tmp_path: Path) -> None:
    owner = subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert owner.stdout is not None
    assert owner.stdout.readline() == "held\n"
    with (
        pytest.raises(SparselitError, match=f"another process trains in .* \\(process {owner.pid} on .* since .*\\)"),
        locked(tmp_path),
    ):
        pass
    owner.send_signal(signal.SIGKILL)
    owner.communicate()
    with locked(tmp_path):  # nothing to clean up by hand
        assert str(os.getpid()) in (tmp_path / OWNER).read_text()
    assert not (tmp_path / OWNER).exists()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"process": "x"}', "\x1b[31m"])
def test_an_owner_that_cannot_be_read_is_left_out(text: str, tmp_path: Path) -> None:
    with locked(tmp_path):
        (tmp_path / OWNER).write_text(text)
        with (
            pytest.raises(SparselitError, match=r"another process trains in [^\x1b]*; wait for it, or end it$"),
            locked(tmp_path),
        ):
            pass
