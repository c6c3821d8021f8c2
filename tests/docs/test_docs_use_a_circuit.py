"""docs/how_to/use_a_circuit.md: its commands and options exist, and its Python runs."""

from __future__ import annotations

import contextlib
import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from sparselit.circuits import Bound, discover, load, write_circuit
from sparselit.cli import main
from sparselit.cli.commands import COMMAND_MODULES, EXPERIMENT
from sparselit.cli.commands.repair import METHODS
from tests.circuits.models import randomised, some_behaviour

PAGE = (Path(__file__).parents[2] / "docs" / "how_to" / "use_a_circuit.md").read_text(encoding="utf-8")


def help_of(command: str) -> str:
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.suppress(SystemExit):
        main([command, "--help"])
    return out.getvalue()


def test_its_commands_and_options_exist() -> None:
    commands = set(re.findall(r"sparselit ([a-z]+)\b", PAGE)) - {"fit"}
    assert commands <= {**EXPERIMENT, **COMMAND_MODULES}.keys()
    used = {"hypotheses", "stability", "story", "intervene", "diff", "history", "union"}
    assert used <= commands
    known = " ".join(help_of(command) for command in used)
    options = set(re.findall(r"(?<![\w.])--([a-z]+)\b(?!\.)", PAGE)) - {"config", "seed", "help"}
    assert len(options) > 5
    for option in options:
        assert f"--{option}" in known, option


def test_its_outputs_fit_a_terminal() -> None:
    blocks = re.findall(r"```\n\$ .*?```", PAGE, re.DOTALL)
    assert len(blocks) == 5
    assert max(len(line) for block in blocks for line in block.splitlines()) <= 80


def test_its_python_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = randomised(seed=4, density=0.5)
    behaviour = some_behaviour(model)
    write_circuit(
        tmp_path / "step=2000.json",
        discover(model, behaviour, [Bound("accuracy", at_least=0.7)], ablation="zero"),
        model,
        behaviour,
    )
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    names: dict[str, Any] = {
        "tokens": behaviour.splits["report"].tokens,
        "other": load(tmp_path / "step=2000.json"),
    }
    exec(code, names)
    assert names["logits"].shape == (*names["tokens"].shape, 5)
    assert torch.equal(names["core"].run(names["tokens"]), names["logits"])


def test_the_commands_and_options_of_acting_exist() -> None:
    page = (Path(__file__).parents[2] / "docs" / "how_to" / "act_on_a_circuit.md").read_text(encoding="utf-8")
    commands = set(re.findall(r"sparselit ([a-z]+)\b", page)) - {"fit"}
    assert commands == {"audit", "diagnose", "repair", "edit", "attack", "verify"}
    known = " ".join(help_of(command) for command in commands)
    for option in set(re.findall(r"(?<![\w.])--([a-z_]+)\b", page)) - {"config"}:
        assert f"--{option}" in known, option
    methods = re.findall(r"^\| `([a-z]+)` \|", page, re.MULTILINE)
    assert methods == list(METHODS)
