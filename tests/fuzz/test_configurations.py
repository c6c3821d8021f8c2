"""A configuration or command line is done, or refused in one or two lines: no traceback, no hang."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
import yaml

from .configurations import BASE, PLACES, case
from .running import complaint

#: Cases of every run of the tests, and of the slow one.
FEW, MANY = 15, 1200


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A current folder of its own; what commands import is imported, so that no limit of time ends an import."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    (tmp_path / "case.yaml").write_text(yaml.safe_dump(BASE))
    assert complaint(["fit", "--config", "case.yaml"], seconds=300) is None
    assert list((tmp_path / "runs").rglob("result.json"))
    yield tmp_path
    torch.use_deterministic_algorithms(False)
    torch.set_num_threads(1)


def bad_answers(folder: Path, numbers: range) -> list[str]:
    """Of each case that is answered badly its number, what is wrong and what was written."""
    found = []
    for number in numbers:
        text, options = case(number)
        (folder / "case.yaml").write_text(text, encoding="utf-8", newline="")
        if (wrong := complaint(["fit", "--config", "case.yaml", *options])) is not None:
            found.append(f"{number} {PLACES[number % len(PLACES)]} {options}: {wrong}")
        shutil.rmtree(folder / "runs", ignore_errors=True)
    return found


def test_a_few_changed_configurations_are_answered_well(folder: Path) -> None:
    assert bad_answers(folder, range(0, FEW * 79, 79)) == []


@pytest.mark.slow
def test_changed_configurations_are_answered_well(folder: Path) -> None:
    assert bad_answers(folder, range(MANY)) == []
