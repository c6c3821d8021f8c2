"""A damaged file is refused in one or two lines by every command that reads it, or does not matter; nothing is lost."""

from __future__ import annotations

import os
import random
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from .damage import damage
from .files import PAIRS, contents, lost, make
from .running import answer

#: Cases of every run of the tests, and of the slow one.
FEW, MANY = 10, 1200


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Iterator[Path]:
    """A folder as :func:`make` fills it; never damaged itself."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
        make(folder)
    yield folder
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


@pytest.fixture
def folder(whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path


def bad_answers(whole: Path, root: Path, numbers: range) -> list[str]:
    """Of each case that is answered badly its number, the file, what was done to it, and what is wrong."""
    found, good = [], contents(whole)
    for number in numbers:
        kind, command = PAIRS[number % len(PAIRS)]
        folder = root / "case"
        shutil.copytree(whole, folder)
        os.chdir(folder)
        done = damage(Path(kind.path), kind.damages, random.Random(number))
        before = contents(folder)
        code, wrong = answer(command)
        wrong = wrong or lost(good, before, contents(folder), command[0], code)
        if wrong is not None:
            found.append(f"{number} {kind.path} ({done}) {' '.join(command)}: {wrong}")
        os.chdir(root)
        shutil.rmtree(folder)
        for away in root.glob("away-*"):
            away.unlink()
    return found


def test_a_few_damaged_files_are_answered_well(whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert bad_answers(whole, folder, range(0, FEW * 13, 13)) == []


@pytest.mark.slow
def test_damaged_files_are_answered_well(whole: Path, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    assert bad_answers(whole, folder, range(MANY)) == []
