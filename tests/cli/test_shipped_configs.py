"""Every shipped YAML runs, and every command of the README is one that exists."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sparselit.cli.commands import COMMAND_MODULES, EXPERIMENT
from sparselit.cli.commands.configs import is_overlay

ROOT = Path(__file__).parents[2]
CONFIGS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if not is_overlay(path))
#: Those of language models: their figure is a loss, and their own texts take minutes to cut.
LANGUAGE = [name for name in CONFIGS if "PythonCode" in (ROOT / "configs" / f"{name}.yaml").read_text()]
TASKS = [name for name in CONFIGS if name not in LANGUAGE]
OVERLAYS = sorted(path.stem for path in (ROOT / "configs").glob("*.yaml") if is_overlay(path))
SMALL = ("--data.report", "40", "--data.selection", "20", "--data.discovery", "20", "--data.pool", "200")


@pytest.mark.filterwarnings("ignore:the density stopped")  # self-paced runs say so, rightly, after two steps
@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_configuration_trains_two_steps(sparselit: Callable[..., Any], folder: Path, name: str) -> None:
    outcome = sparselit("fit", "--config", name, "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", *SMALL)
    assert outcome.code == (3 if "the density stopped" in outcome.err else 0), outcome.err
    assert (folder / "runs" / name / "version_0" / "checkpoints" / "step=2.ckpt").is_file()
    assert "2 steps" in (folder / "runs" / name / "version_0" / "summary.md").read_text()


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_trains_two_steps_in_a_small_shape(
    sparselit: Callable[..., Any], folder: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    for i in range(60):
        lines = [f"value_{i}_{j} = function_{j % 7}(value_{i}_{j - 1})\n" for j in range(1, 30)]
        (folder / f"module_{i}.py").write_text("".join(lines))
    texts = ("--data", "TextFiles", "--data.path", str(folder), "--data.vocab", "256", "--data.train_share", "0.5")
    sizes = ("--data.context", "16", "--data.batch_size", "2", "--data.held_out", "2", "--circuits", "null")
    shape = ("--model.n_layers", "1", "--model.d_model", "16", "--model.n_heads", "1")
    trainer = ("--trainer.max_steps", "2", "--trainer.accelerator", "cpu", "--trainer.precision", "32-true")
    alone = ("--trainer.devices", "1", "--trainer.num_nodes", "1", "--trainer.strategy", "auto")
    outcome = sparselit("fit", "--config", name, *texts, *sizes, *shape, *trainer, *alone)
    assert outcome.code == 0, outcome.err
    assert "2 steps" in (folder / "runs" / name / "version_0" / "summary.md").read_text()


@pytest.mark.parametrize("name", LANGUAGE)
def test_a_language_model_opens_with_question_command_time_and_loss(name: str) -> None:
    head = re.match(r"(#[^\n]*\n)+", (ROOT / "configs" / f"{name}.yaml").read_text())
    assert head is not None
    text = head.group()
    assert "?" in text.splitlines()[0]
    assert f"sparselit fit --config {name}" in text
    assert re.search(r"\d+ (s|min)\b", text), "the measured time"
    trained = name != "python_paper"  # its shape needs more than was at hand
    assert not trained or re.search(r"\d+\.\d+ nats per byte", text), "the measured loss"


@pytest.mark.parametrize("name", TASKS)
def test_a_shipped_configuration_opens_with_question_command_time_and_numbers(name: str) -> None:
    head = re.match(r"(#[^\n]*\n)+", (ROOT / "configs" / f"{name}.yaml").read_text())
    assert head is not None
    text = head.group()
    assert "?" in text.splitlines()[0]
    assert f"sparselit fit --config {name}" in text
    assert re.search(r"\d+ s\b", text), "the measured time"
    assert re.search(r"\d+(\.\d+)? %", text), "the measured accuracy"


@pytest.mark.filterwarnings("ignore:the density stopped")  # as above
@pytest.mark.parametrize("name", OVERLAYS)
def test_a_shipped_overlay_trains_two_steps_and_says_how_it_is_used(
    sparselit: Callable[..., Any], folder: Path, name: str
) -> None:
    command = f"sparselit fit --config quotes_synthetic --config {name}"
    assert command in (ROOT / "configs" / f"{name}.yaml").read_text()
    outcome = sparselit(*command.split()[1:], "--trainer.max_steps", "2", "--trainer.accelerator", "cpu", *SMALL)
    assert outcome.code == (3 if "the density stopped" in outcome.err else 0), outcome.err


def test_overlays_are_listed_apart_from_experiments(sparselit: Callable[..., Any]) -> None:
    experiments, overlays = sparselit("configs").out.split("Overlays")
    assert all(f"\n{name} " in f"\n{experiments}" for name in CONFIGS)
    assert all(f"\n{name} " in overlays for name in OVERLAYS)
    assert "Overlay. " not in overlays


def test_the_readme_names_only_commands_configurations_and_pages_that_exist() -> None:
    text = (ROOT / "README.md").read_text()
    known = {**EXPERIMENT, **COMMAND_MODULES}
    for command in re.findall(r"sparselit ([a-z]+)\b(?= [-`C{]|`|\n)", text):
        assert command in known, command
    for name in re.findall(r"--config ([\w/.]+)", text):
        stem = Path(name).stem
        assert stem in {*CONFIGS, *OVERLAYS} or name in ("FILE_OR_NAME", "NAME"), name
    for page in re.findall(r"\]\(([\w/.]+)\)", text):
        assert (ROOT / page).is_file(), page
    assert len(text.splitlines()) <= 150


def test_the_number_of_threads_is_a_key(sparselit: Callable[..., Any]) -> None:
    outcome = sparselit("fit", "--config", "quick.yaml", "--threads", "0")
    assert outcome.code == 2
    assert outcome.err == "error: threads must be at least 1, got 0\n"
