"""What holds where it was searched and fails on the report split is no circuit: its label and its exit code."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from sparselit.cli.experiment.discover_command import Discovered
from sparselit.cli.experiment.experiment import Experiment
from sparselit.training.discovery import described
from tests.circuits.records import some_circuit


@pytest.mark.parametrize(("value", "code"), [(0.08, 0), (0.2, 4)])
def test_discover_has_an_exit_code_of_its_own(value: float, code: int, capsys: pytest.CaptureFixture[str]) -> None:
    circuit = some_circuit(criterion=(replace(some_circuit().criterion[0], value=value),))
    found = Discovered("", circuit, Path("circuits/step=7.json"), 1.0, stopped=False, known=False)
    command = SimpleNamespace(trainer=SimpleNamespace(discover=lambda: [found]))
    ended = 0
    try:
        Experiment.discover(command)  # type: ignore[arg-type]
    except SystemExit as stop:
        ended = int(stop.code or 0)
    out, err = capsys.readouterr()
    assert ended == code
    for text in (out, err, described(circuit)):
        assert ("did not generalise" in text) == bool(code)
