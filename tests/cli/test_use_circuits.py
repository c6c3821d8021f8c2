"""The commands that use a circuit, on one of a model wired by hand, as a user runs them: in processes of their own."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import pytest

from sparselit.circuits.criterion import Bound
from sparselit.circuits.discover import discover
from sparselit.circuits.files import write_circuit

from .test_show_verify import NAME, texts, wired_model

SCRIPT = Path(sys.executable).with_name("sparselit")


class Outcome(NamedTuple):
    code: int
    out: str
    err: str


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory, _one_thread: None) -> Path:
    """A folder with a circuit at step 7."""
    folder = tmp_path_factory.mktemp("found")
    model, behaviour = wired_model(), texts()
    circuit = discover(model, behaviour, [Bound("task_loss", at_most=0.15), Bound("accuracy", at_least=0.99)])
    write_circuit(folder / NAME, circuit, model, behaviour)
    return folder


@pytest.fixture
def folder(found: Path, tmp_path: Path) -> Path:
    """A copy of it."""
    shutil.copytree(found, tmp_path, dirs_exist_ok=True)
    return tmp_path


def sparselit(folder: Path, *argv: str) -> Outcome:
    """Run a command in ``folder``; nothing it prints is wider than 80 columns."""
    done = subprocess.run([SCRIPT, *argv], cwd=folder, capture_output=True, text=True, check=False)
    outcome = Outcome(done.returncode, done.stdout, done.stderr)
    assert max(map(len, outcome.out.splitlines()), default=0) <= 80, outcome.out
    return outcome


def refused(outcome: Outcome, *expected: str) -> None:
    """Exit code 2, one or two lines, nothing on standard output."""
    assert outcome.code == 2, outcome
    assert outcome.out == ""
    assert outcome.err.startswith("error: ")
    assert len(outcome.err.splitlines()) <= 2
    for text in expected:
        assert text in outcome.err


# ---------------------------------------------------------------- hypotheses


def test_hypotheses_prints_three_verdicts_and_json_the_same(folder: Path) -> None:
    code, out, err = sparselit(folder, "hypotheses", NAME, "--draws", "19")
    assert err == ""
    assert "SUFFICIENT: task_loss" in out
    words = " ".join(out.split())
    assert "19 of 19 random circuits" in words
    assert "MINIMAL: 8 of 8 edges" in words
    assert "n 120" in words
    assert "rough" in words
    described = sparselit(folder, "hypotheses", NAME, "--draws", "19", "--json")
    found = json.loads(described.out)
    assert found["sufficiency"]["p"] == 0.05
    assert len(found["minimality"]["removals"]) == 8
    assert found["equivalence"]["verdict"].upper() in out
    passed = found["equivalence"]["verdict"] == "equivalent"
    assert code == described.code == (0 if passed else 1)


def test_hypotheses_refuses_what_cannot_be_tested(folder: Path) -> None:
    refused(sparselit(folder, "hypotheses", NAME, "--metric", "kl"), "task_loss, answer_loss, accuracy")
    refused(sparselit(folder, "hypotheses", NAME, "--draws", "3"), "3 random circuits cannot reach the level 0.05")
    refused(sparselit(folder, "hypotheses", "missing.json"), "missing.json")
