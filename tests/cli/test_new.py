"""``sparselit new task``: what it writes works as it stands, and is trained under the recipe."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from sparselit.runs import Result

from .conftest import Command


def test_a_new_task_works_at_once(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("sparselit"))

    def run(*command: str) -> str:
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=240, check=False)
        assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    said = run(script, "new", "task", "LastWord")
    written = ["tasks/last_word.py", "tests/test_last_word.py", "last_word.yaml"]
    assert all(f"wrote {name}" in said and (tmp_path / name).is_file() for name in written)
    run(sys.executable, "-m", "pytest", "-q", "tests")
    run(script, "fit", "--config", "last_word.yaml", "--trainer.fast_dev_run", "true")


def test_a_new_task_overwrites_nothing_and_is_named_like_a_class(sparselit: Command, folder: Path) -> None:
    assert sparselit("new", "task", "Lookup").code == 0
    (folder / "tasks" / "lookup.py").unlink()
    code, _, err = sparselit("new", "task", "Lookup")
    assert (code, err.count("\n")) == (2, 1)
    assert "test_lookup.py exists" in err
    assert not (folder / "tasks" / "lookup.py").exists()
    code, _, err = sparselit("new", "task", "../lookup")
    assert code == 2
    assert "named like a class" in err


def test_the_yaml_of_a_new_task_has_five_lines(sparselit: Command, folder: Path) -> None:
    sparselit("new", "task", "Lookup")
    text = (folder / "lookup.yaml").read_text()
    assert len(text.splitlines()) == 5
    assert yaml.safe_load(text)["data"] == "tasks.lookup.Lookup"


@pytest.mark.slow
def test_a_new_task_ends_with_a_certified_circuit(tmp_path: Path) -> None:
    script = str(Path(sys.executable).with_name("sparselit"))
    for command in (["new", "task", "Lookup"], ["fit", "--config", "lookup.yaml"]):
        subprocess.run([script, *command], cwd=tmp_path, capture_output=True, timeout=1800, check=True)
    result = Result.read(tmp_path / "runs" / "lookup" / "version_0" / "result.json")
    assert result.circuits is not None
    (circuit,) = result.circuits.latest
    assert (result.accuracy("report") or 0) >= 0.99
    assert circuit.complete
    assert circuit.generalises
