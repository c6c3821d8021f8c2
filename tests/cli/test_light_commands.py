"""What runs without torch: help, version, listings."""

from __future__ import annotations

import subprocess
import sys
import time
from importlib import import_module
from pathlib import Path

import pytest

from sparselit.cli.commands.configs import find_config, question, shipped
from sparselit.cli.commands.tasks import installed_tasks
from sparselit.errors import SparselitError
from tests.runs import example

from .conftest import Command

CHECK = (
    "import sys; sys.argv = ['sparselit', *{argv}]\nfrom sparselit.cli import main\ntry:\n    main()\n"
    "except SystemExit as stop: assert not stop.code, stop.code\n"
    "assert not {{'torch', 'lightning', 'jsonargparse'}} & set(sys.modules)"
)


@pytest.mark.parametrize(
    "argv",
    [
        ["--help"],
        ["--version"],
        ["tasks"],
        ["configs"],
        ["density", "--help"],
        ["runs", "--help"],
        ["models"],
        ["models", "python_base"],
    ],
    ids=" ".join,
)
def test_light_commands_do_not_import_torch_and_fit_80_columns(argv: list[str]) -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", CHECK.format(argv=argv)], capture_output=True, text=True, check=False)
    seconds = time.monotonic() - began
    assert done.returncode == 0, done.stderr
    assert done.stdout
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert seconds < 2  # 0.1 s on an idle machine


def test_listing_runs_does_not_import_torch(folder: Path) -> None:
    (folder / "result.json").write_text(example.result().text())
    done = subprocess.run(
        [sys.executable, "-c", CHECK.format(argv=["runs", "."])], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "quotes/version_0" in done.stdout


def test_the_console_script_runs_and_a_reader_that_leaves_is_no_error() -> None:
    script = Path(sys.executable).with_name("sparselit")
    done = subprocess.run(f"{script} --help | head -1", shell=True, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: sparselit")
    assert done.stderr == ""


def test_tasks_are_read_from_their_sources(sparselit: Command) -> None:
    tasks = import_module("sparselit.tasks")
    assert {name for name, _ in installed_tasks()} == set(tasks.__all__)
    out = sparselit("tasks").out
    assert all(name in out for name in tasks.__all__)


def test_every_shipped_config_opens_with_its_question(sparselit: Command) -> None:
    out = sparselit("configs").out
    for name, path in shipped().items():
        assert question(path).endswith((".", "?")), f"{name} must open with a sentence, and it is shown whole"
        assert name in out


def test_a_config_is_found_by_name_and_an_existing_file_wins(folder: Path) -> None:
    name, path = next(iter(shipped().items()))
    assert find_config(name) == find_config(f"{name}.yaml") == str(path)
    (folder / name).write_text("data: Parity\n")
    assert find_config(name) == name
    with pytest.raises(SparselitError, match=f"did you mean '{name}'"):
        find_config(f"{name[:-1]}x")


@pytest.mark.parametrize("command", ["fit", "predict"])
def test_help_of_an_experiment_command_is_readable(sparselit: Command, command: str) -> None:
    code, out, err = sparselit(command, "--help")
    assert (code, err) == (0, "")
    lines = out.splitlines()
    assert max(map(len, lines)) <= 80
    assert len(lines) < 200
    places = [out.index(f"\n{key}:") for key in ("data", "model", "sparsity", "trainer")]
    assert places == sorted(places)
    for expected in ("--model.d_model 64", "--sparsity.density", "--trainer.max_steps", "--ckpt_path"):
        assert expected in out
    assert ("--prompt" in out) == (command == "predict")
    assert "vocab_size" not in out


def test_help_of_one_class_is_jsonargparses(sparselit: Command) -> None:
    code, out, _ = sparselit("fit", "--data.help", "Parity")
    assert code == 0
    assert "--data.length" in out
