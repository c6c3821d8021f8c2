"""Disks that refuse: full at any byte, read-only, or no folder at all. One line says what, and how to go on."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.circuits import elsewhere

from .conftest import QUICK

#: A file of more bytes cannot be written, as on a full disk, also by root.
_LIMITED = """
import resource, sys
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[1]), resource.RLIM_INFINITY))
from sparselit.cli import main
main(sys.argv[2:])
"""
_FULL = "File too large"


def limited(folder: Path, size: int, *argv: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", _LIMITED, str(size), *argv], cwd=folder, capture_output=True, text=True, timeout=120
    )


def refusal(done: subprocess.CompletedProcess[str]) -> list[str]:
    """The lines of the error; nothing may trace."""
    assert done.returncode != 0, done.stdout
    assert "Traceback" not in done.stderr, done.stderr
    lines = done.stderr.splitlines()
    return lines[next(i for i, line in enumerate(lines) if line.startswith("error: ")) :]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "quick.yaml").write_text(QUICK)
    return tmp_path


# Nothing fits; the configuration does; the first checkpoint does not; a later file does not.
@pytest.mark.parametrize(
    "size", [0, pytest.param(300, marks=pytest.mark.slow), 3000, pytest.param(10_000, marks=pytest.mark.slow)]
)
def test_a_full_disk_is_answered_in_two_lines(folder: Path, size: int) -> None:
    lines = refusal(limited(folder, size, "fit", "--config", "quick.yaml"))
    assert len(lines) <= 2
    assert _FULL in lines[0] or "the disk is full" in lines[0]
    assert not list(folder.rglob("*.tmp"))


def test_what_was_kept_goes_on(folder: Path) -> None:
    """TensorBoard's file grows until it does not fit; the checkpoints stand, and the printed command goes on."""
    config = QUICK.replace("max_steps: 6", "max_steps: 240").replace("val_check_interval: 3", "log_every_n_steps: 1")
    (folder / "quick.yaml").write_text(config)
    lines = refusal(limited(folder, 48_000, "fit", "--config", "quick.yaml"))
    assert len(lines) == 2
    assert _FULL in lines[0]
    assert lines[0].endswith("when that is mended, go on with:")
    program, *argv = lines[1].split()
    assert program == "sparselit"
    done = limited(folder, 2**30, *argv)
    assert done.returncode == 0, done.stderr
    assert "resuming from step" in done.stderr


@pytest.mark.parametrize("place", ["a file", "/proc", pytest.param("/dev/null", marks=pytest.mark.slow)])
def test_a_place_for_runs_that_is_none(folder: Path, place: str) -> None:
    (folder / "a file").write_text("")
    lines = refusal(limited(folder, 2**30, "fit", "--config", "quick.yaml", f"--trainer.default_root_dir={place}"))
    assert len(lines) == 1
    assert place in lines[0]


@pytest.mark.parametrize("picture", ["here.png", "here.pdf"])
def test_pictures_without_room(folder: Path, picture: str) -> None:
    circuit = elsewhere.with_weights(folder) / elsewhere.NAME
    lines = refusal(limited(folder, 100, "show", str(circuit), "--output", picture))
    assert len(lines) == 1
    assert _FULL in lines[0]
    assert not list(folder.glob("here*"))
